"""Does texture supervision help? The recorded rows of `make reproduce`, compared.

Nothing is measured here: `make bench GROUP=evidence` prints the rows, refuses those of other code,
and makes figures, table and plot from them.
"""

import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tests.benchmarks.evidence_arms import ARMS, fields, recipe_of
from tests.benchmarks.evidence_code import fingerprint
from tests.benchmarks.evidence_rows import (
    Difference,
    ForeignRowsError,
    Kept,
    Row,
    difference,
    paired,
    told,
)
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import ROOT

RESULTS = ROOT / "tests" / "results"
ROWS = RESULTS / "evidence_rows.json"
EQUAL_EPOCHS, DOUBLED, MATCHED = "equal epochs", "{} x the epochs", "CPU time of {}"
SCORES = ("mAP", "rank1", "front_to_back", "occluded", "cross_pose")
# Arms whose CPU time the baseline is given too, each with all arms that take as long
BESIDE = {"light": ("light", "light_pg"), "full": ("full", "full_pg")}
ENOUGH = 0.5  # mAP points: a doubling that brings the baseline less is the last one


def figures() -> Iterator[Figure]:
    """The rows on paper, then the figures; ends the process where rows are of other code."""
    from tests.benchmarks import evidence_table

    kept = Kept(ROWS)
    try:
        check(kept, fingerprint())
    except ForeignRowsError as error:
        sys.exit(str(error))
    for line in lines(kept):
        print(line)
    evidence_table.write(kept)
    yield from of_rows(kept)


def circumstances() -> dict[str, Any]:
    """What the rows were measured on and with, which is not this machine and commit."""
    last = Kept(ROWS).rows[-1]
    return {name: last[name] for name in ("machine", "commit", "date")}


def check(kept: Kept, code: str) -> None:
    """Raise ForeignRowsError unless the rows are of today's code and of today's arms."""
    kept.check(code=code)
    for row in kept.rows:
        if row["arm"] not in ARMS:
            raise ForeignRowsError(f"{kept.path.name}: there is no arm {row['arm']} any more")
        arm = ARMS[row["arm"]]
        today = {
            **fields(recipe_of(arm, row["epochs"])),
            "targets": arm.targets,
        }
        then = {**kept.recipe(row), "targets": row["targets"]}
        if differing := [name for name in today if then.get(name) != today[name]]:
            name = differing[0]
            raise ForeignRowsError(
                f"{kept.path.name}: the row {told(row)} was measured with {name} "
                f"{then.get(name)!r}, today's is {today[name]!r}; make reproduce ARGS=--anew"
            )


def lines(kept: Kept) -> Iterator[str]:
    """A line a row."""
    for row in kept.rows:
        scores = "  ".join(f"{name} {_percent(row[name])}" for name in SCORES)
        yield f"{told(row):45} {scores}  {row['cpu_seconds']:6.1f} s  {row['commit']}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def of_rows(kept: Kept) -> Iterator[Figure]:
    """What the rows come to: means, and paired differences with their intervals."""
    for difficulty, budget, arm in groups(kept):
        rows = kept.find(difficulty=difficulty, budget=budget, arm=arm)
        name = ".".join(("evidence", *(w.replace(" ", "_") for w in (difficulty, budget, arm))))
        for score in SCORES:
            values = [row[score] for row in rows if row[score] is not None]
            if values:
                yield Figure(f"{name}.{score}", 100 * statistics.mean(values), "%")
        seconds = statistics.mean(row["cpu_seconds"] for row in rows)
        yield Figure(f"{name}.cpu_seconds", seconds, "s")
        yield Figure(f"{name}.seeds", len(rows), "runs")
        for score in SCORES if arm != "baseline" else ():
            found = gain(kept, difficulty, arm, budget=budget, score=score)
            yield from _figures(f"{name}.{score}_gain", found)
    yield from _headlines(kept)


def groups(kept: Kept) -> list[tuple[str, str, str]]:
    """Difficulty, budget and arm of the rows there are, in the order of their first."""
    return list(dict.fromkeys((r["difficulty"], r["budget"], r["arm"]) for r in kept.rows))


def _headlines(kept: Kept) -> Iterator[Figure]:
    yield from _figures("evidence.hard_map_gain", gain(kept, "hard", "full"))
    yield from _figures("evidence.equal_cpu_map_gain", equal_cpu_gain(kept, "hard", "light"))
    for arm in ("light_pg", "full", "full_pg"):
        yield from _figures(f"evidence.equal_cpu_{arm}_map_gain", equal_cpu_gain(kept, "hard", arm))
    yield from _figures("evidence.hard_map_gain_from_san_pg", gain(kept, "hard", "full_pg"))
    yield from _figures(
        "evidence.hard_map_gain_from_san_pg_both", gain(kept, "hard", "full_pg", over="baseline_pg")
    )
    if share := share_of_oracle(kept, "hard"):
        yield Figure("evidence.hard_share_of_oracle", share, "ratio")


def _figures(name: str, found: Difference | None) -> Iterator[Figure]:
    if found is None:
        return
    yield Figure(name, found.mean, "points")
    if found.low is not None and found.high is not None:
        yield Figure(f"{name}_low", found.low, "points")
        yield Figure(f"{name}_high", found.high, "points")


def gain(
    kept: Kept,
    difficulty: str,
    arm: str,
    *,
    budget: str = EQUAL_EPOCHS,
    over: str = "baseline",
    score: str = "mAP",
) -> Difference | None:
    """What an arm has over another in a budget; None where no seed has both."""
    own, other = (kept.find(arm=a, difficulty=difficulty, budget=budget) for a in (arm, over))
    return _difference(paired(own, other, score))


def equal_cpu_gain(kept: Kept, difficulty: str, arm: str, score: str = "mAP") -> Difference | None:
    """What an arm has over the baseline that is given the CPU time of the arm."""
    own = kept.find(arm=arm, difficulty=difficulty, budget=EQUAL_EPOCHS)
    longer = kept.find(arm="baseline", difficulty=difficulty, budget=MATCHED.format(arm))
    return _difference(paired(own, longer, score))


def _difference(values: Sequence[float]) -> Difference | None:
    return difference(values) if values else None


def share_of_oracle(kept: Kept, difficulty: str) -> float | None:
    """The gain of pseudo textures over that of true ones, over the seeds that have both."""
    arms = ("full", "oracle", "baseline")
    full, oracle, baseline = (
        kept.find(arm=arm, difficulty=difficulty, budget=EQUAL_EPOCHS) for arm in arms
    )
    seeds = {row["seed"] for row in oracle} & {row["seed"] for row in full}
    gains = [paired(_of(seeds, rows), baseline) for rows in (full, oracle)]
    if not all(gains) or statistics.mean(gains[1]) <= 0:
        return None
    return statistics.mean(gains[0]) / statistics.mean(gains[1])


def _of(seeds: set[int], rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["seed"] in seeds]


def cpu_ratios(kept: Kept) -> dict[tuple[str, str], float]:
    """Median CPU seconds of arms over the baseline's at equal epochs, by difficulty and arm."""
    seconds = {
        (difficulty, arm): statistics.median(
            row["cpu_seconds"] for row in kept.find(difficulty=difficulty, budget=budget, arm=arm)
        )
        for difficulty, budget, arm in groups(kept)
        if budget == EQUAL_EPOCHS
    }
    return {
        (difficulty, arm): taken / seconds[difficulty, "baseline"]
        for (difficulty, arm), taken in seconds.items()
        if (difficulty, "baseline") in seconds
    }


def has_enough(kept: Kept, difficulty: str, doubling: int) -> bool:
    """Whether the doubling of that number, from 1, brought the baseline less than ENOUGH."""
    budgets = [times(d) for d in (doubling, doubling - 1)]
    longer, shorter = (
        kept.find(arm="baseline", difficulty=difficulty, budget=each) for each in budgets
    )
    found = _difference(paired(longer, shorter))
    return found is not None and found.mean < ENOUGH


def times(doubling: int) -> str:
    """The budget after so many doublings of the epochs."""
    return DOUBLED.format(2**doubling) if doubling else EQUAL_EPOCHS
