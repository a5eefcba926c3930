"""What the two training steps share: reading pairs, running epochs, keeping state, their page."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from scipy.sparse import csr_array

from components.checkpoint import Checkpoint
from components.interruption import Terminated, asked_to_stop
from components.machine import device
from san_core import page
from san_core.data.cache import File, cache_images, cache_textures, rows_of
from san_core.imageset import ImageSet
from san_core.model import weights
from san_core.model.san import SAN, build
from san_core.page import Section
from san_core.pixels import Pixels, resize
from san_core.recipe import Recipe
from san_core.shard import Record
from san_core.training import EpochReport, Stopped, TrainingData, fit

log = logging.getLogger(__name__)

History = list[dict[str, Any]]
PICTURE = (128, 64)  # rows and columns of an image on the page
TEXTURE = (128, 128)
SHOWN = 12


class Pairs(NamedTuple):
    """N images and the M textures they belong to, decoded at the sizes of a recipe."""

    images: Pixels  # (N, H, W, 3)
    textures: Pixels  # (M, T, T, 3)
    texture_index: NDArray[np.int64]  # (N,), the row of an image's texture


def read_images(
    folder: Path, name: str, images: ImageSet, records: Sequence[Record], recipe: Recipe
) -> Pixels:
    """The images of `records`, decoded once into a memory-mapped file of that name in `folder`."""
    files = (File(record.name, images.read(record)) for record in records)
    size = recipe.image_size
    return cache_images(folder / f"{name}.npy", files, count=len(records), size=size)


def read_textures(
    folder: Path, name: str, textures: ImageSet, records: Sequence[Record], recipe: Recipe
) -> Pixels:
    """The textures of `records`, averaged to the recipe's size; otherwise as `read_images`."""
    files = (File(record.name, textures.read(record)) for record in records)
    return cache_textures(
        folder / f"{name}.npy", files, count=len(records), size=recipe.texture_size
    )


def texture_rows(keys: Sequence[str], among: Sequence[str]) -> NDArray[np.int64]:
    """For every image the row of its texture, by name."""
    return rows_of(keys, among, what="texture")


def mirror_of(atlas: object, size: int) -> csr_array | None:
    """How a texture of that atlas looks in the mirror; None where the atlas is not known."""
    from san_core.synthesis.atlas import ATLAS, mirror_matrix

    return mirror_matrix(size) if atlas == ATLAS else None


def new_model(recipe: Recipe, *, num_classes: int, seed: int) -> SAN:
    """The untrained network of a recipe, its encoder pretrained where the recipe says so."""
    model = build(recipe, num_classes=num_classes, seed=seed)
    if recipe.pretrained != "none":
        weights.load_pretrained(model, recipe.pretrained)
    return model


def train(
    model: SAN, data: TrainingData, recipe: Recipe, *, seed: int, checkpoint: Checkpoint
) -> History:
    """Train to the end, or on to the end from the checkpoint; one log line an epoch.

    Returns:
        A record per epoch: epoch, loss, the terms and lr. Nothing in it tells how fast it went, so
        equal training gives equal histories.

    Raises:
        Terminated: SIGTERM came; the state after the batch at hand is kept.
    """
    log.info("recipe: %s", json.dumps(asdict(recipe)))
    kept = checkpoint.load()
    history: History = list(kept["history"]) if kept else []
    unsaved: list[dict[str, Any]] = []

    def save() -> None:
        state = unsaved.pop()  # of the weights as they are now: nothing moves them meanwhile
        checkpoint.save({"epoch": state["epoch"], "fit": state, "history": history})

    with asked_to_stop() as stop:
        reports = fit(
            model,
            data,
            recipe,
            seed=seed,
            device=device(),
            state=kept["fit"] if kept else None,
            on_state=unsaved.append,
            stop=stop,
        )
        try:
            for report in reports:
                log.info("%s", _line(report, recipe))
                history.append(
                    {"epoch": report.epoch, "loss": report.loss, **report.terms, "lr": report.lr}
                )
                if unsaved:
                    save()
        except Stopped as stopped:
            save()
            log.info("stopped %s", stopped)
            raise Terminated from stopped
    return history


def _line(report: EpochReport, recipe: Recipe) -> str:
    terms = " ".join(f"{name} {value:.3f}" for name, value in report.terms.items())
    left = (recipe.epochs - report.epoch) * report.seconds
    eta = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
    return (
        f"epoch {report.epoch}/{recipe.epochs}  loss {report.loss:.3f} ({terms})"
        f"  lr {report.lr:.2g}  {report.images_per_second:.0f} img/s  eta {eta}"
    )


def history_lines(history: History) -> str:
    """The history as JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in history)


def curves(history: History) -> Section:
    """A plot of the loss terms over the epochs, and one of the learning rate."""
    terms = [name for name in history[0] if name not in ("epoch", "loss", "lr")]
    last = ", ".join(f"{name} {history[-1][name]:.3f}" for name in terms)
    drawn = [
        page.figure_svg(
            page.curves(
                history, terms, label="loss terms" if len(terms) > 1 else f"loss, {terms[0]}"
            ),
            alt=f"Losses over {len(history)} epochs; last: {last}",
        ),
        page.figure_svg(
            page.curves(history, ["lr"], label="learning rate"),
            alt=f"Learning rate over {len(history)} epochs",
        ),
    ]
    return Section(
        "Training",
        Markup("").join(drawn),
        "Means over each epoch of the terms of the loss, before they are weighted.",
    )


def examples(columns: Mapping[str, Pixels], *, lead: str) -> Section:
    """Rows of pictures side by side: each column a stack of images (N, ...) under its caption."""
    rows = [
        [
            page.image_tag(
                resize(picture, PICTURE if picture.shape[0] != picture.shape[1] else TEXTURE),
                alt=f"{caption}, example {number}",
                lossless=True,
            )
            for caption, picture in zip(columns, pictures, strict=True)
        ]
        for number, pictures in enumerate(zip(*columns.values(), strict=True), 1)
    ]
    return Section("Examples", page.gallery(rows, captions=list(columns)), lead)


def spread(count: int) -> NDArray[np.int64]:
    """The indices of SHOWN or fewer of `count` things, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(SHOWN, count)).round().astype(np.int64))
