"""Train the ReID encoder, with or without texture supervision."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from components.outputs import finished, scratch, write_file, write_metrics
from components.step import Input, Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from san_core.imageset import ImageSet
    from san_core.model.san import SAN
    from san_core.page import Section
    from san_core.recipe import Recipe
    from san_core.shard import Record
    from san_core.training import TrainingData

log = logging.getLogger(__name__)


def train_san(
    dataset: Annotated[Path, Input("Dataset")],
    model: Annotated[Path, Output("Model")],
    html: Annotated[Path, Output("HTML")],
    metrics: Annotated[Path, Output("Metrics")],
    textures: Annotated[Path | None, Input("Dataset")] = None,
    generator: Annotated[Path | None, Input("Model")] = None,
    recipe: str = "cuhk03",
    overrides: str = "",
    seed: int = 0,
    checkpoint: str = "",
) -> None:
    """Train SAN: the ReID encoder jointly with a decoder that must regress each person's texture.

    Args:
        dataset: the person images, an image set; its train split is used
        model: weights, recipe and history.jsonl (one line an epoch)
        html: page with loss curves and a grid of inputs, their textures and decoded textures
        metrics: the losses of the last epoch
        textures: sealed textures of the training images; recipes without texture losses need none
        generator: SAN-PG to start from, for recipes with init=generator
        recipe: name of a recipe in san_core/recipe.py
        overrides: recipe fields to replace, such as "lr=1e-4 epochs=3"
        seed: seed of every random choice
        checkpoint: folder or URI for the state of unfinished training; empty keeps none
    """
    from components import code, recipes, training
    from components.checkpoint import Checkpoint
    from components.machine import device
    from components.staging import identity, open_set
    from san_core import page
    from san_core.model import weights

    chosen = recipes.chosen(recipe, overrides)
    _check_inputs(chosen, recipe, textures=textures, generator=generator)
    with scratch(model) as room:
        with open_set(dataset) as images:
            data = _read(room, images, textures, chosen)
        state = Checkpoint(
            checkpoint,
            {
                "step": "train_san",
                "recipe": asdict(chosen),
                "seed": seed,
                "device": device().type,
                "dataset": identity(dataset),
                "textures": identity(textures) if textures else None,
                "generator": weights.fingerprint(generator) if generator else None,
                "code": code.fingerprint("components.train_san"),
            },
        )
        network = training.new_model(chosen, num_classes=data.num_classes, seed=seed)
        if generator and chosen.init == "generator":
            weights.start_from_generator(network, weights.load(generator), recipe=chosen)
        history = training.train(network, data, chosen, seed=seed, checkpoint=state)
        sections = [training.curves(history), *_examples(network, data)]
    with finished(model) as folder:
        weights.save(folder, network, chosen, facts={"seed": seed, "recipe": recipe})
        write_file(folder / "history.jsonl", training.history_lines(history))
    write_file(html, page.page("SAN", sections, subtitle=recipe))
    write_metrics(metrics, history[-1])


def _check_inputs(
    recipe: "Recipe", name: str, *, textures: Path | None, generator: Path | None
) -> None:
    """A recipe and the artifacts it was given must belong together.

    Raises:
        ValueError: it has no identity losses, or needs an artifact that was not given.
    """
    if not recipe.identities:
        raise ValueError(f"recipe {name!r} has no identity losses: it is one for train_san_pg")
    if recipe.decoder and textures is None:
        raise ValueError(f"recipe {name!r} needs textures (--textures), none were given")
    if recipe.init == "generator" and generator is None:
        raise ValueError(f"recipe {name!r} starts from a generator (--generator), none was given")
    if textures is not None and not recipe.decoder:
        log.warning("recipe %r has no texture losses: the textures are not used", name)


def _read(
    folder: Path, images: "ImageSet", textures: Path | None, recipe: "Recipe"
) -> "TrainingData":
    """The training images with their classes, and with their textures if the recipe needs them."""
    import numpy as np

    from components import training
    from components.staging import open_set
    from san_core.data.cache import label_map
    from san_core.training import TrainingData

    records = images.of_split("train")
    pids = _pids(records)
    classes = label_map(pids)
    labels = np.array([classes[pid] for pid in pids], np.int64)
    pictures = training.read_images(folder, "images", images, records, recipe)
    if not recipe.decoder or textures is None:
        return TrainingData(images=pictures, labels=labels)
    with open_set(textures) as painted:
        atlas = painted.manifest["provenance"].get("atlas")
        of_image = {record.fields["image"]: record for record in painted.records}
        if missing := [record.name for record in records if record.name not in of_image]:
            raise ValueError(
                f"{len(missing)} of {len(records)} training images have no texture,"
                f" such as {missing[0]}: the textures are of another data set"
            )
        used = [of_image[record.name] for record in records]
        return TrainingData(
            images=pictures,
            labels=labels,
            textures=training.read_textures(folder, "textures", painted, used, recipe),
            texture_index=np.arange(len(records)),
            mirror=training.mirror_of(atlas, recipe.texture_size),
        )


def _pids(records: "Sequence[Record]") -> list[int]:
    """Whom the training images show.

    Raises:
        ValueError: an image has no identity.
    """
    pids = [record.pid for record in records if record.pid is not None]
    if len(pids) < len(records):
        nobody = next(record.name for record in records if record.pid is None)
        raise ValueError(f"training image {nobody} has no identity to learn")
    return pids


def _examples(model: "SAN", data: "TrainingData") -> "list[Section]":
    """Some training images, the textures they were given, and what the decoder makes of them."""
    from components import training
    from components.machine import device
    from san_core.textures import generate

    if data.textures is None or data.texture_index is None:
        return []
    rows = training.spread(len(data.images))
    shown = data.images[rows]
    columns = {
        "picture": shown,
        "texture to be regressed": data.textures[data.texture_index[rows]],
        "decoded texture": generate(model, shown, device=device()),
    }
    return [training.examples(columns, lead="Training images.")]
