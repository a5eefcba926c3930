"""The output of `pipeline.py runs list` for local runs: a line per run."""

from collections.abc import Iterable, Mapping, Sequence

from components.experiments.record import Run
from components.process.messages import printable
from components.runner.screen import figure_in_words
from components.runner.state import read_state

# The metrics shown in a line, if a run has them; else its first ones.
_HEADLINES = ("rank1", "mAP", "mINP")
_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def list_lines(runs: Sequence[Run], *, now: float) -> list[str]:
    """The runs as lines of a table, with a header."""
    sizes = sizes_of(runs)
    rows = [("run", "state", "age", "size", "figures")]
    for run in runs:
        age = f"{age_in_words(now - run.record.started)} ago"
        name = printable(" ".join(run.name.split("\n")))
        rows.append((name, run.state, age, size_in_words(sizes[run.name]), headline(run)))
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    return [_aligned(row, widths) for row in rows]


def headline(run: Run) -> str:
    """The main metrics of a run, in words."""
    figures = run.figures()
    shown = [n for n in _HEADLINES if n in figures] or list(figures)[: len(_HEADLINES)]
    return "  ".join(f"{name} {figure_in_words(name, figures[name])}" for name in shown)


def sizes_of(runs: Iterable[Run]) -> dict[str, int]:
    """The bytes of each run's results, by name; shared results count for each run."""
    return {run.name: sum(_files_of(run).values()) for run in runs}


def _files_of(run: Run) -> Mapping[str, int]:
    """The size in bytes of every output file of a run, by path."""
    states = [read_state(run.folder / name) for name in run.record.tasks]
    return {path: size for state in states if state for path, (size, _) in state.files.items()}


def age_in_words(seconds: float) -> str:
    """A duration in its largest unit."""
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def size_in_words(size: int) -> str:
    """A size in a readable unit."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size} B"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
    return "  ".join([*cells, row[-1]]).rstrip()
