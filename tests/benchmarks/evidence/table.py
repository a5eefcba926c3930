"""The evidence on paper: a table for the README and a plot, both made from the rows."""

import hashlib
import io
import itertools
import math
import statistics
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Page
from matplotlib.ticker import LogLocator

from components.storage.outputs import write_file
from tests.benchmarks.evidence import figures
from tests.benchmarks.evidence.arms import ARMS
from tests.benchmarks.evidence.rows import (
    Difference,
    Row,
    RowsFile,
    mean_difference,
    paired_differences,
)

TABLE_FILE = figures.RESULTS / "evidence.md"
PLOT_FILE = figures.RESULTS / "evidence.png"
# What somebody with a budget may choose from, and by how much measured CPU times stray
CHOOSABLE_ARMS = ("rec", "full", "light", "baseline_pg", "light_pg", "rec_pg", "full_pg")
TIME_SLACK = 1.1
_ARMS_ON_TOP = (("rec_pg", "L_Rec"), ("full_pg", "L_Rec and L_TR"))
SUBSETS = {"front_to_back": "front to back", "occluded": "occluded", "cross_pose": "other pose"}


def write_table_and_plot(kept: RowsFile) -> None:
    """Write table and plot."""
    write_file(TABLE_FILE, results_table(kept) + "\n")
    write_file(PLOT_FILE, results_plot(kept))


def results_table(kept: RowsFile) -> str:
    """Markdown: equal epochs for each difficulty, then equal CPU time and longer training."""
    found = dict.fromkeys(row["difficulty"] for row in kept.rows)
    parts = ["\n".join(_equal_epochs_table(kept, difficulty)) for difficulty in found]
    parts.append("\n".join(_longer_table(kept)))
    parts.append("\n".join(f"- {sentence}" for sentence in _sentences(kept)))
    return "\n\n".join(part for part in parts if part)


def _equal_epochs_table(kept: RowsFile, difficulty: str) -> Iterator[str]:
    budget = figures.EQUAL_EPOCHS
    rows = {arm: kept.find(arm=arm, difficulty=difficulty, budget=budget) for arm in ARMS}
    epochs = next(each[0]["epochs"] for each in rows.values() if each)
    yield (
        f"| `{difficulty}`, {epochs} epochs | seeds | mAP | rank-1 | gain in mAP, 95 % interval |"
        f" {' | '.join(f'gain, {words}' for words in SUBSETS.values())} | CPU |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for arm, own in rows.items():
        if not own:
            continue
        gains = [
            "–" if arm == "baseline" else _points(figures.gain(kept, difficulty, arm, score=score))
            for score in ("mAP", *SUBSETS)
        ]
        yield (
            f"| {ARMS[arm].words} | {len(own)} | {_mean(own, 'mAP'):.1%} | "
            f"{_mean(own, 'rank1'):.1%} | {' | '.join(gains)} | {_mean(own, 'cpu_seconds'):.0f} s |"
        )


def _longer_table(kept: RowsFile) -> Iterator[str]:
    rows = list(_longer_rows(kept))
    if rows:
        yield "| compared | baseline | SAN | gain in mAP, 95 % interval |"
        yield "|---|---|---|---|"
        yield from rows


def _longer_rows(kept: RowsFile) -> Iterator[str]:
    difficulties = dict.fromkeys(row["difficulty"] for row in kept.rows)
    for difficulty, arms in itertools.product(difficulties, figures.ARMS_BESIDE.values()):
        for arm in arms:
            own = kept.find(arm=arm, difficulty=difficulty, budget=figures.EQUAL_EPOCHS)
            words = f"`{difficulty}`, equal CPU time: {ARMS[arm].words}"
            yield from _beside_row(words, figures.matched_baseline(kept, difficulty, arm), own)
    for doubling in figures.doublings(kept, "hard"):
        budget = figures.budget_of_doubling(doubling)
        rows = (kept.find(arm=a, difficulty="hard", budget=budget) for a in ("baseline", "full"))
        yield from _beside_row(f"`hard`, {budget}: {ARMS['full'].words}", *rows)


def _beside_row(words: str, baseline: Sequence[Row], own: Sequence[Row]) -> Iterator[str]:
    if gains := paired_differences(own, baseline):
        beside = map(_map_and_time, figures.rows_of_common_seeds(baseline, own))
        yield f"| {words} | {' | '.join(beside)} | {_points(mean_difference(gains))} |"


def _map_and_time(rows: Sequence[Row]) -> str:
    return f"{_mean(rows, 'mAP'):.1%} ({_mean(rows, 'cpu_seconds'):.0f} s)"


def _sentences(kept: RowsFile) -> Iterator[str]:
    made_by = next((row["generator"] for row in kept.rows if row["generator"]), None)
    if made_by:
        above = made_by["psnr"] - made_by["psnr_of_mean"]
        yield (
            f"SAN-PG was trained once, in {made_by['cpu_seconds']:.0f} CPU seconds. The table "
            f"counts neither that time nor the time to generate textures. On people it has not "
            f"seen, its textures reach {above:.1f} dB PSNR more than the mean texture."
        )
    yield from _oracle_sentence(kept)
    start = figures.gain(kept, "hard", "baseline_pg")
    if start and start.half is not None:
        more = {
            words: figures.gain(kept, "hard", arm, over="baseline_pg")
            for arm, words in _ARMS_ON_TOP
        }
        told = ", ".join(f"{words} {_points(gain)}" for words, gain in more.items() if gain)
        yield (
            f"At `hard` and equal epochs, the baseline gains {_points(start)} when it starts as "
            f"SAN-PG's encoder. Texture losses add to that: {told}."
        )
    for arm in figures.ARMS_BESIDE:
        gain = figures.equal_cpu_gain(kept, "hard", arm)
        if gain and gain.half is not None:
            yield (
                f"At `hard`, in the CPU time of *{ARMS[arm].words}*: {_verdict(kept, arm, gain)}. "
                f"{_best_within(kept, arm)}."
            )
    yield from _counted_sentence(kept, made_by["cpu_seconds"] if made_by else 0)
    yield from _convergence_sentence(kept)
    machine = kept.rows[-1]["machine"]
    yield (
        f"Measured on {machine['cores']} cores, {machine['cpu']}, commit "
        f"{', '.join(figures.commits(kept.rows))}, {kept.rows[-1]['date']}."
    )


def _oracle_sentence(kept: RowsFile) -> Iterator[str]:
    found = figures.pseudo_and_true_gains(kept, "hard")
    if found:
        pseudo, true = found
        share = figures.share_of_oracle(kept, "hard")
        of_it = f" ({share:.0%} of that)" if share is not None else ""
        yield (
            f"At `hard`, the full SAN gains {_points(true)} with true textures and "
            f"{_points(pseudo)}{of_it} with those of SAN-PG ({true.pairs} seeds)."
        )


def _verdict(kept: RowsFile, arm: str, gain: Difference) -> str:
    ratio = figures.matched_ratio(kept, "hard", arm)
    assert gain.half is not None
    assert ratio is not None
    other = "a baseline trained for as long"
    if abs(ratio - 1) > TIME_SLACK - 1:
        other += f" (measured: {ratio:.2f} times as much)"
    if gain.mean > gain.half:
        return f"it is better than {other}"
    if gain.mean < -gain.half:
        return f"{other} is better"
    return f"the figures do not separate it from {other}"


def _best_within(kept: RowsFile, given: str) -> str:
    """Of the arms with most seeds, oracle and controls aside, that which gains most in a time."""
    longer = figures.matched_baseline(kept, "hard", given)
    equal = {"difficulty": "hard", "budget": figures.EQUAL_EPOCHS}
    time = max(_mean(rows, "cpu_seconds") for rows in (longer, kept.find(arm=given, **equal)))
    gains = {}
    for arm in CHOOSABLE_ARMS:
        rows = kept.find(arm=arm, **equal)
        if (
            rows
            and _mean(rows, "cpu_seconds") <= TIME_SLACK * time
            and (found := paired_differences(rows, longer))
        ):
            gains[arm] = mean_difference(found)
    most = max(gain.pairs for gain in gains.values())
    best = max((a for a in gains if gains[a].pairs == most), key=lambda arm: gains[arm].mean)
    if gains[best].mean <= 0:
        return "No arm of at most that time gains over that baseline"
    return (
        f"With a SAN-PG at hand, *{ARMS[best].words}* gains most over that baseline among the arms "
        f"of at most that time: {_points(gains[best])}"
    )


def _counted_sentence(kept: RowsFile, seconds: float) -> Iterator[str]:
    """An arm that starts as SAN-PG, whose time is counted, beside the baseline nearest in time."""
    own = kept.find(arm="baseline_pg", difficulty="hard", budget=figures.EQUAL_EPOCHS)
    longer = [
        kept.find(arm="baseline", difficulty="hard", budget=figures.budget_of_doubling(doubling))
        for doubling in figures.doublings(kept, "hard")
    ]
    if own and longer:
        time = _mean(own, "cpu_seconds") + seconds
        nearest = min(longer, key=lambda rows: abs(math.log(_mean(rows, "cpu_seconds") / time)))
        yield (
            f"With the time of SAN-PG counted, *{ARMS['baseline_pg'].words}* takes {time:.0f} CPU "
            f"seconds. Its gain over a baseline from random weights, trained for "
            f"{_mean(nearest, 'cpu_seconds'):.0f} CPU seconds, is "
            f"{_points(mean_difference(paired_differences(own, nearest)))}."
        )


def _convergence_sentence(kept: RowsFile) -> Iterator[str]:
    """Whether the longest training was long enough for the baseline."""
    done = figures.doublings(kept, "hard")
    if done:
        is_enough = figures.has_converged(kept, "hard", done[-1])
        yield (
            f"At `hard`, the last doubling, to {figures.budget_of_doubling(done[-1])}, still gains "
            f"the baseline {_points(figures.doubling_gain(kept, 'hard', done[-1]))}. It has "
            f"{'' if is_enough else 'not '}converged: the bar is {figures.CONVERGED_GAIN} points."
        )


def _points(gain: Difference | None) -> str:
    if gain is None:
        return "–"
    mean = f"{round(gain.mean, 1) + 0.0:+}"  # without -0.0
    return mean if gain.half is None else f"{mean} ± {gain.half:.1f}"


def _mean(rows: Sequence[Row], name: str) -> float:
    return statistics.mean(row[name] for row in rows)


def results_plot(kept: RowsFile) -> bytes:
    """A PNG: gains of the arms at equal epochs, and mAP over CPU time. It holds its table's hash.

    The hash tells a plot of other rows, since drawings differ from one matplotlib to another.
    """
    page = Page(figsize=(14, 5), dpi=100, layout="constrained")
    FigureCanvasAgg(page)
    left, right = page.subplots(1, 2)
    _draw_gains(left, kept)
    _draw_time(right, kept)
    file = io.BytesIO()
    page.savefig(file, format="png", metadata={"Software": None, "Description": table_hash(kept)})
    return file.getvalue()


def table_hash(kept: RowsFile) -> str:
    """What tells which rows a plot was made from."""
    return hashlib.sha256(results_table(kept).encode()).hexdigest()


def _draw_gains(axes: Axes, kept: RowsFile) -> None:
    difficulties = list(dict.fromkeys(row["difficulty"] for row in kept.rows))
    arms = [arm for arm in ARMS if arm != "baseline"]
    for shift, difficulty in enumerate(difficulties):
        gains = [figures.gain(kept, difficulty, arm) for arm in arms]
        axes.plot([], [], "o", color=f"C{shift}", label=difficulty)
        for place, gain in enumerate(gains):
            if gain is None:
                continue
            axes.errorbar(
                gain.mean,
                place + 0.18 * shift,
                xerr=gain.half,
                fmt="o",
                color=f"C{shift}",
                capsize=3,
            )
    axes.set_yticks(range(len(arms)), [ARMS[arm].words for arm in arms])
    axes.invert_yaxis()
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_xlabel("gain at equal epochs, mAP points, 95 % interval")
    _draw_legend(axes)


def _draw_time(axes: Axes, kept: RowsFile) -> None:
    for place, arm in enumerate(("baseline", *CHOOSABLE_ARMS)):
        rows = kept.find(arm=arm, difficulty="hard")
        points = sorted(
            (_mean(same, "cpu_seconds"), 100 * _mean(same, "mAP"))
            for budget in dict.fromkeys(row["budget"] for row in rows)
            if (same := [row for row in rows if row["budget"] == budget])
        )
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=f"C{place}", label=ARMS[arm].words)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(2, subs=(1, 1.5)))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("CPU seconds of training at hard, SAN-PG's aside (3 to 5 seeds)")
    axes.set_ylabel("mAP, %")
    if axes.lines:
        _draw_legend(axes)


def _draw_legend(axes: Axes) -> None:
    """Say above a drawing what its marks are, where they hide nothing."""
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize="small"
    )
