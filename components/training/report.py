"""The page of a training step: loss curves, and pictures beside the network's outputs."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from components.training.loop import (
    ACCURACY,
    History,
    TrainingResult,
    interval_names,
    loss_name,
    loss_terms,
    score_names,
)
from san_core.images.pixels import Pixels, resize
from san_core.pages import page
from san_core.pages.page import Section
from san_core.recipe import Recipe
from san_core.recipes import overrides_of

IMAGE_SIZE = (128, 64)  # rows and columns of an image on the page
TEXTURE_SIZE = (128, 128)
EXAMPLES_SHOWN = 12
_ACCURACY_IN_WORDS = (
    " Training accuracy is the share of augmented training images that the classifier assigns to"
    " their own identity. If it nears 1 while the validation score falls, the network overfits."
)


def failure_sections(failure: str) -> list[Section]:
    """The first section of a failed training's page; empty if it did not fail."""
    if not failure:
        return []
    lead = "The model has the best weights up to the failure. Steps that read it log a warning."
    return [Section("This training failed", page.bullet_list([failure]), lead)]


def training_section(trained: TrainingResult, *, recipe: str, seed: int, data: str) -> Section:
    """A table of the training, with the epoch of the model's weights.

    Args:
        trained: the result of training.
        recipe: the recipe, in words.
        seed: seed of every random choice.
        data: the training data, in words.
    """
    rows = [
        ("Recipe", recipe),
        ("Seed", str(seed)),
        ("Data", data),
        ("Weights", _weights_in_words(trained)),
    ]
    return Section("This training", page.table(["", ""], rows, text=True))


def recipe_in_words(name: str, recipe: Recipe) -> str:
    """A recipe by name, with its replaced fields."""
    replaced = overrides_of(name, recipe)
    return f"{name} with {replaced}" if replaced else name


def _weights_in_words(trained: TrainingResult) -> str:
    epoch = trained.kept_record["epoch"]
    if trained.best is None or trained.best.score is None:
        return f"those of epoch {epoch}, the last"
    (name,) = score_names(trained.history)
    low, high = (trained.kept_record.get(edge) for edge in interval_names(name))
    told = "" if low is None else f" (95 % {low:.3f} to {high:.3f})"
    return (
        f"those of epoch {epoch} of {len(trained.history)}, the best by {_spoken_score(name)}:"
        f" {trained.best.score:.3f}{told}"
    )


class Curve(NamedTuple):
    """A metric of the history to draw, with its axis label and description."""

    name: str
    label: str
    alt: str
    band: tuple[str, str] | None = None


def curves_section(history: History) -> Section:
    """Plots over the epochs, each on an axis of its own: score, accuracy, losses, learning rate."""
    drawn = [
        page.figure_tag(
            draw_curve(history, each), alt=f"{each.alt} over {_epochs_in_words(history)}"
        )
        for each in curves_of(history)
    ]
    return Section(
        "Curves",
        Markup("").join(drawn),
        "Each loss is shown without its weight, as the mean over those batches of an epoch that"
        " have it." + (_ACCURACY_IN_WORDS if ACCURACY in history[-1] else ""),
    )


def curves_of(history: History) -> list[Curve]:
    """The metrics of a history that are drawn, in order."""
    rate = Curve("lr", "learning rate", "Learning rate")
    return [*_score_curves(history), *_loss_curves(history), rate]


def draw_curve(history: History, curve: Curve) -> Figure:
    """One of them."""
    return page.history_figure(history, curve.name, label=curve.label, band=curve.band)


def _score_curves(history: History) -> Iterator[Curve]:
    """The validation score with its interval, and the training accuracy, if there are any."""
    for name in score_names(history):
        scores = [record[name] for record in history if name in record]
        edges = interval_names(name)
        band = edges if any(edges[0] in record for record in history) else None
        label = _spoken_score(name) + (", 95 % interval" if band else "")
        told = f"{name} of {len(scores)} validations; best {max(scores):.3f},"
        yield Curve(name, label, told, band)
    shares = [record[ACCURACY] for record in history if ACCURACY in record]
    if shares:
        told = f"Training accuracy of identities; last: {shares[-1]:.1%},"
        yield Curve(ACCURACY, "training accuracy", told)


def _loss_curves(history: History) -> Iterator[Curve]:
    """The total loss and its terms, by readable names."""
    words = {"loss": "total loss"} | {
        term: f"{loss_name(term).removeprefix('loss_').replace('_', ' ')} loss"
        for term in loss_terms(history)
    }
    for name, label in words.items():
        values = [record[name] for record in history if record.get(name) is not None]
        if values:
            yield Curve(name, label, f"{label.capitalize()}; last: {values[-1]:.3f},")


def _spoken_score(name: str) -> str:
    return name.replace("val_", "validation ")


def _epochs_in_words(history: History) -> str:
    return f"{len(history)} epoch{'s' * (len(history) != 1)}"


class Examples(NamedTuple):
    """Rows of pictures side by side: each column a stack of images (N, ...) under its caption."""

    heading: str
    columns: Mapping[str, Pixels]
    lead: str


def examples_section(examples: Examples) -> Section:
    """Examples as a section of a page."""
    columns = examples.columns
    rows = [
        [
            page.image_tag(
                shown_size(picture),
                alt=f"{caption}, example {number}",
                lossless=True,
            )
            for caption, picture in zip(columns, pictures, strict=True)
        ]
        for number, pictures in enumerate(zip(*columns.values(), strict=True), 1)
    ]
    grid = page.image_grid(rows, captions=list(columns))
    return Section(examples.heading, grid, examples.lead)


def shown_size(picture: Pixels) -> Pixels:
    """A picture, or a square texture, at the size of the page."""
    is_square = picture.shape[0] == picture.shape[1]
    return resize(picture, TEXTURE_SIZE if is_square else IMAGE_SIZE)


def evenly_spaced(count: int) -> NDArray[np.int64]:
    """The indices of at most EXAMPLES_SHOWN of `count` items, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(EXAMPLES_SHOWN, count)).round().astype(np.int64))
