"""TensorBoard's event files, read by TensorBoard's own reader."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from components.storage.outputs import check_replaceable
from components.storage.transfer import ARTIFACT_FILE_PATTERN
from components.training.events import check_events, scalars_of, write_events
from components.training.report import Examples
from san_core.recipes import get_recipe

HISTORY = [
    {"epoch": 1, "loss": 3.0, "id": 2.0, "rec": 0.5, "lr": 0.1, "accuracy": 0.25},
    {"epoch": 2, "loss": 2.0, "id": 1.5, "rec": 0.25, "lr": 0.05, "val_mAP": 0.5},
]
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 64, 32, 3)).astype(np.uint8)
TEXTURES = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
EXAMPLES = Examples("Held-out examples", {"picture": PICTURES, "texture": TEXTURES}, "")


def test_a_figure_has_a_name_by_which_it_is_grouped():
    assert scalars_of(HISTORY[0]) == {
        "loss/whole": 3.0,
        "loss/identity": 2.0,
        "loss/texture": 0.5,
        "accuracy/identity": 0.25,
        "lr": 0.1,
    }
    assert scalars_of(HISTORY[1])["val/mAP"] == 0.5


def test_tensorboard_reads_history_curves_examples_and_recipe(tmp_path):
    write_events(tmp_path / "events", HISTORY, get_recipe("demo"), [EXAMPLES], wanted=True)
    read = EventAccumulator(str(tmp_path / "events"), size_guidance={"images": 0})
    read.Reload()
    losses = [(event.step, event.value) for event in read.Scalars("loss/whole")]
    assert losses == [(1, 3.0), (2, 2.0)]
    assert [(event.step, event.value) for event in read.Scalars("val/mAP")] == [(2, 0.5)]
    tags = read.Tags()
    assert {"curves/loss", "curves/val_mAP", "curves/lr"} <= {*tags["images"]}
    assert {"Held-out examples/01", "Held-out examples/02"} <= {*tags["images"]}
    (example,) = read.Images("Held-out examples/01")
    assert (example.height, example.width) == (128, 64 + 2 + 128)
    assert "recipe/text_summary" in tags["tensors"]
    files = {path.name for path in (tmp_path / "events").iterdir()}
    assert len(files) == 2
    assert all(ARTIFACT_FILE_PATTERN.fullmatch(name) for name in files)


def test_where_no_events_are_wanted_the_folder_says_so(tmp_path):
    write_events(tmp_path / "events", HISTORY, get_recipe("demo"), [EXAMPLES], wanted=False)
    (file,) = (tmp_path / "events").iterdir()
    assert json.loads(file.read_bytes()) == {"format": "san-events", "version": 1, "epochs": 0}
    check_replaceable(tmp_path / "events")  # a step has written it, so a step may replace it
    write_events(None, HISTORY, get_recipe("demo"), [EXAMPLES], wanted=False)


def test_events_need_a_place():
    with pytest.raises(ValueError, match="needs a folder for the event files: --events PATH"):
        check_events(None, wanted=True)
    check_events(None, wanted=False)


def test_events_need_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ModuleNotFoundError):
        check_events(Path("events"), wanted=True)
    check_events(Path("events"), wanted=False)
