"""Train SAN-PG, the texture generator."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from components.outputs import finished, scratch, write_file, write_metrics
from components.step import Input, Output

if TYPE_CHECKING:
    from components.training import Pairs
    from san_core.imageset import ImageSet
    from san_core.page import Section
    from san_core.pixels import Pixels
    from san_core.recipe import Recipe

log = logging.getLogger(__name__)


def train_san_pg(
    pit: Annotated[Path, Input("Dataset")],
    generator: Annotated[Path, Output("Model")],
    html: Annotated[Path, Output("HTML")],
    metrics: Annotated[Path, Output("Metrics")],
    recipe: str = "pit",
    overrides: str = "",
    seed: int = 0,
    checkpoint: str = "",
) -> None:
    """Train SAN-PG, the texture generator, to regress a person's whole texture from one picture.

    Args:
        pit: paired image-texture data, made by make_pit
        generator: weights, recipe and report.json with the PSNR on held-out textures
        html: page with loss curves and held-out pictures, their true and generated textures
        metrics: PSNR on held-out textures, of the generator and of the mean training texture
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
    from san_core.textures import generate
    from san_core.training import TrainingData

    chosen = recipes.chosen(recipe, overrides)
    if chosen.identities or not chosen.decoder:
        raise ValueError(
            f"recipe {recipe!r} does not train a texture generator: SAN-PG has w_id=0 w_tri=0"
            " and w_rec above 0, as the recipes pit and demo-pg"
        )
    with scratch(generator) as room:
        with open_set(pit / "images") as images, open_set(pit / "textures") as textures:
            atlas = textures.manifest["provenance"].get("atlas")
            seen = _pairs(room, "train", images, textures, chosen)
            unseen = _pairs(room, "val", images, textures, chosen)
        data = TrainingData(
            images=seen.images,
            textures=seen.textures,
            texture_index=seen.texture_index,
            mirror=training.mirror_of(atlas, chosen.texture_size),
        )
        state = Checkpoint(
            checkpoint,
            {
                "step": "train_san_pg",
                "recipe": asdict(chosen),
                "seed": seed,
                "device": device().type,
                "images": identity(pit / "images"),
                "textures": identity(pit / "textures"),
                "code": code.fingerprint("components.train_san_pg"),
            },
        )
        model = training.new_model(chosen, num_classes=0, seed=seed)
        history = training.train(model, data, chosen, seed=seed, checkpoint=state)
        generated = generate(model, unseen.images, device=device())
        scores = _score(generated, seen, unseen)
        sections = [
            _table(scores),
            training.curves(history),
            _examples(unseen, generated),
        ]
    facts = {"atlas": atlas, "seed": seed, "recipe": recipe}
    report = {**scores._asdict(), "held_out_images": len(generated)}
    with finished(generator) as folder:
        weights.save(folder, model, chosen, facts=facts)
        write_file(folder / "report.json", json.dumps(report, indent=2) + "\n")
        write_file(folder / "history.jsonl", training.history_lines(history))
    write_file(html, page.page("SAN-PG, the texture generator", sections, subtitle=recipe))
    write_metrics(metrics, scores._asdict())
    log.info(
        "held-out textures: PSNR %.2f dB, %.2f dB above the mean training texture",
        scores.psnr,
        scores.psnr - scores.psnr_of_mean_texture,
    )


def _pairs(
    folder: Path, split: str, images: "ImageSet", textures: "ImageSet", recipe: "Recipe"
) -> "Pairs":
    """The images of a split with their textures; textures of other splits are not read."""
    from components import training

    shown, painted = images.of_split(split), textures.of_split(split)
    return training.Pairs(
        training.read_images(folder, f"{split}-images", images, shown, recipe),
        training.read_textures(folder, f"{split}-textures", textures, painted, recipe),
        training.texture_rows(
            [record.fields["texture"] for record in shown], [record.name for record in painted]
        ),
    )


class _Scores(NamedTuple):
    """PSNR in dB on held-out identities, squared errors pooled over all their images."""

    psnr: float
    psnr_of_mean_texture: float  # predicting the mean training texture for everybody


def _score(generated: "Pixels", seen: "Pairs", unseen: "Pairs") -> _Scores:
    """How near the generated textures of held-out people come to the true ones."""
    import numpy as np

    from san_core.textures import psnr

    true = unseen.textures[unseen.texture_index]
    mean = np.rint(seen.textures.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return _Scores(psnr(generated, true), psnr(np.broadcast_to(mean, true.shape), true))


def _table(scores: _Scores) -> "Section":
    from san_core import page

    rows = [
        ("SAN-PG", f"{scores.psnr:.2f}"),
        ("the mean training texture", f"{scores.psnr_of_mean_texture:.2f}"),
    ]
    return page.Section(
        "Held-out textures",
        page.table(["", "PSNR in dB"], rows, strong=0),
        "People the generator has never seen, each texture from a single picture.",
    )


def _examples(unseen: "Pairs", generated: "Pixels") -> "Section":
    from components import training

    rows = training.spread(len(generated))
    return training.examples(
        {
            "picture": unseen.images[rows],
            "true texture": unseen.textures[unseen.texture_index[rows]],
            "generated texture": generated[rows],
        },
        lead="Held-out people.",
    )
