"""The processes of a run on this machine, and what a terminal shows of them."""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from components.command.code import ROOT, code_fingerprint
from components.process.compute_threads import SPIN_VARIABLES, thread_limits
from components.process.messages import WARNING_MARK, printable
from components.process.signals import die_with_parent
from components.runner.ir import Task
from san_core.checked_json import read_json_file

SECONDS_BETWEEN_LOOKS = 0.05
SECONDS_TO_STOP = 10.0
LINES_OF_A_FAILURE = 5
MOST_WARNINGS = 8  # of a step that a terminal shows
_WARNING_LINE = re.compile(rf"\d\d:\d\d:\d\d {WARNING_MARK}(.+)")
LOG_FILE = "log.txt"  # in the folder of a task
CONTAINER_FILE = "container"  # likewise, as long as it has one: the id of its container


class TaskProcess:
    """One task under way."""

    def __init__(
        self, task: Task, words: Sequence[str], log: Path, env: Mapping[str, str], root: Path
    ) -> None:
        self.task = task
        self.log = log
        self.status: int | None = None
        self.bytes_shown = 0  # bytes of the log that the terminal has had
        self._started = time.monotonic()
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                words,
                cwd=root,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group of its own: Ctrl-C is ours to pass on
                preexec_fn=functools.partial(die_with_parent, os.getpid()),
            )

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self._started

    def has_ended(self) -> bool:
        """Whether it has; then `status` is its exit status, or minus the signal that killed it."""
        self.status = self._process.poll()
        return self.status is not None

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the task and all it has started."""
        self._send_signal(signal.SIGTERM)

    def clean_up(self) -> None:
        """Kill the task, if it is still there, and what it has started and left behind."""
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
        """Why the task failed, as far as its log tells, and where to read on."""
        said = failure_excerpt(self.task.step, log_lines(self.log))
        return (
            f"{self.task.name} {self.how_it_ended()}{said and ':'}{said}\n  log: {self.log}\n"
            "  what is done is kept; the next run goes on from there"
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
        """What stands for the code that a task runs: part of what decides its result.

        Raises:
            ValueError: it runs something else than a step of ours.
        """
        if task.words[:3] != ("python", "-m", "components") or len(task.words) < 4:
            raise ValueError(
                f"task {task.name} runs {' '.join(task.words[:4])}; here only "
                "`python -m components STEP` can be run"
            )
        return code_fingerprint(f"components.{task.words[3]}", self.root)

    def launch(
        self, task: Task, words: Sequence[str], folder: Path, *, threads: int
    ) -> TaskProcess:
        """Start a task, which may take so many threads; its log goes into its folder."""
        env = {**SPIN_VARIABLES, **os.environ, **thread_limits(threads), "PYTHONUNBUFFERED": "1"}
        words = [sys.executable, *words[1:]]
        return TaskProcess(task, words, folder / LOG_FILE, env | dict(task.env), self.root)


def log_lines(log: Path) -> list[str]:
    """What a task has said; nothing if it never began."""
    return log.read_text("utf-8", "replace").splitlines() if log.is_file() else []


def failure_excerpt(step: str, lines: Iterable[str]) -> str:
    """Why a step failed, of what it has said: the line that tells it, or the last lines."""
    said = [line for line in lines if line.strip()]
    own = f"{step}: "
    if said and said[-1].startswith(own):
        return " " + said[-1].removeprefix(own)
    return "".join(f"\n  | {line}" for line in said[-LINES_OF_A_FAILURE:])


class Screen:
    """What the person sees: a line for each finished task, and on a terminal what goes on now."""

    def __init__(self, stream: TextIO, *, verbose: bool) -> None:
        self.stream = stream
        self.verbose = verbose
        self.status = ""

    def write_line(self, text: str) -> None:
        """Write a line that stays."""
        self._write_status("")
        self.stream.write(printable(text) + "\n")
        self.stream.flush()

    def write_metrics_line(self, metrics: Path) -> None:
        """Write the figures of a file of metrics as a person reads them."""
        figures = read_json_file(metrics, dict[str, float | str | bool]).items()
        shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures)
        self.write_line("  " + "  ".join(shown))

    def write_warnings(self, lines: Iterable[str], log: Path) -> None:
        """Write what a step has warned of, each once, under its line; `lines` are its log's."""
        found = list(dict.fromkeys(m[1] for line in lines if (m := _WARNING_LINE.fullmatch(line))))
        for told in found[:MOST_WARNINGS]:
            self.write_line(f"  {WARNING_MARK}{told}")
        if len(found) > MOST_WARNINGS:
            self.write_line(f"  and {len(found) - MOST_WARNINGS} more warnings in {log}")

    def show_logs(self, running: list[TaskProcess]) -> None:
        """Show the newest log line, or all of them if the person wants them."""
        for process in running:
            with process.log.open("rb") as file:
                file.seek(process.bytes_shown)
                whole, newline, _ = file.read().rpartition(b"\n")
            process.bytes_shown += len(whole + newline)
            lines = whole.decode("utf-8", "replace").splitlines()
            if self.verbose:
                for line in lines:
                    self.write_line(f"{process.task.name} | {line}")
            elif lines:
                self.show_status(f"{process.task.name} ... {lines[-1]}")

    def show_status(self, text: str) -> None:
        """Show what goes on now, on a terminal."""
        if self.stream.isatty():
            self._write_status(text)

    def _write_status(self, text: str) -> None:
        """Replace the line that the next one will replace; it is cut to the terminal's width."""
        if text or self.status:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write("\r\x1b[K" + printable(text)[:width])
            self.stream.flush()
        self.status = text


def stop_processes(running: list[TaskProcess]) -> None:
    """End processes that are still there, with all they have started; gently at first."""
    for process in running:
        process.ask_to_stop()
    deadline = time.monotonic() + SECONDS_TO_STOP
    while time.monotonic() < deadline and not all(one.has_ended() for one in running):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    for process in running:
        process.clean_up()
