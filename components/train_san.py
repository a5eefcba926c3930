"""Train the ReID encoder, with or without texture supervision."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from components.outputs import finished, write_file, write_metrics
from components.step import Input, Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from components.training import Validation
    from components.training_inputs import Reader
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
    pit: Annotated[Path | None, Input("Dataset")] = None,
    recipe: str = "cuhk03",
    overrides: str = "",
    seed: int = 0,
    checkpoint: str = "",
    precision: str = "auto",
    compiled: bool = False,
    onnx: bool = False,
) -> None:
    """Train SAN: the ReID encoder jointly with a decoder that must regress each person's texture.

    Several GPUs of one machine train together where torchrun starts a process for each:
    `torchrun --nproc-per-node 4 -m components train_san ...`. A recipe's batch is that of all.

    Args:
        dataset: the person images, an image set; its train split is used
        model: weights, recipe and history.jsonl (one line an epoch); where the recipe validates
            (eval_every), the weights are the best ones and last.safetensors the last
        html: page with loss curves and a grid of inputs, their textures and decoded textures
        metrics: the losses of the last epoch
        textures: sealed textures of the training images; recipes without texture losses need none
        generator: SAN-PG to start from, for recipes with init=generator
        pit: paired image-texture data to mix in, for recipes with pit_every
        recipe: name of a recipe in san_core/recipe.py
        overrides: recipe fields to replace, such as "lr=1e-4 epochs=3"
        seed: seed of every random choice
        checkpoint: folder or URI for the state of unfinished training; empty keeps none
        precision: auto, float32, bfloat16 or float16; auto is mixed precision on a GPU alone
        compiled: whether to train through torch.compile, faster on a GPU after some minutes
        onnx: whether to write encoder.onnx too, for use without torch
    """
    from components import code, recipes, training, training_page
    from components.checkpoint import Checkpoint
    from components.machine import device
    from components.ranks import is_first, together
    from components.staging import identity
    from components.training_inputs import Reader, first_weights, new_model
    from san_core import page
    from san_core.model import weights
    from san_core.model.onnx import check_installed, export_encoder
    from san_core.precision import precision_named

    chosen = recipes.chosen(recipe, overrides)
    _check_inputs(chosen, recipe, textures=textures, generator=generator, pit=pit)
    arithmetic = precision_named(precision)
    if onnx:
        check_installed()
    with together() as ranks, ranks.scratch(model) as room:
        reader = Reader(room, chosen, ranks)
        data, validation = _read(reader, chosen, dataset=dataset, textures=textures, pit=pit)
        starting_from = generator if chosen.init == "generator" else None
        state = Checkpoint(
            checkpoint,
            {
                "step": "train_san",
                "recipe": asdict(chosen),
                "seed": seed,
                "device": device().type,
                "precision": precision,
                "dataset": identity(dataset),
                "textures": identity(textures) if textures and chosen.decoder else None,
                "pit": _identity_of_pit(pit) if pit and chosen.pit_every else None,
                **ranks.of_first(lambda: first_weights(room, chosen, starting_from)),
                "code": code.fingerprint("components.train_san"),
            },
        )
        network = new_model(
            chosen,
            num_classes=data.num_classes,
            seed=seed,
            folder=room,
            generator=starting_from,
            ranks=ranks,
        )
        trained = training.train(
            network,
            data,
            chosen,
            seed=seed,
            checkpoint=state,
            validation=validation,
            precision=arithmetic,
            compiled=compiled,
        )
        if not is_first():
            return
        best = trained.best.weights if trained.best else None
        facts = {"seed": seed, "recipe": recipe, **trained.facts}
        with finished(model) as folder:
            weights.save(folder, network, chosen, facts=facts, chosen=best)
            write_file(folder / "history.jsonl", training.history_lines(trained.history))
            if best:
                network.load_state_dict(best)
            if onnx:
                export_encoder(folder / "encoder.onnx", network, chosen)
        sections = [training_page.curves(trained.history), *_examples(network, data)]
    write_file(html, page.page("SAN", sections, subtitle=recipe))
    write_metrics(metrics, trained.history[-1])


def _check_inputs(
    recipe: "Recipe",
    name: str,
    *,
    textures: Path | None,
    generator: Path | None,
    pit: Path | None,
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
    if recipe.pit_every and pit is None:
        raise ValueError(
            f"recipe {name!r} mixes in PIT batches (pit_every={recipe.pit_every}) and needs paired"
            " data (--pit), none were given"
        )
    if textures is not None and not recipe.decoder:
        log.warning("recipe %r has no texture losses: the textures are not used", name)


class _Data(NamedTuple):
    training: "TrainingData"
    validation: "Validation | None"


def _read(
    reader: "Reader",
    recipe: "Recipe",
    *,
    dataset: Path,
    textures: Path | None,
    pit: Path | None,
) -> _Data:
    """What to train on and, if the recipe validates, how the network is scored meanwhile."""
    from dataclasses import replace

    from components.staging import open_set

    with open_set(dataset) as images:
        records: Sequence[Record] = images.of_split("train")
        validation = None
        if recipe.eval_every:
            records, others = _parted(images, records, recipe)
            validation = _validation(reader, recipe, images, others)
        data = _training(reader, recipe, images, records, textures)
    if pit is not None and recipe.pit_every:
        data = replace(data, pit=reader.pairs(pit, "train").as_data())
    return _Data(data, validation)


def _training(
    reader: "Reader",
    recipe: "Recipe",
    images: "ImageSet",
    records: "Sequence[Record]",
    textures: Path | None,
) -> "TrainingData":
    """Training images with their classes, and with their textures if the recipe needs them."""
    import numpy as np

    from components.staging import open_set
    from components.training_inputs import mirror_of
    from san_core.data.cache import label_map
    from san_core.training import TrainingData

    pids = _pids(records).tolist()
    classes = label_map(pids)
    labels = np.array([classes[pid] for pid in pids], np.int64)
    pictures = reader.images("images", images, records)
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
            textures=reader.textures("textures", painted, used),
            texture_index=np.arange(len(records)),
            mirror=mirror_of(atlas, recipe.texture_size),
        )


def _parted(
    images: "ImageSet", records: "Sequence[Record]", recipe: "Recipe"
) -> "tuple[Sequence[Record], Sequence[Record]]":
    """Whom to train on and whom to validate on: the split val, or a share of the people."""
    from san_core.validation import held_out

    if any(record.split == "val" for record in images.records):
        return records, images.of_split("val")
    is_held_out = held_out(_pids(records), recipe.validation_share)
    parts = [
        [record for record, out in zip(records, is_held_out, strict=True) if out == wanted]
        for wanted in (False, True)
    ]
    return parts[0], parts[1]


def _validation(
    reader: "Reader", recipe: "Recipe", images: "ImageSet", records: "Sequence[Record]"
) -> "Validation":
    """The mAP of people who are not trained on."""
    import numpy as np

    from components.machine import device
    from components.training import Validation
    from san_core.evaluation.ranking import Labels
    from san_core.validation import mean_average_precision

    pids = _pids(records)
    known = [record.camid for record in records if record.camid is not None]
    camids = np.array(known, np.int64) if len(known) == len(records) else None
    pictures = reader.images("validation", images, records)
    log.info("validation: %d images of %d people", len(records), len(np.unique(pids)))
    return Validation(
        "mAP", mean_average_precision(pictures, Labels(pids, camids), recipe, device=device())
    )


def _pids(records: "Sequence[Record]") -> "NDArray[np.int64]":
    """Whom the images show.

    Raises:
        ValueError: an image has no identity.
    """
    import numpy as np

    pids = [record.pid for record in records if record.pid is not None]
    if len(pids) < len(records):
        nobody = next(record.name for record in records if record.pid is None)
        raise ValueError(f"training image {nobody} has no identity to learn")
    return np.array(pids, np.int64)


def _identity_of_pit(pit: Path) -> list[str]:
    from components.staging import identity

    return [identity(pit / part) for part in ("images", "textures")]


def _examples(model: "SAN", data: "TrainingData") -> "list[Section]":
    """Some training images, the textures they were given, and what the decoder makes of them."""
    from components import training_page
    from components.machine import device
    from san_core.textures import generate

    if data.textures is None or data.texture_index is None:
        return []
    rows = training_page.spread(len(data.images))
    shown = data.images[rows]
    columns = {
        "picture": shown,
        "texture to be regressed": data.textures[data.texture_index[rows]],
        "decoded texture": generate(model, shown, device=device()),
    }
    return [training_page.examples(columns, lead="Training images.")]
