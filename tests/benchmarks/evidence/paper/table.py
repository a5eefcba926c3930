"""The evidence on paper: tables for the README, and what they come to in words."""

import statistics
from collections.abc import Iterator, Sequence

from tests.benchmarks.evidence import figures, plan
from tests.benchmarks.evidence.arms import ARMS, BASELINE, LARGE_ARMS, Arm
from tests.benchmarks.evidence.data import ELSEWHERE
from tests.benchmarks.evidence.figures import mean_seconds, rows_of
from tests.benchmarks.evidence.plan import EQUAL_EPOCHS, HARD, NORMAL
from tests.benchmarks.evidence.rows import Difference, Row, RowsFile, mean_score
from tests.benchmarks.evidence.starts import OWN, SHIPPED

TABLE_FILE = figures.RESULTS / "evidence.md"
SUBSETS = {"front_to_back": "front to back", "occluded": "occluded", "cross_pose": "other pose"}
GAP_COLUMNS = {"test": f"`{NORMAL}`", HARD: f"`{HARD}`", ELSEWHERE: "never seen"}
TIME_SLACK = 0.1  # by how much measured CPU times may stray from those that were meant
UNMEASURED = "(not measured yet: `make reproduce`)"


def results_table(kept: RowsFile, large: RowsFile | None = None) -> str:
    """Markdown: a table for each question, then what they come to in words."""
    tables = [
        _arms_table(kept, ARMS),
        _counted_table(kept),
        _gap_table(kept),
        _equal_epochs_table(kept),
        _long_table(kept),
        *([_arms_table(large, LARGE_ARMS, "ResNet-18, 128x64: ")] if large else []),
        (f"- {sentence}" for sentence in sentences(kept)),
    ]
    parts = ["\n".join(lines) for lines in tables]
    return "\n\n".join(part for part in parts if part) or UNMEASURED


def _arms_table(kept: RowsFile, arms: dict[str, Arm], words: str = "") -> Iterator[str]:
    """All arms in the CPU time of the baseline."""
    base = rows_of(kept, BASELINE)
    if not base:
        return
    yield (
        f"| {words}`{HARD}`, equal CPU time ({base[0]['epochs']} epochs of the baseline) | seeds | "
        f"epochs | mAP | rank-1 | gain in mAP, 95 % interval | gain over its start alone | "
        f"{' | '.join(f'gain, {each}' for each in SUBSETS.values())} | CPU |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for name, arm in arms.items():
        rows = rows_of(kept, name)
        if rows:
            gains = [
                "–" if name == BASELINE else points(figures.gain(kept, name, score=score))
                for score in ("mAP", *SUBSETS)
            ]
            gains.insert(1, points(figures.loss_gain(kept, name)) if arm.has_losses else "–")
            yield (
                f"| {arm.words}{mark(arm)} | {len(rows)} | {_mean(rows, 'epochs'):.0f} | "
                f"{mean_score(rows):.1%} | {mean_score(rows, 'rank1'):.1%} | {' | '.join(gains)} | "
                f"{mean_seconds(rows):.0f} s |"
            )


def mark(arm: Arm) -> str:
    """The mark of an arm whose start took time that the table does not count."""
    if arm.start == SHIPPED:
        return " †"
    return " *" if arm.start in figures.COUNTED_STARTS else ""


def _counted_table(kept: RowsFile) -> Iterator[str]:
    """Arms of SAN-PG beside the baseline that is given its training time too."""
    first = True
    for share in plan.SHARES:
        budget = plan.COUNTED.format(share)
        base = rows_of(kept, BASELINE, budget)
        for name in (name for name, arm in ARMS.items() if arm.start in figures.COUNTED_STARTS):
            found = figures.counted_gain(kept, name, share)
            if found is None:
                continue
            if first:
                yield (
                    f"| `{HARD}`, training of SAN-PG or of the control's start counted | "
                    "baseline in the same time | "
                    "mAP | gain in mAP, 95 % interval |"
                )
                yield "|---|---|---|---|"
                first = False
            data_sets = "one data set" if share == 1 else f"{share} data sets"
            made_by = "SAN-PG" if ARMS[name].start == OWN else "its start"
            yield (
                f"| {ARMS[name].words}; {made_by} for {data_sets} | {mean_score(base):.1%} "
                f"({mean_seconds(base):.0f} s) | {mean_score(rows_of(kept, name)):.1%} | "
                f"{points(found)} |"
            )


def _gap_table(kept: RowsFile) -> Iterator[str]:
    """Arms that were trained on the easier difficulty, where they were not trained."""
    base = rows_of(kept, BASELINE, difficulty=NORMAL)
    if not base:
        return
    yield (
        f"| trained on `{NORMAL}`, equal CPU time | seeds | "
        f"{' | '.join(f'mAP, {words}' for words in GAP_COLUMNS.values())} | "
        f"{' | '.join(f'gain, {words}' for words in GAP_COLUMNS.values())} |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for name in plan.GAP_ARMS:
        rows = rows_of(kept, name, difficulty=NORMAL)
        if rows:
            means = [f"{mean_score(rows, test=test):.1%}" for test in GAP_COLUMNS]
            gains = [
                "–"
                if name == BASELINE
                else points(figures.gain(kept, name, difficulty=NORMAL, test=test))
                for test in GAP_COLUMNS
            ]
            yield (
                f"| {ARMS[name].words}{mark(ARMS[name])} | {len(rows)} | {' | '.join(means)} | "
                f"{' | '.join(gains)} |"
            )


def _equal_epochs_table(kept: RowsFile) -> Iterator[str]:
    """Arms for the same epochs, whatever their time."""
    if not rows_of(kept, BASELINE, EQUAL_EPOCHS):
        return
    yield (
        f"| `{HARD}`, {plan.CONTINUED_EPOCHS} epochs each | seeds | mAP | gain in mAP, 95 % "
        "interval | CPU |"
    )
    yield "|---|---|---|---|---|"
    for name in plan.CONTINUED_ARMS:
        rows = rows_of(kept, name, EQUAL_EPOCHS)
        if rows:
            found = None if name == BASELINE else figures.gain(kept, name, EQUAL_EPOCHS)
            yield (
                f"| {ARMS[name].words} | {len(rows)} | {mean_score(rows):.1%} | {points(found)} | "
                f"{mean_seconds(rows):.0f} s |"
            )


def _long_table(kept: RowsFile) -> Iterator[str]:
    """The baseline and the best arms for longer and longer, on fewer people."""
    known = [n for n in plan.LONG_EPOCHS if rows_of(kept, BASELINE, plan.LONG.format(n))]
    if not known:
        return
    yield (
        f"| `{HARD}`, {plan.LONG_PEOPLE} people to train on | seeds | "
        f"{' | '.join(f'CPU time of {n} epochs' for n in known)} |"
    )
    yield f"|---|---|{'---|' * len(known)}"
    for name in long_arms(kept):
        groups = [rows_of(kept, name, plan.LONG.format(n)) for n in known]
        told = [
            f"{mean_score(rows):.1%}"
            + ("" if name == BASELINE else f" ({points(figures.long_gain(kept, name, n))})")
            if rows
            else "–"
            for rows, n in zip(groups, known, strict=True)
        ]
        yield f"| {ARMS[name].words}{mark(ARMS[name])} | {len(groups[0])} | {' | '.join(told)} |"


def long_arms(kept: RowsFile) -> list[str]:
    """The arms that were trained for long, the baseline first."""
    rows = kept.find(budget=plan.LONG.format(plan.LONG_EPOCHS[0]))
    return list(dict.fromkeys(row["arm"] for row in rows))


def sentences(kept: RowsFile) -> Iterator[str]:
    """What the rows come to in words; none claims more than its interval."""
    yield from _decision_sentences(kept)
    yield from _convergence_sentence(kept)
    yield from _times_sentence(kept)
    if kept.rows:
        machine = kept.rows[-1]["machine"]
        yield (
            f"Measured on {machine['cores']} cores, {machine['cpu']}, commit "
            f"{', '.join(figures.commits(kept.rows))}, {kept.rows[-1]['date']}."
        )


def _decision_sentences(kept: RowsFile) -> Iterator[str]:
    for name in figures.best_arms(kept, 1):
        found = figures.fair_gain(kept, name)
        if found is not None and found.half is not None:
            counted = ", whose training of SAN-PG is counted," if ARMS[name].start == OWN else ""
            yield (
                "Among the arms with texture losses, or with a generator's encoder as start, "
                f"validation people choose *{ARMS[name].words}*. "
                f"On test people, in equal CPU time{counted} {verdict(found)}."
            )
    for name in figures.best_arms(kept, 1, with_losses=True):
        own = figures.loss_gain(kept, name)
        if own is not None:
            yield (
                f"Among those with texture losses, they choose *{ARMS[name].words}*: "
                f"{verdict(own, 'the baseline of the same start')}."
            )


def _convergence_sentence(kept: RowsFile) -> Iterator[str]:
    """Whether the longest training was long enough for the baseline."""
    done = figures.doublings(kept)
    if done:
        side = "below" if figures.has_converged(kept, done[-1]) else "above"
        brought = points(figures.doubling_gain(kept, done[-1]))
        yield (
            f"With {plan.LONG_PEOPLE} people, the last doubling, to {plan.LONG_EPOCHS[done[-1]]} "
            f"epochs, brings the baseline {brought}. Its mean is {side} the bar of "
            f"{plan.CONVERGED_GAIN} points, below which nothing longer is tried."
        )


def _times_sentence(kept: RowsFile) -> Iterator[str]:
    """What counts as time, and arms whose measured time strays from what was meant."""
    seconds = [row["generator"]["cpu_seconds"] for row in kept.find(start=OWN)]
    if seconds:
        yield (
            "CPU time is that of training and of generating textures. Arms with * start from or "
            f"learn from a network whose training, {seconds[-1]:.0f} CPU seconds, is not counted. "
            "Arms with † start as the generator that ships, and it makes all textures; its "
            "training is not counted anywhere."
        )
    base = rows_of(kept, BASELINE)
    strayed = [
        f"*{arm.words}* {ratio:.2f}"
        for name, arm in ARMS.items()
        if (rows := rows_of(kept, name))
        and abs((ratio := mean_seconds(rows) / mean_seconds(base)) - 1) > TIME_SLACK
    ]
    if strayed:
        yield f"Measured CPU time over the baseline's, where not near 1: {', '.join(strayed)}."


def verdict(found: Difference, other: str = "the baseline") -> str:
    """What a difference shows, and no more than its interval does."""
    seeds = "1 seed" if found.pairs == 1 else f"{found.pairs} seeds"
    told = f"({points(found)}, {seeds})"
    if found.half is None or abs(found.mean) <= found.half:
        return f"no difference to {other} was shown {told}"
    return f"it {'gains on' if found.mean > 0 else 'loses to'} {other} {told}"


def points(gain: Difference | None) -> str:
    """A gain in points, with its interval where it has one."""
    if gain is None:
        return "–"
    mean = f"{round(gain.mean, 1) + 0.0:+}"  # without -0.0
    return mean if gain.half is None else f"{mean} ± {gain.half:.1f}"


def _mean(rows: Sequence[Row], name: str) -> float:
    return statistics.mean(row[name] for row in rows)
