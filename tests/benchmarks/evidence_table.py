"""The evidence on paper: a table for the README and a plot, both made from the rows."""

import hashlib
import io
import itertools
import statistics
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Page
from matplotlib.ticker import LogLocator

from components.outputs import write_file
from tests.benchmarks import evidence
from tests.benchmarks.evidence_arms import ARMS
from tests.benchmarks.evidence_rows import Difference, Kept, Row

TABLE = evidence.RESULTS / "evidence.md"
PLOT = evidence.RESULTS / "evidence.png"
# What somebody with a budget may choose from, and by how much measured CPU times stray
CHOSEN_FROM, SLACK = ("rec", "full", "light", "baseline_pg", "light_pg", "full_pg"), 1.1
SUBSETS = {"front_to_back": "front to back", "occluded": "occluded", "cross_pose": "other pose"}


def write(kept: Kept) -> None:
    """Write table and plot."""
    write_file(TABLE, table(kept) + "\n")
    write_file(PLOT, plot(kept))


def table(kept: Kept) -> str:
    """Markdown: equal epochs for each difficulty, then equal CPU time and longer training."""
    found = dict.fromkeys(row["difficulty"] for row in kept.rows)
    parts = ["\n".join(_equal_epochs(kept, difficulty)) for difficulty in found]
    parts.append("\n".join(_longer(kept)))
    parts.append(" ".join(_sentences(kept)))
    return "\n\n".join(part for part in parts if part)


def _equal_epochs(kept: Kept, difficulty: str) -> Iterator[str]:
    budget = evidence.EQUAL_EPOCHS
    rows = {arm: kept.find(arm=arm, difficulty=difficulty, budget=budget) for arm in ARMS}
    epochs = next(each[0]["epochs"] for each in rows.values() if each)
    yield (
        f"| `{difficulty}`, {epochs} epochs | seeds | mAP | rank-1 | gain in mAP, 95 % interval |"
        f" {' | '.join(SUBSETS.values())} | CPU |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for arm, own in rows.items():
        if not own:
            continue
        gains = [
            "–" if arm == "baseline" else _points(evidence.gain(kept, difficulty, arm, score=score))
            for score in ("mAP", *SUBSETS)
        ]
        gains[1:] = [gain.partition(" ")[0] for gain in gains[1:]]
        yield (
            f"| {ARMS[arm].words} | {len(own)} | {_mean(own, 'mAP'):.1%} | "
            f"{_mean(own, 'rank1'):.1%} | {' | '.join(gains)} | {_mean(own, 'cpu_seconds'):.0f} s |"
        )


def _longer(kept: Kept) -> Iterator[str]:
    rows = list(_longer_rows(kept))
    if rows:
        yield "| beside each other | baseline | SAN | gain in mAP, 95 % interval |"
        yield "|---|---|---|---|"
        yield from rows


def _longer_rows(kept: Kept) -> Iterator[str]:
    difficulties = dict.fromkeys(row["difficulty"] for row in kept.rows)
    for difficulty, (given, arms) in itertools.product(difficulties, evidence.BESIDE.items()):
        budget = evidence.MATCHED.format(given)
        for arm in arms:
            gain = evidence.equal_cpu_gain(kept, difficulty, arm)
            own = kept.find(arm=arm, difficulty=difficulty, budget=evidence.EQUAL_EPOCHS)
            words = f"`{difficulty}`, equal CPU time: {ARMS[arm].words}"
            yield from _beside(kept, words, difficulty, budget, own, gain)
    for difficulty, doubling in itertools.product(difficulties, range(1, 10)):
        budget = evidence.times(doubling)
        gain = evidence.gain(kept, difficulty, "full", budget=budget)
        own = kept.find(arm="full", difficulty=difficulty, budget=budget)
        yield from _beside(
            kept, f"`{difficulty}`, {budget}: {ARMS['full'].words}", difficulty, budget, own, gain
        )


def _beside(
    kept: Kept,
    words: str,
    difficulty: str,
    budget: str,
    own: Sequence[Row],
    gain: Difference | None,
) -> Iterator[str]:
    baseline = kept.find(arm="baseline", difficulty=difficulty, budget=budget)
    if gain is not None:
        yield f"| {words} | {_told(baseline)} | {_told(own)} | {_points(gain)} |"


def _told(rows: Sequence[Row]) -> str:
    return f"{_mean(rows, 'mAP'):.1%} ({_mean(rows, 'cpu_seconds'):.0f} s)"


def _sentences(kept: Kept) -> Iterator[str]:
    pseudo = [row for row in kept.rows if row["generator"]]
    if pseudo:
        made = pseudo[-1]["generator"]
        yield (
            f"SAN-PG took {made['cpu_seconds']:.0f} CPU seconds, once, and is not counted above; "
            f"its textures of people it has not seen have {made['psnr'] - made['psnr_of_mean']:.1f}"
            " dB PSNR above the mean texture."
        )
    if share := evidence.share_of_oracle(kept, "hard"):
        yield f"They bring {share:.0%} of what true textures bring at `hard`."
    start = evidence.gain(kept, "hard", "baseline_pg")
    more = evidence.gain(kept, "hard", "full_pg", over="baseline_pg")
    if start and more:
        yield (
            f"At `hard` and equal epochs, starting as SAN-PG's encoder alone brings the baseline "
            f"{_points(start)} points of mAP; L_Rec and L_TR on top of that start {_points(more)}."
        )
    for arm in ("light", "full"):
        gain = evidence.equal_cpu_gain(kept, "hard", arm)
        if gain and gain.low is not None and gain.high is not None:
            yield (
                f"At `hard`, in the CPU time of *{ARMS[arm].words}*, {_verdict(gain)}; most in that"
                f" time reaches {_best_within(kept, arm)}."
            )
    last = kept.rows[-1]
    machine = last["machine"]
    yield (
        f"Measured on {machine['cores']} cores, {machine['cpu']}, commit {last['commit']}, "
        f"{last['date']}."
    )


def _verdict(gain: Difference) -> str:
    assert gain.low is not None
    assert gain.high is not None
    if gain.low > 0:
        return "it is better than a baseline that is given as much"
    if gain.high < 0:
        return "a baseline that is given as much is better"
    return "it and a baseline that is given as much are not told apart"


def _best_within(kept: Kept, given: str) -> str:
    """The arm, oracle and controls aside, that reaches most in the CPU time of one of them."""
    longer = kept.find(arm="baseline", difficulty="hard", budget=evidence.MATCHED.format(given))
    time = _mean(longer, "cpu_seconds")
    found = {"the baseline": _mean(longer, "mAP")}
    for arm in CHOSEN_FROM:
        rows = kept.find(arm=arm, difficulty="hard", budget=evidence.EQUAL_EPOCHS)
        if rows and _mean(rows, "cpu_seconds") <= SLACK * time:
            found[f"*{ARMS[arm].words}*"] = _mean(rows, "mAP")
    best = max(found, key=found.__getitem__)
    return f"{best}, {found[best]:.1%}"


def _points(gain: Difference | None) -> str:
    if gain is None:
        return "–"
    if gain.low is None:
        return f"{gain.mean:+.1f}"
    return f"{gain.mean:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})"


def _mean(rows: Sequence[Row], name: str) -> float:
    return statistics.mean(row[name] for row in rows)


def plot(kept: Kept) -> bytes:
    """A PNG: gains of the arms at equal epochs, and mAP over CPU time. It holds its table's hash.

    The hash tells a plot of other rows, since drawings differ from one matplotlib to another.
    """
    page = Page(figsize=(14, 5), dpi=100, layout="constrained")
    FigureCanvasAgg(page)
    left, right = page.subplots(1, 2)
    _draw_gains(left, kept)
    _draw_time(right, kept)
    file = io.BytesIO()
    page.savefig(file, format="png", metadata={"Software": None, "Description": stamp(kept)})
    return file.getvalue()


def stamp(kept: Kept) -> str:
    """What tells which rows a plot was made from."""
    return hashlib.sha256(table(kept).encode()).hexdigest()


def _draw_gains(axes: Axes, kept: Kept) -> None:
    difficulties = list(dict.fromkeys(row["difficulty"] for row in kept.rows))
    arms = [arm for arm in ARMS if arm != "baseline"]
    for shift, difficulty in enumerate(difficulties):
        gains = [evidence.gain(kept, difficulty, arm) for arm in arms]
        axes.plot([], [], "o", color=f"C{shift}", label=difficulty)
        for place, gain in enumerate(gains):
            if gain is None:
                continue
            spread = 0.0 if gain.high is None else gain.high - gain.mean
            axes.errorbar(
                gain.mean,
                place + 0.18 * shift,
                xerr=spread,
                fmt="o",
                color=f"C{shift}",
                capsize=3,
            )
    axes.set_yticks(range(len(arms)), [ARMS[arm].words for arm in arms])
    axes.invert_yaxis()
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_xlabel("gain at equal epochs, mAP points")
    _name(axes)


def _draw_time(axes: Axes, kept: Kept) -> None:
    for place, arm in enumerate(("baseline", *CHOSEN_FROM)):
        rows = kept.find(arm=arm, difficulty="hard")
        points = sorted(
            (_mean(same, "cpu_seconds"), 100 * _mean(same, "mAP"))
            for budget in dict.fromkeys(row["budget"] for row in rows)
            if (same := [row for row in rows if row["budget"] == budget])
        )
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=f"C{place}", label=ARMS[arm].words)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(2, subs=(1, 1.25, 1.5)))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("CPU seconds of training (hard)")
    axes.set_ylabel("mAP, %")
    if axes.lines:
        _name(axes)


def _name(axes: Axes) -> None:
    """Say above a drawing what its marks are, where they hide nothing."""
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize="small"
    )
