"""The lines that hand a history to MLflow, run as they stand, before something that takes notes."""

import contextlib
import json
import sys
from types import ModuleType

import pytest

from components.command.code import ROOT
from tests.documents.markdown import python_blocks


class Notes(ModuleType):
    """What MLflow offers of what is used, and what it was given."""

    def __init__(self):
        super().__init__("mlflow")
        self.runs, self.metrics, self.artifacts = [], [], []

    def start_run(self, *, run_name):
        self.runs.append(run_name)
        return contextlib.nullcontext()

    def log_metrics(self, metrics, *, step):
        self.metrics.append((step, metrics))

    def log_artifacts(self, local_dir, artifact_path):
        self.artifacts.append((local_dir, artifact_path))


@pytest.fixture
def notes(monkeypatch):
    taken = Notes()
    monkeypatch.setitem(sys.modules, "mlflow", taken)
    return taken


def test_a_history_is_handed_to_mlflow_as_the_document_says(tmp_path, monkeypatch, notes):
    (code,) = (b for b in python_blocks(ROOT / "components" / "README.md") if "mlflow" in b)
    history = [{"epoch": 1, "loss": 2.0, "lr": 0.1}, {"epoch": 2, "loss": 1.0, "lr": 0.05}]
    (tmp_path / "work" / "model").mkdir(parents=True)
    lines = "".join(json.dumps(record) + "\n" for record in history)
    (tmp_path / "work" / "model" / "history.jsonl").write_text(lines)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert notes.metrics == [(1, {"loss": 2.0, "lr": 0.1}), (2, {"loss": 1.0, "lr": 0.05})]
    assert (notes.runs, notes.artifacts) == (["demo"], [("work/model", "model")])
    assert len([line for line in code.splitlines() if line]) == 6
