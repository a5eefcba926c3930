"""Does texture supervision help? The recorded rows of `make reproduce`, compared.

Nothing is measured here: `make bench GROUP=evidence` prints the rows, refuses those of other code,
and makes figures, table and plot from them.
"""

import itertools
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.benchmarks.evidence.arms import (
    ARMS,
    Arm,
    recipe_fields,
    recipe_of_arm,
    recipe_of_generator,
)
from tests.benchmarks.evidence.code import code_fingerprint
from tests.benchmarks.evidence.rows import (
    Difference,
    ForeignRowsError,
    Row,
    RowsFile,
    mean_difference,
    paired_differences,
    row_name,
)
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import ROOT

RESULTS = ROOT / "tests" / "results"
ROWS = RESULTS / "evidence_rows.json"
EQUAL_EPOCHS, MULTIPLE, MATCHED_CPU = "equal epochs", "{} x the epochs", "CPU time of {}"
SCORES = ("mAP", "rank1", "front_to_back", "occluded", "cross_pose")
# Arms whose CPU time a longer baseline is given, each with all arms that are set beside it
ARMS_BESIDE = {"light": ("light", "light_pg"), "full": ("rec", "full", "rec_pg", "full_pg")}
CONVERGED_GAIN = 0.5  # mAP points: a doubling that brings the baseline less is the last one


def figures() -> Iterator[Figure]:
    """The rows on paper, then the figures; ends the process where rows are of other code."""
    from tests.benchmarks.evidence import table

    kept = RowsFile(ROWS)
    if not kept.rows:
        sys.exit(f"{ROWS.name} holds no row; make reproduce measures them")
    try:
        check_rows(kept, code_fingerprint())
    except ForeignRowsError as error:
        sys.exit(str(error))
    for line in row_lines(kept):
        print(line)
    table.write_table_and_plot(kept)
    yield from figures_of_rows(kept)


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
        recipes = [(kept.recipe(row), recipe_fields(recipe_of_arm(arm, row["epochs"])))]
        if row["generator"]:
            recipes.append((kept.recipe(row["generator"]), recipe_fields(recipe_of_generator())))
        for then, today in recipes:
            for name, value in today.items():
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
        scores = "  ".join(f"{name} {_percent(row[name])}" for name in SCORES)
        yield f"{row_name(row):45} {scores}  {row['cpu_seconds']:6.1f} s  {row['commit']}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def figures_of_rows(kept: RowsFile) -> Iterator[Figure]:
    """What the rows come to: means, and paired differences with their intervals."""
    for difficulty, budget, arm in row_groups(kept):
        rows = kept.find(difficulty=difficulty, budget=budget, arm=arm)
        name = ".".join(("evidence", *(w.replace(" ", "_") for w in (difficulty, budget, arm))))
        for score in SCORES:
            values = [row[score] for row in rows if row[score] is not None]
            if values:
                yield Figure(f"{name}.{score}", 100 * statistics.mean(values), "%")
        seconds = statistics.mean(row["cpu_seconds"] for row in rows)
        yield Figure(f"{name}.cpu_seconds", seconds, "s")
        yield Figure(f"{name}.seeds", len(rows), "runs")
        if budget == EQUAL_EPOCHS and (ratio := matched_ratio(kept, difficulty, arm)):
            yield Figure(f"{name}.equal_cpu_ratio", ratio, "ratio")
        for score in SCORES if arm != "baseline" else ():
            found = gain(kept, difficulty, arm, budget=budget, score=score)
            yield from difference_figures(f"{name}.{score}_gain", found)
    yield from _headlines(kept)


def row_groups(kept: RowsFile) -> list[tuple[str, str, str]]:
    """Difficulty, budget and arm of the rows there are, in the order of their first."""
    return list(dict.fromkeys((r["difficulty"], r["budget"], r["arm"]) for r in kept.rows))


def _headlines(kept: RowsFile) -> Iterator[Figure]:
    yield from difference_figures("evidence.hard_map_gain", gain(kept, "hard", "full"))
    yield from difference_figures(
        "evidence.equal_cpu_map_gain", equal_cpu_gain(kept, "hard", "light")
    )
    for arm in ("light_pg", *ARMS_BESIDE["full"]):
        yield from difference_figures(
            f"evidence.equal_cpu_{arm}_map_gain", equal_cpu_gain(kept, "hard", arm)
        )
    yield from difference_figures(
        "evidence.hard_map_gain_from_san_pg", gain(kept, "hard", "full_pg")
    )
    yield from difference_figures(
        "evidence.hard_map_gain_from_san_pg_both", gain(kept, "hard", "full_pg", over="baseline_pg")
    )
    share = share_of_oracle(kept, "hard")
    if share is not None:
        yield Figure("evidence.hard_share_of_oracle", share, "ratio")
    for doubling in doublings(kept, "hard"):
        brought = doubling_gain(kept, "hard", doubling)
        yield from difference_figures(f"evidence.hard_gain_of_doubling_{doubling}", brought)


def difference_figures(name: str, found: Difference | None) -> Iterator[Figure]:
    """A mean difference, and where it has one the ends of its interval; none if it is None."""
    if found is None:
        return
    yield Figure(name, found.mean, "points")
    if found.half is not None:
        yield Figure(f"{name}_low", found.mean - found.half, "points")
        yield Figure(f"{name}_high", found.mean + found.half, "points")


def gain(
    kept: RowsFile,
    difficulty: str,
    arm: str,
    *,
    budget: str = EQUAL_EPOCHS,
    over: str = "baseline",
    score: str = "mAP",
) -> Difference | None:
    """What an arm has over another in a budget; None where no seed has both."""
    own, other = (kept.find(arm=a, difficulty=difficulty, budget=budget) for a in (arm, over))
    return _difference_if_any(paired_differences(own, other, score))


def equal_cpu_gain(kept: RowsFile, difficulty: str, arm: str) -> Difference | None:
    """What an arm has over the baseline that is given the CPU time of the arm it stands beside."""
    own = kept.find(arm=arm, difficulty=difficulty, budget=EQUAL_EPOCHS)
    return _difference_if_any(paired_differences(own, matched_baseline(kept, difficulty, arm)))


def matched_baseline(kept: RowsFile, difficulty: str, arm: str) -> list[Row]:
    """The baseline that is given as much CPU time; none where an arm stands beside no other."""
    given = [each for each, arms in ARMS_BESIDE.items() if arm in arms]
    budget = MATCHED_CPU.format(*given) if given else None
    return kept.find(arm="baseline", difficulty=difficulty, budget=budget)


def matched_ratio(kept: RowsFile, difficulty: str, arm: str) -> float | None:
    """CPU time that the baseline took which was given an arm's, over the arm's."""
    longer = matched_baseline(kept, difficulty, arm)
    own = kept.find(arm=arm, difficulty=difficulty, budget=EQUAL_EPOCHS)
    seconds = [statistics.mean(r["cpu_seconds"] for r in rows) for rows in (longer, own) if rows]
    return seconds[0] / seconds[1] if len(seconds) == 2 else None


def _difference_if_any(values: Sequence[float]) -> Difference | None:
    return mean_difference(values) if values else None


def pseudo_and_true_gains(kept: RowsFile, difficulty: str) -> tuple[Difference, Difference] | None:
    """The gain of pseudo textures and that of true ones, over the seeds that have both."""
    arms = ("full", "oracle", "baseline")
    full, oracle, baseline = (
        kept.find(arm=arm, difficulty=difficulty, budget=EQUAL_EPOCHS) for arm in arms
    )
    gains = [paired_differences(rows, baseline) for rows in rows_of_common_seeds(full, oracle)]
    return (mean_difference(gains[0]), mean_difference(gains[1])) if all(gains) else None


def share_of_oracle(kept: RowsFile, difficulty: str) -> float | None:
    """The one gain over the other, where true textures are told from nothing."""
    found = pseudo_and_true_gains(kept, difficulty)
    if found is None:
        return None
    pseudo, true = found
    is_told = true.half is not None and true.mean > true.half
    return pseudo.mean / true.mean if is_told else None


def rows_of_common_seeds(*groups_of_rows: Sequence[Row]) -> list[list[Row]]:
    """Of each group the rows of those seeds that all of them have."""
    seeds = set.intersection(*({row["seed"] for row in rows} for rows in groups_of_rows))
    return [[row for row in rows if row["seed"] in seeds] for rows in groups_of_rows]


def cpu_ratios(kept: RowsFile) -> dict[tuple[str, str], float]:
    """Median CPU seconds of arms over the baseline's at equal epochs, by difficulty and arm."""
    seconds = {
        (difficulty, arm): statistics.median(
            row["cpu_seconds"] for row in kept.find(difficulty=difficulty, budget=budget, arm=arm)
        )
        for difficulty, budget, arm in row_groups(kept)
        if budget == EQUAL_EPOCHS
    }
    return {
        (difficulty, arm): taken / seconds[difficulty, "baseline"]
        for (difficulty, arm), taken in seconds.items()
        if (difficulty, "baseline") in seconds
    }


def has_converged(kept: RowsFile, difficulty: str, doubling: int) -> bool:
    """Whether that doubling, from 1, brought the baseline less than CONVERGED_GAIN."""
    found = doubling_gain(kept, difficulty, doubling)
    return found is not None and found.mean < CONVERGED_GAIN


def doubling_gain(kept: RowsFile, difficulty: str, doubling: int) -> Difference | None:
    """What the doubling of that number, from 1, brought the baseline."""
    longer, shorter = (
        kept.find(arm="baseline", difficulty=difficulty, budget=budget_of_doubling(each))
        for each in (doubling, doubling - 1)
    )
    return _difference_if_any(paired_differences(longer, shorter))


def doublings(kept: RowsFile, difficulty: str) -> list[int]:
    """The numbers of the doublings that there are, from 1."""
    counted = itertools.count(1)
    return list(itertools.takewhile(lambda d: doubling_gain(kept, difficulty, d), counted))


def budget_of_doubling(doubling: int) -> str:
    """The budget after so many doublings of the epochs."""
    return MULTIPLE.format(2**doubling) if doubling else EQUAL_EPOCHS
