"""kill -9 of a step, at any moment: nothing half-written is believed, and a rerun ends the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.__main__ import main
from tests.tiny import STEPS, Tiny, files, run_all, words

ROOT = Path(__file__).parents[1]
# What each step writes, beside its page and its metrics.
WRITTEN = {
    "make_pit": "pit",
    "prepare_reid": "reid",
    "train_san_pg": "generator",
    "generate_textures": "written",
    "seal_textures": "textures",
    "train_san": "model",
    "extract_features": "features",
    "evaluate": "report",
}


def _start(command):
    return subprocess.Popen(
        [sys.executable, "-m", "components", *command],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def _kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode


def _with_epochs(command, epochs):
    at = command.index("--overrides") + 1
    return [*command[:at], command[at].replace("epochs=3", f"epochs={epochs}"), *command[at + 1 :]]


def test_killed_training_goes_on_from_its_checkpoint_to_the_same_weights(tiny, tmp_path):
    def command(folder):
        there = Tiny(tmp_path / folder)
        swapped = {tiny.model: there.model, f"{tiny.root}/": f"{there.root}/"}
        line = _with_epochs(words("train_san", tiny), 40)
        for name in ("--model", "--html", "--metrics"):
            at = line.index(name) + 1
            line[at] = line[at].replace(*next(i for i in swapped.items() if i[0] in line[at]))
        return [*line, "--checkpoint", str(tmp_path / f"{folder}-state")]

    assert main(command("undisturbed")) == 0
    process = _start(command("killed"))
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed-state").rglob("state.pt")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint in two minutes"
        time.sleep(0.01)
    assert _kill(process) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model").exists()

    process = _start(command("killed"))
    _, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    assert "going on after epoch" in log
    assert files(tmp_path / "killed" / "model") == files(tmp_path / "undisturbed" / "model")
    assert not list((tmp_path / "killed-state").rglob("state.pt"))  # no longer needed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A tiny run that nobody killed; every step in its own process time."""
    return run_all(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_step_killed_at_any_moment_ends_the_same_when_run_again(undisturbed, tmp_path, step):
    output = tmp_path / WRITTEN[step]
    command = words(step, undisturbed)
    for i, word in enumerate(command):
        if command[i - 1] in ("--html", "--metrics", f"--{WRITTEN[step]}", "--destination"):
            command[i] = str(tmp_path / Path(word).name)
    if step == "seal_textures":  # it seals what is there
        command[command.index("--destination") + 1] = undisturbed.destination
    if step.startswith("train"):
        command += ["--checkpoint", str(tmp_path / "state")]

    started = time.monotonic()
    process = _start(command)
    process.communicate(timeout=300)
    took = time.monotonic() - started
    expected = files(output)
    assert expected

    for share in (0.4, 0.6, 0.75, 0.85, 0.93, 0.98):
        _empty(tmp_path)
        process = _start(command)
        time.sleep(took * share)
        _kill(process)
        if output.exists():  # finished before the signal came
            assert files(output) == expected
        process = _start(command)
        _, log = process.communicate(timeout=300)
        assert process.returncode == 0, log
        assert files(output) == expected, f"killed after {share:.0%} of {took:.1f} s"


def _empty(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
