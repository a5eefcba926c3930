"""TensorBoard event files of a training: its history, its curves and its examples.

They contain times and the name of the machine, so they are an artifact of their own, which no other
step reads. TensorBoard's own writer writes them.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from components.storage.outputs import atomic_folder, write_file
from components.training.loop import History, loss_metrics
from components.training.report import Examples, curves_of, draw_curve, shown_size
from san_core.images.sheet import beside
from san_core.recipe import Recipe

EVENTS_FILE = "events.json"
_FORMAT = {"format": "san-events", "version": 1}


def check_events(events: Path | None, *, wanted: bool) -> None:
    """Check, before training starts, that requested event files can be written.

    Raises:
        ValueError: no folder for them was given.
        ModuleNotFoundError: tensorboard (the extra of that name) is not installed.
    """
    if not wanted:
        return
    if events is None:
        raise ValueError("--tensorboard true needs a folder for the event files: --events PATH")
    importlib.import_module("tensorboard")


def write_events(
    events: Path | None,
    history: History,
    recipe: Recipe,
    examples: Sequence[Examples],
    *,
    wanted: bool,
) -> None:
    """Write a folder of event files; if they were not requested, a folder that says so.

    Args:
        events: the folder; None writes nothing.
        history: a record per epoch.
        recipe: recipe of the training.
        examples: pictures beside the network's outputs.
        wanted: whether event files were requested.
    """
    if events is None:
        return
    with atomic_folder(events) as folder:
        if wanted:
            _write_event_file(folder, history, recipe, examples)
        told = {**_FORMAT, "epochs": len(history) if wanted else 0}
        write_file(folder / EVENTS_FILE, json.dumps(told) + "\n")


def _write_event_file(
    folder: Path, history: History, recipe: Recipe, examples: Sequence[Examples]
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        writer.add_text("recipe", f"```\n{json.dumps(asdict(recipe), indent=1)}\n```")
        for record in history:
            for name, value in scalars_of(record).items():
                writer.add_scalar(name, value, record["epoch"])
        last = history[-1]["epoch"]
        for curve in curves_of(history):
            writer.add_figure(f"curves/{curve.name}", draw_curve(history, curve), last)
        for each in examples:
            for number, row in enumerate(zip(*each.columns.values(), strict=True), 1):
                strip = beside([shown_size(picture) for picture in row])
                writer.add_image(f"{each.heading}/{number:02d}", strip, last, dataformats="HWC")


def scalars_of(record: Mapping[str, float]) -> dict[str, float]:
    """The metrics of an epoch, with names that TensorBoard groups: loss/identity, val/mAP, lr."""
    found = {}
    for name, value in loss_metrics(record).items():
        group, _, rest = name.partition("_")
        found[f"{group}/{rest}" if rest else f"{group}/whole"] = value
    return {**found, "lr": record["lr"]}
