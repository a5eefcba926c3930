"""The screen output of a run: a line for each finished task, and the present progress.

On a terminal, progress is one line that is replaced; elsewhere it is a line per minute.
"""

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from components.process.messages import WARNING_MARK, printable
from components.runner.processes import TaskProcess
from san_core.checked_json import read_json_file
from san_core.evaluation.pages.figures import is_share

MOST_WARNINGS = 8  # of a step, on a terminal
SECONDS_BETWEEN_LINES = 60.0  # without a terminal
LINE_WIDTH = 200  # of those lines
_LOG_TIME = re.compile(r"\d\d:\d\d:\d\d ")
_WARNING_LINE = re.compile(rf"{_LOG_TIME.pattern}{WARNING_MARK}(.+)")
# The fields of a log line that even a narrow terminal shows: progress, rate, remaining time.
_NEEDED = re.compile(r"epoch \S+|\d+/\d+ .*|.*\d( \w+)?/s|eta .+")


class Screen:
    """Writes the output of a run.

    Args:
        stream: the output stream.
        verbose: whether to show all log lines of the steps.
        clock: seconds since any start.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream = stream or sys.stdout
        self.verbose = verbose
        self.status = ""
        self.steps: dict[str, str] = {}
        self._clock = clock
        self._written_at = clock()

    def number_steps(self, steps: Iterable[str]) -> None:
        """Number the steps, as "step 2/7"."""
        names = list(dict.fromkeys(steps))
        self.steps = {name: f"step {n}/{len(names)} " for n, name in enumerate(names, 1)}

    def write_line(self, text: str) -> None:
        """Write a line that stays."""
        self._write_status("")
        self.stream.write(printable(text) + "\n")
        self.stream.flush()
        self._written_at = self._clock()

    def write_metrics_line(self, metrics: Path) -> None:
        """Write the metrics of a file in readable form."""
        figures = read_json_file(metrics, dict[str, float | str | bool])
        self.write_line("  " + figures_in_words(figures))

    def write_warnings(self, lines: Iterable[str], log: Path) -> None:
        """Write the warnings of a step, each once, under its line; `lines` is its log."""
        found = list(dict.fromkeys(m[1] for line in lines if (m := _WARNING_LINE.fullmatch(line))))
        for told in found[:MOST_WARNINGS]:
            self.write_line(f"  {WARNING_MARK}{told}")
        if len(found) > MOST_WARNINGS:
            self.write_line(f"  and {len(found) - MOST_WARNINGS} more warnings in {log}")

    def show_logs(self, running: Sequence[TaskProcess]) -> None:
        """Show the newest log line, or all of them if `verbose`."""
        for process in running:
            lines = process.new_log_lines()
            if self.verbose:
                for line in lines:
                    self.write_line(f"{process.task.name} | {line}")
            elif lines or not self.stream.isatty():
                said = process.newest_line or "running"
                self.show_progress(process.task.step, process.task.name, said)

    def show_progress(self, step: str, name: str, line: str) -> None:
        """Show the present progress: at once on a terminal, else once a minute."""
        fields = [f"{self.steps.get(step, '')}{name}", *_LOG_TIME.sub("", line, 1).split("  ")]
        if self.stream.isatty():
            self._write_status(fit_fields(fields, shutil.get_terminal_size().columns - 1))
        elif self._clock() - self._written_at >= SECONDS_BETWEEN_LINES:
            self.write_line(fit_fields(fields, LINE_WIDTH))

    def _write_status(self, text: str) -> None:
        """Replace the line that the next one will replace."""
        if text or self.status:
            self.stream.write("\r\x1b[K" + printable(text))
            self.stream.flush()
        self.status = text


def fit_fields(fields: Sequence[str], width: int) -> str:
    """Fields in one line of a width: the first and as many as fit, progress before others."""
    kept = list(range(len(fields)))
    droppable = [n for n in kept[1:] if not _NEEDED.fullmatch(fields[n])]
    while droppable and len("  ".join(fields[n] for n in kept)) > width:
        kept.remove(droppable.pop())
    return "  ".join(fields[n] for n in kept)[:width]


def figures_in_words(figures: Mapping[str, float | str | bool]) -> str:
    """Metrics in one line, with shares in per cent, as on logs and pages."""
    return "  ".join(f"{name} {figure_in_words(name, value)}" for name, value in figures.items())


def figure_in_words(name: str, value: float | str | bool) -> str:
    """One metric: a share in per cent, any other number with four digits."""
    if isinstance(value, bool | str) or not isinstance(value, float):
        return str(value)
    return f"{value:.1%}" if is_share(name) else f"{value:.4g}"
