"""The evidence as a picture: what arms gain in equal CPU time, and how that holds elsewhere."""

import hashlib
import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Page

from tests.benchmarks.evidence import figures, plan
from tests.benchmarks.evidence.arms import ARMS, BASELINE
from tests.benchmarks.evidence.figures import mean_seconds, rows_of
from tests.benchmarks.evidence.paper import table
from tests.benchmarks.evidence.plan import EQUAL_EPOCHS, EQUAL_TIME, HARD
from tests.benchmarks.evidence.rows import RowsFile, mean_score

TIMED_ARMS = ("full", "baseline_shipped", "full_shipped", "baseline_pg", "baseline_identity")
COLOURS = {"C0": "texture losses", "C2": "from a generator, no texture losses", "C7": "control"}
PLOT_FILE = figures.RESULTS / "evidence.png"


def results_plot(kept: RowsFile, large: RowsFile | None = None) -> bytes:
    """A PNG: gains of the arms at equal CPU time, and mAP over CPU time. It holds its table's hash.

    The hash tells a plot of other rows, since drawings differ from one matplotlib to another.
    """
    page = Page(figsize=(14, 5.5), dpi=100, layout="constrained")
    FigureCanvasAgg(page)
    left, right = page.subplots(1, 2)
    _draw_gains(left, kept)
    _draw_time(right, kept)
    file = io.BytesIO()
    told = {"Software": None, "Description": table_hash(kept, large)}
    page.savefig(file, format="png", metadata=told)
    return file.getvalue()


def table_hash(kept: RowsFile, large: RowsFile | None = None) -> str:
    """What tells which rows a plot was made from."""
    return hashlib.sha256(table.results_table(kept, large).encode()).hexdigest()


def _draw_gains(axes: Axes, kept: RowsFile) -> None:
    arms = [name for name in ARMS if name != BASELINE and figures.gain(kept, name)]
    for place, name in enumerate(arms):
        found = figures.gain(kept, name)
        assert found is not None
        axes.errorbar(found.mean, place, xerr=found.half, fmt="o", color=_colour(name), capsize=3)
    for colour, words in COLOURS.items():
        axes.plot([], [], "o", color=colour, label=words)
    axes.set_yticks(
        range(len(arms)), [f"{ARMS[name].words}{table.mark(ARMS[name])}" for name in arms]
    )
    axes.invert_yaxis()
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_xlabel(f"gain at {HARD} in equal CPU time, mAP points, 95 % interval")
    _draw_legend(axes)


def _colour(name: str) -> str:
    """The colour of an arm by its kind."""
    if not ARMS[name].is_candidate:
        return "C7"
    return "C0" if ARMS[name].has_losses else "C2"


def _draw_time(axes: Axes, kept: RowsFile) -> None:
    """The baseline over its CPU time; arms at theirs, and at that with their start's on top."""
    budgets = (EQUAL_EPOCHS, EQUAL_TIME, *(plan.COUNTED.format(share) for share in plan.SHARES))
    groups = [rows_of(kept, BASELINE, budget) for budget in budgets]
    seeds = max(map(len, groups))
    groups = [rows for rows in groups if rows and len(rows) == seeds]
    points = sorted((mean_seconds(rows), 100 * mean_score(rows)) for rows in groups)
    if points:
        axes.plot(*zip(*points, strict=True), "o-", color="black", label=ARMS[BASELINE].words)
    for number, name in enumerate(TIMED_ARMS):
        rows = rows_of(kept, name)
        if not rows:
            continue
        seconds, score = [mean_seconds(rows)], 100 * mean_score(rows)
        if ARMS[name].start in figures.COUNTED_STARTS:
            taken = rows[-1]["generator"]["cpu_seconds"]
            seconds += [seconds[0] + taken / share for share in reversed(plan.SHARES)]
        words = f"{ARMS[name].words}{table.mark(ARMS[name])}"
        axes.plot(seconds, [score] * len(seconds), "o:", color=f"C{number}", label=words)
    axes.set_xlabel(f"CPU seconds at {HARD}; dotted: with 1/4 or all of the start's (*)")
    axes.set_ylabel("mAP, %")
    if axes.lines:
        _draw_legend(axes, columns=1)


def _draw_legend(axes: Axes, *, columns: int = 2) -> None:
    """Say above a drawing what its marks are, where they hide nothing."""
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "frameon": False}
    axes.legend(ncols=columns, fontsize="small", **place)
