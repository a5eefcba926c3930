"""Train SAN-PG, the texture generator."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from components.command.step import Input, Output
from components.storage.outputs import finished, write_file, write_metrics

if TYPE_CHECKING:
    from components.training.inputs import Pairs
    from components.training.loop import Validation
    from san_core.images.pixels import Pixels
    from san_core.model.san import SAN
    from san_core.pages.page import Section

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
    precision: str = "auto",
    compiled: bool = False,
) -> None:
    """Train SAN-PG, the texture generator, to regress a person's whole texture from one picture.

    Several GPUs of one machine train together where torchrun starts a process for each:
    `torchrun --nproc-per-node 4 -m components train_san_pg ...`. A recipe's batch is that of all.

    Args:
        pit: paired image-texture data, made by make_pit
        generator: weights, recipe and report.json with the PSNR on held-out textures; where the
            recipe validates (eval_every), the weights are the best on half of those textures, the
            report is of the other half, and last.safetensors has the last
        html: page with loss curves and held-out pictures, their true and generated textures
        metrics: PSNR on held-out textures, of the generator and of the mean training texture
        recipe: how to train; `python -m components recipes` lists them
        overrides: fields of the recipe to replace, such as "lr=1e-4 epochs=3"; `python -m
            components recipes NAME` shows them all
        seed: seed of every random choice
        checkpoint: folder or URI for the state of unfinished training; empty keeps none
        precision: auto, float32, bfloat16 or float16; auto is mixed precision on a GPU alone
        compiled: whether to train through torch.compile, faster on a GPU after some minutes
    """
    from components.command import code, recipes
    from components.process.machine import device
    from components.storage.checkpoint import Checkpoint
    from components.storage.staging import identity
    from components.training import loop, report
    from components.training.inputs import Reader, check_atlases, first_weights, new_model
    from components.training.ranks import is_first, together
    from san_core.inference.textures import generate
    from san_core.pages import page
    from san_core.training.precision import native

    chosen = recipes.chosen(recipe, overrides)
    if chosen.identities or not chosen.decoder:
        raise ValueError(
            f"recipe {recipe!r} does not train a texture generator: SAN-PG has w_id=0 w_tri=0"
            " and w_rec above 0, as the recipes pit and demo-pg"
        )
    arithmetic = native(precision, device())
    check_atlases(pit=pit / "textures")
    with together() as ranks, ranks.scratch(generator) as room:
        model = new_model(chosen, num_classes=0, seed=seed, folder=room, ranks=ranks)
        reader = Reader(room, chosen, ranks)
        seen, unseen = reader.pairs(pit, "train"), reader.pairs(pit, "val")
        watched = unseen
        if chosen.eval_every:
            watched, unseen = unseen.halves()
        state = Checkpoint(
            checkpoint,
            {
                "step": "train_san_pg",
                "recipe": asdict(chosen),
                "seed": seed,
                "device": device().type,
                "precision": precision,
                "images": identity(pit / "images"),
                "textures": identity(pit / "textures"),
                **ranks.of_first(lambda: first_weights(room, chosen, None)),
                "code": code.fingerprint("components.train_san_pg"),
            },
        )
        trained = loop.train(
            model,
            seen.as_data(),
            chosen,
            seed=seed,
            checkpoint=state,
            validation=_validation(watched) if chosen.eval_every else None,
            precision=arithmetic,
            compiled=compiled,
        )
        if not is_first():
            return
        facts = {"atlas": seen.atlas, "seed": seed, "recipe": recipe}
        with finished(generator) as folder:
            loop.keep(folder, model, chosen, trained, facts=facts)
            generated = generate(model, unseen.images, device=device())
            scores = _score(generated, seen, unseen)
            summary = {**scores._asdict(), "held_out_images": len(generated)}
            write_file(folder / "report.json", json.dumps(summary, indent=2) + "\n")
        sections = [
            _table(scores),
            report.curves(trained.history),
            _examples(unseen, generated),
        ]
    write_file(html, page.page("SAN-PG, the texture generator", sections, subtitle=recipe))
    write_metrics(metrics, scores._asdict())
    log.info(
        "held-out textures: PSNR %.2f dB, %.2f dB above the mean training texture",
        scores.psnr,
        scores.psnr - scores.psnr_of_mean_texture,
    )


def _validation(watched: "Pairs") -> "Validation":
    """The PSNR on textures that are not trained on, in dB."""
    from components.process.machine import device
    from components.training.loop import Validation
    from san_core.inference.textures import generate, psnr

    def score(model: "SAN") -> float:
        generated = generate(model, watched.images, device=device())
        return psnr(generated, watched.textures[watched.texture_index])

    return Validation("psnr", score)


class _Scores(NamedTuple):
    """PSNR in dB on held-out identities, squared errors pooled over all their images."""

    psnr: float
    psnr_of_mean_texture: float  # predicting the mean training texture for everybody


def _score(generated: "Pixels", seen: "Pairs", unseen: "Pairs") -> _Scores:
    """How near the generated textures of held-out people come to the true ones."""
    import numpy as np

    from san_core.inference.textures import psnr

    true = unseen.textures[unseen.texture_index]
    mean = np.rint(seen.textures.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return _Scores(psnr(generated, true), psnr(np.broadcast_to(mean, true.shape), true))


def _table(scores: _Scores) -> "Section":
    from san_core.pages import page

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
    from components.training import report

    rows = report.spread(len(generated))
    return report.examples(
        {
            "picture": unseen.images[rows],
            "true texture": unseen.textures[unseen.texture_index[rows]],
            "generated texture": generated[rows],
        },
        lead="Held-out people.",
    )
