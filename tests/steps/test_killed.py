"""kill -9 of a step, at any moment: nothing half-written is believed, and a rerun ends the same."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from components.__main__ import main
from tests.benchmarks.resume import KILLED_AFTER, same_when_killed
from tests.conftest import kill_all_of
from tests.tiny import (
    SAN_OVERRIDES,
    STEPS,
    file_contents,
    step_command,
    with_flags,
    with_outputs_in,
)

ROOT = Path(__file__).parents[2]
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


@pytest.mark.slow
def test_training_that_is_killed_ends_with_the_same_weights(tiny, tmp_path):
    assert same_when_killed(tiny, tmp_path, after=KILLED_AFTER)


@pytest.mark.slow
def test_training_told_to_stop_keeps_its_state_in_the_middle_of_an_epoch(
    start_component, tiny, tmp_path
):
    def command(folder):
        line = with_outputs_in(step_command("train_san", tiny), tmp_path / folder)
        overrides = SAN_OVERRIDES.replace("epochs=3", "epochs=40 checkpoint_every=40")
        return with_flags(line, overrides=overrides, checkpoint=str(tmp_path / f"{folder}-state"))

    assert main(command("undisturbed")) == 0
    process = start_component(command("stopped"))
    for line in process.stderr:
        if "epoch 2/40" in line:
            break
    process.terminate()
    _, log = process.communicate(timeout=30)
    assert process.returncode == 143, log
    assert re.search(r"stopped in epoch \d+ after batch \d", log)
    assert not (tmp_path / "stopped" / "model").exists()

    process = start_component(command("stopped"))
    _, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    assert "resuming after epoch" in log
    assert file_contents(tmp_path / "stopped" / "model") == file_contents(
        tmp_path / "undisturbed" / "model"
    )


@pytest.mark.slow
def test_training_killed_a_second_after_sigterm_goes_on_from_its_last_timed_state(
    start_component, tiny, tmp_path
):
    """Kubernetes' mercy: the launcher has no handler, so a second is all a step has."""

    def command(folder):
        line = with_outputs_in(step_command("train_san", tiny), tmp_path / folder)
        overrides = SAN_OVERRIDES.replace("epochs=3", "epochs=30 checkpoint_every=30")
        state = str(tmp_path / f"{folder}-state")
        return with_flags(line, overrides=overrides, checkpoint=state, checkpoint_minutes="0.0001")

    assert main(command("undisturbed")) == 0
    process = start_component(command("stopped"))
    for line in process.stderr:
        if "epoch 2/30" in line:
            break
    os.kill(process.pid, signal.SIGSTOP)  # so busy that it does not come to answer SIGTERM
    process.terminate()
    time.sleep(1)
    assert kill_all_of(process)
    process = start_component(command("stopped"))
    _, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    assert re.search(r"resuming after epoch [1-9]", log)
    assert file_contents(tmp_path / "stopped" / "model") == file_contents(
        tmp_path / "undisturbed" / "model"
    )


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_step_killed_at_any_moment_ends_the_same_when_run_again(
    start_component, tiny, tmp_path, tmp_path_factory, step
):
    output = tmp_path / WRITTEN[step]
    command = with_outputs_in(step_command(step, tiny), tmp_path)
    if step == "generate_textures":
        command = with_flags(command, destination=str(tmp_path / "destination"))
    if step == "seal_textures":  # it writes among the textures, which must outlive every kill
        textures = tmp_path_factory.mktemp("kept") / "textures"
        shutil.copytree(tiny.destination, textures)
        command = with_flags(command, destination=str(textures))
    if step == "extract_features":
        command = with_flags(command, feature_parts=str(tmp_path / "parts"))
    if step.startswith("train"):
        command = with_flags(command, checkpoint=str(tmp_path / "state"))

    started = time.monotonic()
    process = start_component(command)
    process.communicate(timeout=300)
    took = time.monotonic() - started
    expected = file_contents(output)
    assert expected

    killed = 0
    for share in (0.4, 0.6, 0.75, 0.85, 0.93, 0.98):
        _empty(tmp_path)
        process = start_component(command)
        moment = took * share
        time.sleep(moment)
        if kill_all_of(process):
            killed += 1
        else:  # it ended before: the machine has become quicker since it was timed
            took = moment
        if output.exists():  # finished before the signal came
            assert file_contents(output) == expected
        process = start_component(command)
        _, log = process.communicate(timeout=300)
        assert process.returncode == 0, log
        assert file_contents(output) == expected, f"killed after {moment:.1f} s"
    assert killed >= 3  # or this test has shown nothing


def _empty(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
