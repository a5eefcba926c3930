"""Whether training that is killed ends with the bytes of a training nobody disturbed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from components.command.code import ROOT
from tests.tiny import TinyRun, file_contents, step_command, with_flags, with_outputs_in

KILLED_EPOCHS = 30
KILLED_AFTER = (3, 14, 27)  # epochs: early, in the middle, nearly done
OVERRIDES = (
    f"epochs={KILLED_EPOCHS} identities_per_batch=4 images_per_identity=2 checkpoint_every=2"
)


def same_when_killed(tiny: TinyRun, folder: Path, *, after: Sequence[int] = KILLED_AFTER) -> bool:
    """Train undisturbed, and killed after each of some epochs; whether the models are equal.

    Raises:
        RuntimeError: a training was not killed when it was to be, or did not go on.
    """

    def command(name: str) -> list[str]:
        line = with_outputs_in(step_command("train_san", tiny), folder / name)
        return with_flags(line, overrides=OVERRIDES, checkpoint=str(folder / f"{name}-state"))

    undisturbed = _start(command("undisturbed"))  # with as many threads as the others
    _, log = undisturbed.communicate(timeout=300)
    if undisturbed.returncode != 0:
        raise RuntimeError(f"the undisturbed training failed: {log}")
    for epoch in after:
        _run_until_killed(
            command("killed"), lambda line, n=epoch: f"epoch {n}/{KILLED_EPOCHS}" in line
        )
    ended = _start(command("killed"))
    _, log = ended.communicate(timeout=300)
    if ended.returncode != 0 or "resuming after epoch" not in log:
        raise RuntimeError(f"the killed training did not go on: {log}")
    return file_contents(folder / "killed" / "model") == file_contents(
        folder / "undisturbed" / "model"
    )


def _start(command: Sequence[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "components", *command],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def _run_until_killed(command: Sequence[str], is_time: Callable[[str], bool]) -> None:
    process = _start(command)
    assert process.stderr is not None
    _wait_for_line(process.stderr, is_time)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        raise RuntimeError(f"training ended with {process.returncode} before it was killed")


def _wait_for_line(lines: Iterator[str], is_time: Callable[[str], bool]) -> None:
    for line in lines:
        if is_time(line):
            return
        if re.match(r"train_san: ", line):
            raise RuntimeError(line)
