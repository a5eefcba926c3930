"""The processes of a run on this machine."""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from components.command.code import ROOT, code_fingerprint
from components.process.compute_threads import SPIN_VARIABLES, thread_limits
from components.process.progress import WATCHED_VARIABLE
from components.process.signals import die_with_parent
from components.runner.ir import Task

SECONDS_BETWEEN_LOOKS = 0.05
SECONDS_TO_STOP = 10.0
LINES_OF_A_FAILURE = 5
# The screen shows the newest line of a log.
WATCHED = {"PYTHONUNBUFFERED": "1", WATCHED_VARIABLE: "1"}
LOG_FILE = "log.txt"  # in the folder of a task
CONTAINER_FILE = "container"  # in it too, while its container exists: the container's id


class TaskProcess:
    """One running task."""

    def __init__(
        self, task: Task, words: Sequence[str], log: Path, env: Mapping[str, str], root: Path
    ) -> None:
        self.task = task
        self.log = log
        self.status: int | None = None
        self.newest_line = ""  # of the part of the log that was read
        self._bytes_read = 0
        self._started = time.monotonic()
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                words,
                cwd=root,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its own process group: this process passes Ctrl-C on
                preexec_fn=functools.partial(die_with_parent, os.getpid()),
            )

    @property
    def seconds(self) -> float:
        """The seconds since its start."""
        return time.monotonic() - self._started

    def new_log_lines(self) -> list[str]:
        """The complete lines added to its log since the last call."""
        with self.log.open("rb") as file:
            file.seek(self._bytes_read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._bytes_read += len(whole + newline)
        lines = whole.decode("utf-8", "replace").splitlines()
        self.newest_line = lines[-1] if lines else self.newest_line
        return lines

    def has_ended(self) -> bool:
        """Whether it has ended; then `status` is its exit status, or minus the killing signal."""
        self.status = self._process.poll()
        return self.status is not None

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the task and its child processes."""
        self._send_signal(signal.SIGTERM)

    def clean_up(self) -> None:
        """Kill the task, if it still runs, and its remaining child processes."""
        self._send_signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_STOP)

    def how_it_ended(self) -> str:
        """How the task ended, after its name."""
        assert self.status is not None
        if self.status < 0:
            return f"was killed by {signal.Signals(-self.status).name}"
        return f"failed with exit code {self.status}"

    def failure_message(self) -> str:
        """The reason why the task failed, from its log, and the path of the log."""
        said = failure_excerpt(self.task.step, log_lines(self.log))
        return (
            f"{self.task.name} {self.how_it_ended()}{said and ':'}{said}\n  log: {self.log}\n"
            "  finished work is kept; the next run continues from there"
        )

    def _send_signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


class ProcessLauncher:
    """Runs each task as a process of this Python, with the code of this checkout.

    root: the folder that holds components/ and san_core/.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root

    def prepare(self, _plan: Iterable[Task]) -> None:
        """Nothing is needed."""

    def code_of(self, task: Task) -> str:
        """The digest of the code that a task runs, a part of its key.

        Raises:
            ValueError: it runs something else than a step of this project.
        """
        if task.words[:3] != ("python", "-m", "components") or len(task.words) < 4:
            raise ValueError(
                f"task {task.name} runs {' '.join(task.words[:4])}; only "
                "`python -m components STEP` is supported here"
            )
        return code_fingerprint(f"components.{task.words[3]}", self.root)

    def launch(
        self, task: Task, words: Sequence[str], folder: Path, *, threads: int
    ) -> TaskProcess:
        """Start a task with this number of threads; its log goes into its folder."""
        env = {**SPIN_VARIABLES, **os.environ, **thread_limits(threads), **WATCHED}
        words = [sys.executable, *words[1:]]
        return TaskProcess(task, words, folder / LOG_FILE, env | dict(task.env), self.root)


def log_lines(log: Path) -> list[str]:
    """The log of a task; empty if it did not start."""
    return log.read_text("utf-8", "replace").splitlines() if log.is_file() else []


def failure_excerpt(step: str, lines: Iterable[str]) -> str:
    """The reason of a failure from a log: the line that states it, or the last lines."""
    said = [line for line in lines if line.strip()]
    own = f"{step}: "
    if said and said[-1].startswith(own):
        return " " + said[-1].removeprefix(own)
    return "".join(f"\n  | {line}" for line in said[-LINES_OF_A_FAILURE:])


def stop_processes(running: list[TaskProcess]) -> None:
    """End running processes with their child processes: first SIGTERM, then SIGKILL."""
    for process in running:
        process.ask_to_stop()
    deadline = time.monotonic() + SECONDS_TO_STOP
    while time.monotonic() < deadline and not all(one.has_ended() for one in running):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    for process in running:
        process.clean_up()
