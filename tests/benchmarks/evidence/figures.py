"""Does texture supervision pay? The recorded rows of `make reproduce`, compared.

Nothing is measured here: `make bench GROUP=evidence` prints the rows, refuses those of other code,
and makes figures, table and plot from them. Who is chosen is decided by validation people, and
every figure of a gain is of test people.
"""

import itertools
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.benchmarks.evidence import plan
from tests.benchmarks.evidence.arms import (
    ARMS,
    BASELINE,
    LARGE_ARMS,
    Arm,
    recipe_fields,
    recipe_of_arm,
)
from tests.benchmarks.evidence.code import code_fingerprint
from tests.benchmarks.evidence.plan import EQUAL_TIME, HARD, TIMING
from tests.benchmarks.evidence.rows import (
    Difference,
    ForeignRowsError,
    Row,
    RowsFile,
    mean_difference,
    mean_score,
    paired_differences,
    row_name,
)
from tests.benchmarks.evidence.run import recipe_of_start, shipped_fingerprint
from tests.benchmarks.evidence.starts import IDENTITY, NONE, OWN, SHIPPED
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import ROOT

RESULTS = ROOT / "tests" / "results"
ROWS = RESULTS / "evidence_rows.json"
LARGE_ROWS = RESULTS / "evidence_large_rows.json"
COUNTED_STARTS = (OWN, IDENTITY)  # which take SAN-PG's time
# The arm without texture losses of each start
START_ALONE = {NONE: BASELINE, SHIPPED: "baseline_shipped", OWN: "baseline_pg"}
SCORES = ("mAP", "rank1", "front_to_back", "occluded", "cross_pose")


def figures() -> Iterator[Figure]:
    """The rows on paper, then the figures; ends the process where rows are of other code."""
    from tests.benchmarks.evidence.paper import pages

    kept, large = RowsFile(ROWS), RowsFile(LARGE_ROWS)
    if not kept.rows:
        sys.exit(f"{ROWS.name} holds no row; make reproduce measures them")
    try:
        check_rows(kept, code_fingerprint())
        check_rows(large, code_fingerprint(), LARGE_ARMS)
    except ForeignRowsError as error:
        sys.exit(str(error))
    for line in (*row_lines(kept), *row_lines(large)):
        print(line)
    pages.write_pages(kept, large)
    yield from all_figures(kept, large)


def all_figures(kept: RowsFile, large: RowsFile) -> Iterator[Figure]:
    """The figures of both files of rows."""
    yield from figures_of_rows(kept)
    yield from figures_of_rows(large, "evidence_large")


def circumstances() -> dict[str, Any]:
    """What the rows were measured on and with, which is not this machine and commit."""
    rows = RowsFile(ROWS).rows
    return {
        "machine": rows[-1]["machine"],
        "commit": ", ".join(commits(rows)),
        "date": rows[-1]["date"],
    }


def commits(rows: Sequence[Row]) -> list[str]:
    """The commits that rows were measured at."""
    return list(dict.fromkeys(row["commit"] for row in rows))


def check_rows(kept: RowsFile, code: str, arms: Mapping[str, Arm] = ARMS) -> None:
    """Raise ForeignRowsError unless rows are of today's code and arms, and of one machine."""
    for row in kept.rows:
        if row["arm"] not in arms:
            raise ForeignRowsError(
                f"{kept.path.name}: there is no arm {row['arm']} any more; measure anew with --anew"
            )
        arm = arms[row["arm"]]
        kept.check_value(row, "code", row["code"], code)
        kept.check_value(row, "targets", row["targets"], arm.targets)
        kept.check_value(row, "start", row["start"], arm.start)
        shipped = shipped_fingerprint() if arm.uses_shipped else None
        kept.check_value(row, "the shipped generator", row["shipped"], shipped)
        settings = recipe_of_arm(arm, row["epochs"])
        recipes = [(kept.recipe(row), recipe_fields(settings))]
        if row["generator"] and row["generator"]["recipe"]:
            today = recipe_of_start(arm, settings, row["generator"])
            assert today is not None
            recipes.append((kept.recipe(row["generator"]), recipe_fields(today)))
        for then, fields in recipes:
            for name, value in fields.items():
                kept.check_value(row, name, then.get(name), value)
        _check_alike(kept, row)


def _check_alike(kept: RowsFile, row: Row) -> None:
    """Refuse CPU times of two machines, and pairs that saw different pictures."""
    beside = kept.find(difficulty=row["difficulty"], seed=row["seed"])[0]
    for name, other in (("machine", kept.rows[0]), ("data", beside)):
        if row[name] != other[name]:
            raise ForeignRowsError(
                f"{kept.path.name}: the rows {row_name(other)} and {row_name(row)} differ in "
                f"{name}, {other[name]} and {row[name]}; measure anew with --anew"
            )


def row_lines(kept: RowsFile) -> Iterator[str]:
    """A line a row."""
    for row in kept.rows:
        found = "  ".join(f"{test} {each['mAP']:.1%}" for test, each in row["scores"].items())
        yield f"{row_name(row):45} {found}  {seconds_of(row):6.1f} s  {row['commit']}"


def seconds_of(row: Row) -> float:
    """CPU seconds of training and of generating textures."""
    seconds: float = row["cpu_seconds"] + row["texture_cpu_seconds"]
    return seconds


def mean_seconds(rows: Sequence[Row]) -> float:
    """The mean CPU seconds of rows."""
    return statistics.mean(map(seconds_of, rows))


def rows_of(
    kept: RowsFile, arm: str, budget: str = EQUAL_TIME, difficulty: str = HARD
) -> list[Row]:
    """The rows of an arm in a budget."""
    return kept.find(arm=arm, budget=budget, difficulty=difficulty)


def gain(
    kept: RowsFile,
    arm: str,
    budget: str = EQUAL_TIME,
    *,
    difficulty: str = HARD,
    over: str = BASELINE,
    over_budget: str | None = None,
    score: str = "mAP",
    test: str = "test",
) -> Difference | None:
    """What an arm has over another, by default in one budget; None where no seed has both."""
    own = rows_of(kept, arm, budget, difficulty)
    other = rows_of(kept, over, over_budget or budget, difficulty)
    values = paired_differences(own, other, score, test=test)
    return mean_difference(values) if values else None


def counted_gain(kept: RowsFile, arm: str, share: int, *, test: str = "test") -> Difference | None:
    """What an arm has over the baseline that is given a share of SAN-PG's time on top."""
    return gain(kept, arm, over_budget=plan.COUNTED.format(share), test=test)


def fair_gain(kept: RowsFile, arm: str, *, test: str = "test") -> Difference | None:
    """What an arm has over the baseline in all its time, that of SAN-PG included."""
    if ARMS[arm].start == OWN:
        return counted_gain(kept, arm, 1, test=test)
    return gain(kept, arm, test=test)


def loss_gain(kept: RowsFile, arm: str, *, test: str = "test") -> Difference | None:
    """What an arm's texture losses bring: its gain over the baseline of the same start."""
    return gain(kept, arm, over=START_ALONE[ARMS[arm].start], test=test)


def best_arms(kept: RowsFile, count: int, *, with_losses: bool = False) -> list[str]:
    """The candidates, of those with most seeds, that gain most on validation people.

    with_losses: only those with texture losses; the others have a generator's encoder as start, or
    its features as targets.
    """
    names = [
        name
        for name, arm in ARMS.items()
        if arm.is_candidate and (arm.has_losses or not with_losses)
    ]
    found = {name: fair_gain(kept, name, test="val") for name in names}
    known = {name: each for name, each in found.items() if each is not None}
    pairs = max((each.pairs for each in known.values()), default=0)
    full = [name for name, each in known.items() if each.pairs == pairs]
    return sorted(full, key=lambda name: -known[name].mean)[:count]


def long_gain(kept: RowsFile, arm: str, epochs: int) -> Difference | None:
    """What an arm has over the baseline in a long training."""
    return gain(kept, arm, plan.LONG.format(epochs))


def doubling_gain(kept: RowsFile, number: int) -> Difference | None:
    """What the doubling of that number, from 1, brought the baseline."""
    shorter, longer = (plan.LONG.format(plan.LONG_EPOCHS[n]) for n in (number - 1, number))
    return gain(kept, BASELINE, longer, over_budget=shorter)


def has_converged(kept: RowsFile, number: int) -> bool:
    """Whether that doubling brought the baseline less than CONVERGED_GAIN."""
    found = doubling_gain(kept, number)
    return found is not None and found.mean < plan.CONVERGED_GAIN


def doublings(kept: RowsFile) -> list[int]:
    """The numbers of the doublings that there are, from 1."""
    return [n for n in range(1, len(plan.LONG_EPOCHS)) if doubling_gain(kept, n)]


def figures_of_rows(kept: RowsFile, group: str = "evidence") -> Iterator[Figure]:
    """What the rows come to: means, and paired differences with their intervals."""
    for difficulty, budget, arm in row_groups(kept):
        rows = rows_of(kept, arm, budget, difficulty)
        name = ".".join((group, *(w.replace(" ", "_") for w in (difficulty, budget, arm))))
        for test in rows[0]["tests"]:
            yield Figure(f"{name}.{test}_mAP", 100 * mean_score(rows, test=test), "%")
            if arm != BASELINE:
                found = gain(kept, arm, budget, difficulty=difficulty, test=test)
                yield from difference_figures(f"{name}.{test}_mAP_gain", found)
        yield Figure(f"{name}.cpu_seconds", mean_seconds(rows), "s")
        yield Figure(f"{name}.epochs", statistics.mean(r["epochs"] for r in rows), "epochs")
        yield Figure(f"{name}.seeds", len(rows), "runs")
    if group == "evidence":
        yield from _headlines(kept)


def row_groups(kept: RowsFile) -> list[tuple[str, str, str]]:
    """Difficulty, budget and arm of the rows there are, in the order of their first."""
    found = dict.fromkeys((r["difficulty"], r["budget"], r["arm"]) for r in kept.rows)
    return [each for each in found if each[1] != TIMING]


def _headlines(kept: RowsFile) -> Iterator[Figure]:
    for arm in best_arms(kept, 1):
        found = fair_gain(kept, arm)
        yield from difference_figures("evidence.equal_time_map_gain", found)
        if found is not None and found.half is not None:
            yield Figure("evidence.equal_time_gain", found.mean - found.half, "points")
    for arm in best_arms(kept, 1, with_losses=True):
        yield from difference_figures("evidence.equal_time_losses_map_gain", fair_gain(kept, arm))
    for name in (name for name, arm in ARMS.items() if arm.has_losses):
        yield from difference_figures(f"evidence.losses_of_{name}_map_gain", loss_gain(kept, name))
    given = [name for name, arm in ARMS.items() if arm.start in COUNTED_STARTS]
    for arm, share in itertools.product(given, plan.SHARES):
        found = counted_gain(kept, arm, share)
        yield from difference_figures(f"evidence.counted_{share}_{arm}_map_gain", found)
    for number in doublings(kept):
        yield from difference_figures(
            f"evidence.gain_of_doubling_{number}", doubling_gain(kept, number)
        )


def difference_figures(name: str, found: Difference | None) -> Iterator[Figure]:
    """A mean difference, and where it has one the ends of its interval; none if it is None."""
    if found is None:
        return
    yield Figure(name, found.mean, "points")
    if found.half is not None:
        yield Figure(f"{name}_low", found.mean - found.half, "points")
        yield Figure(f"{name}_high", found.mean + found.half, "points")
