"""The last lines of a run."""

import shutil
import sys

import pytest

from components.experiments.record import read_run
from components.launch.closing import closing_lines, next_commands
from tests.components.experiments.made_runs import make_run

GOOD, BETTER = {"rank1": 0.5, "mAP": 0.25}, {"rank1": 0.75, "mAP": 0.5}


@pytest.fixture(autouse=True)
def python(monkeypatch):
    """The shell finds the Python that runs the tests as `python`."""
    monkeypatch.setattr(shutil, "which", {"python": sys.executable}.get)


def test_run_ends_with_the_place_of_its_results_and_three_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs/a", GOOD)
    make_run(tmp_path / "runs/b", BETTER)
    lines = closing_lines(tmp_path / "runs/b")
    assert lines[:3] == [
        "results: runs/b/evaluate/report_page.html",
        "all runs: runs/index.html",
        "next:",
    ]
    assert lines[3:] == [
        "  python pipeline.py run --of b --name b-2 --param seed=1",
        "  python -m components compare a b",
    ]


def test_next_seed_and_a_run_with_a_report_are_suggested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs/a", GOOD)
    make_run(tmp_path / "runs/b", BETTER, seed=1)
    with pytest.raises(ValueError, match="it fails"):
        make_run(tmp_path / "runs/c", GOOD, fails=True)
    assert next_commands(read_run(tmp_path / "runs/b"))[:2] == [
        "python pipeline.py run --of b --name b-2 --param seed=2",
        "python -m components compare a b",
    ]
    assert next_commands(read_run(tmp_path / "runs/c"))[1] == "python pipeline.py runs list"


@pytest.mark.parametrize("step", ["train_san", "take_model"])
def test_model_of_a_run_is_there_to_search_with(tmp_path, monkeypatch, step):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs/a", GOOD)
    run = read_run(tmp_path / "runs/a")
    outputs = {"model": "system.Model"}
    task = {"step": step, "parameters": {}, "inputs": {}, "outputs": outputs}
    run.record.tasks[step] = task
    (run.folder / step / "model").mkdir(parents=True)
    assert next_commands(run)[1:] == [
        "python pipeline.py runs list",
        f"python -m components search --model runs/a/{step}/model --gallery FOLDER --query FILE",
    ]


def test_next_commands_name_the_python_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs/a", GOOD)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    runs = next_commands(read_run(tmp_path / "runs/a"))[1]
    assert runs == ".venv/bin/python pipeline.py runs list"
