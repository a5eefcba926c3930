"""Steps as forks of the test process, which has already imported the slow modules.

A step of the small project takes some milliseconds; a new Python takes a quarter of a second until
it gets there. Tests that stop runs have real processes.
"""

import importlib
import logging
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, NoReturn

from components.command import run
from components.command.code import OWN_PACKAGES, stale_kernels
from components.process.signals import STOP_SIGNALS

DEVNULL, STDOUT, TimeoutExpired = subprocess.DEVNULL, subprocess.STDOUT, subprocess.TimeoutExpired


class Popen:
    """As of `subprocess`, as far as `TaskProcess` uses it, for `python -m components STEP ...`."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: int,
        stdout: BinaryIO,
        stderr: int,
        start_new_session: bool,
        preexec_fn: Callable[[], None],
    ) -> None:
        assert (words[0], *words[1:3]) == (sys.executable, "-m", "components")
        assert (stdin, stderr, start_new_session) == (DEVNULL, STDOUT, True)
        self._status: int | None = None
        waits, begins = os.pipe()
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of threads
            self.pid = os.fork()
        if not self.pid:
            os.setsid()
            os.close(waits)
            os.close(begins)
            preexec_fn()
            _run_step(list(words[3:]), cwd, env, stdout)
        os.close(begins)
        os.read(waits, 1)  # until it has a session of its own
        os.close(waits)

    def poll(self) -> int | None:
        """The exit status, or minus the signal that killed it; None as long as it runs."""
        if self._status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if ended else None
        return self._status

    def wait(self, timeout: float) -> int:
        """The exit status; TimeoutExpired if it takes longer than so many seconds."""
        until = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > until:
                raise TimeoutExpired("a forked step", timeout)
            time.sleep(0.001)
        return status


def _run_step(words: list[str], root: Path, env: Mapping[str, str], log: BinaryIO) -> NoReturn:
    """Do in a fork what `python -m components STEP ...` does in the folder of a project."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor in (1, 2):
        os.dup2(log.fileno(), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    logging.getLogger().handlers.clear()
    warnings.resetwarnings()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(root)
    for package in OWN_PACKAGES:  # what the project has and this checkout has not
        importlib.import_module(package).__path__.insert(0, str(root / package))
    run.OWN_CODE = tuple(root / package for package in OWN_PACKAGES)
    run.stale_kernels = partial(stale_kernels, root=root)
    sys.argv = ["components", *words]
    status = 1
    try:
        runpy.run_path(str(root / "components" / "__main__.py"), run_name="__main__")
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
