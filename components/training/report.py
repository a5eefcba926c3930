"""The page of a training step: loss curves, and pictures beside what was made of them."""

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from components.training.loop import (
    ACCURACY,
    History,
    interval_names,
    loss_name,
    loss_terms,
    score_names,
)
from san_core.images.pixels import Pixels, resize
from san_core.pages import page
from san_core.pages.page import Section

IMAGE_SIZE = (128, 64)  # rows and columns of an image on the page
TEXTURE_SIZE = (128, 128)
EXAMPLES_SHOWN = 12
_ACCURACY_IN_WORDS = (
    " Accuracy is the share of training pictures, as they were augmented, whose own identity came"
    " first: where it nears 1 and a validation score falls, people are learned by heart."
)


def failure_sections(failure: str) -> list[Section]:
    """What a page says first of a training that failed; nothing of one that did not."""
    if not failure:
        return []
    lead = "The weights are the best until then; a step that takes them warns."
    return [Section("This training failed", page.bullet_list([failure]), lead)]


def curves_section(history: History) -> Section:
    """Plots over the epochs: loss terms, learning rate and, where there is one, the score."""
    names = {term: _spoken(term) for term in loss_terms(history)}
    losses = [{names.get(key, key): value for key, value in r.items()} for r in history]
    known = {name: [r[name] for r in losses if name in r] for name in names.values()}
    last = ", ".join(f"{name} {values[-1]:.3f}" for name, values in known.items())
    label = "terms of the loss" if len(names) > 1 else f"loss, {', '.join(names.values())}"
    drawn = [
        page.figure_tag(
            page.history_figure(losses, list(names.values()), label=label),
            alt=f"Losses over {len(history)} epochs; last: {last}",
        ),
        page.figure_tag(
            page.history_figure(history, ["lr"], label="learning rate"),
            alt=f"Learning rate over {len(history)} epochs",
        ),
    ]
    shares = [record[ACCURACY] for record in history if ACCURACY in record]
    if shares:
        drawn.append(
            page.figure_tag(
                page.history_figure(history, [ACCURACY], label="accuracy of identities, training"),
                alt=f"Training accuracy of identities; last: {shares[-1]:.1%}",
            )
        )
    for name in score_names(history):
        scores = [record[name] for record in history if name in record]
        label = name.replace("val_", "validation ")
        band = interval_names(name) if any(interval_names(name)[0] in r for r in history) else None
        if band:
            label += ", and its 95 % interval"
        drawn.append(
            page.figure_tag(
                page.history_figure(history, [name], label=label, band=band),
                alt=f"{name} of {len(scores)} validations; best {max(scores):.3f}",
            )
        )
    return Section(
        "Training",
        Markup("").join(drawn),
        "Means over each epoch of the terms of the loss, before they are weighted."
        + (_ACCURACY_IN_WORDS if shares else ""),
    )


def _spoken(term: str) -> str:
    """A term of the loss in words: those of its name among the metrics, such as texture triplet."""
    return loss_name(term).removeprefix("loss_").replace("_", " ")


def examples_section(columns: Mapping[str, Pixels], *, lead: str) -> Section:
    """Rows of pictures side by side: each column a stack of images (N, ...) under its caption."""
    rows = [
        [
            page.image_tag(
                resize(
                    picture, IMAGE_SIZE if picture.shape[0] != picture.shape[1] else TEXTURE_SIZE
                ),
                alt=f"{caption}, example {number}",
                lossless=True,
            )
            for caption, picture in zip(columns, pictures, strict=True)
        ]
        for number, pictures in enumerate(zip(*columns.values(), strict=True), 1)
    ]
    return Section("Examples", page.image_grid(rows, captions=list(columns)), lead)


def evenly_spaced(count: int) -> NDArray[np.int64]:
    """The indices of EXAMPLES_SHOWN or fewer of `count` things, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(EXAMPLES_SHOWN, count)).round().astype(np.int64))
