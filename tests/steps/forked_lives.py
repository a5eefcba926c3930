"""Runs of a command, forked from one process that has imported the slow modules.

A life is a process of its own, which can be killed at any moment.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

# What generating textures takes seconds to import.
import san_core.images.texture_set
import san_core.inference.textures
import san_core.inference.torch_network
import san_core.synthesis.mannequin  # noqa: F401
from components.__main__ import main

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload([__name__])


class Life:
    """A running command of components, with its output in a file."""

    def __init__(self, command: Sequence[str], said: Path) -> None:
        self._said = said
        said.touch()
        self._process = _FORKING.Process(
            target=_live, args=(list(command), said, dict(os.environ)), daemon=True
        )
        self._process.start()

    def wait_until_it_says(self, words: str) -> bool:
        """Wait for some words; whether it has said them before it ended."""
        while words not in (said := self._said.read_text()) and self._process.is_alive():
            time.sleep(0.005)
        return words in said

    def kill(self) -> bool:
        """Kill it with all it has started; whether it had not ended yet."""
        assert self._process.pid is not None
        if self._process.is_alive():
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # it has no group yet in its first moment
        self._process.join()
        return self._process.exitcode == -signal.SIGKILL

    def end(self, *, seconds: float) -> tuple[int | None, str]:
        """Wait until it ends; return its exit status, None after the timeout, and its output."""
        self._process.join(seconds)
        return self._process.exitcode, self._said.read_text()


def _live(command: Sequence[str], said: Path, environment: dict[str, str]) -> None:
    os.setsid()
    file = os.open(said, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.environ.clear()
    os.environ.update(environment)
    raise SystemExit(main(command))
