"""What is measured, in which order, and for how many epochs: CPU time decides.

A budget is the CPU time of the baseline for so many epochs. An arm's own time is that of its
training and of generating its textures; rendering and scoring are nobody's. What an epoch costs is
seen in a few epochs of every arm first.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from statistics import median
from typing import Any, NamedTuple

from tests.benchmarks.evidence.arms import ARMS, BASELINE, Arm, Job, recipe_fields, recipe_of_arm
from tests.benchmarks.evidence.data import ELSEWHERE, TRAIN_PEOPLE
from tests.benchmarks.evidence.rows import Row, RowsFile
from tests.benchmarks.evidence.starts import OWN

TIMING, EQUAL_TIME, EQUAL_EPOCHS = "a few epochs", "equal CPU time", "equal epochs"
COUNTED = "SAN-PG shared by {}"  # the baseline is given that share of SAN-PG's time on top
LONG = "CPU time of {} epochs"
HARD, NORMAL = "hard", "normal"
EPOCHS = 32  # of the baseline, whose CPU time is everybody's
TIMED_EPOCHS, TIMED_SEEDS = 4, (1, 2, 3)
SHARES = (1, 4)  # data sets that share a SAN-PG
CONTINUED_EPOCHS = 16  # of arms that are compared at equal epochs
CONTINUED_ARMS = (BASELINE, "full", "oracle", "shuffled", "rec")
GAP_ARMS = (BASELINE, "full", "baseline_shipped", "baseline_pg", "baseline_identity")
GAP_SEEDS = 3
GAP_TESTS = ("val", "test", HARD, ELSEWHERE)
LONG_PEOPLE, LONG_SEEDS, LONG_ARMS = 40, 3, 2  # arms beside the baseline
LONG_EPOCHS = (32, 64, 128, 256)  # of the baseline, at most
CONVERGED_GAIN = 0.5  # mAP points: a doubling that brings the baseline less is the last one
SEEDS = 5
LEAST_EPOCHS = 5  # which warm-up and the ramp of the triplet need


class Scale(NamedTuple):
    """How much is measured."""

    seeds: int = SEEDS
    epochs: int = EPOCHS  # of the baseline
    timed_epochs: int = TIMED_EPOCHS


def timing_jobs(scale: Scale, arms: Mapping[str, Arm] = ARMS) -> Iterator[Job]:
    """Every arm that is timed, for a few epochs; their scores say nothing."""
    for seed in TIMED_SEEDS[: scale.seeds]:
        for name in timed_arms(arms):
            yield Job(name, HARD, TIMING, scale.timed_epochs, seed, tests=("val",))


def timed_arms(arms: Mapping[str, Arm]) -> list[str]:
    """One of all arms whose steps are the same, whatever they start as and learn from."""
    return list(dict.fromkeys(_twin(name, arms) for name in arms))


def _twin(name: str, arms: Mapping[str, Arm]) -> str:
    """The first arm of the same steps as this one."""
    return next(each for each, arm in arms.items() if _steps_of(arm) == _steps_of(arms[name]))


@functools.cache
def _steps_of(arm: Arm) -> str:
    """What decides about an arm's steps."""
    fields = recipe_fields(recipe_of_arm(arm, TIMED_EPOCHS))
    return str({name: value for name, value in fields.items() if name != "init"})


def decision_jobs(kept: RowsFile, scale: Scale, arms: Mapping[str, Arm] = ARMS) -> Iterator[Job]:
    """Every arm for the CPU time of the baseline; seed by seed, so that what is there compares."""
    for seed, name in itertools.product(range(1, scale.seeds + 1), arms):
        epochs = epochs_in_time(kept, name, scale.epochs, arms)
        yield Job(name, HARD, EQUAL_TIME, epochs, seed)


def counted_jobs(kept: RowsFile, scale: Scale) -> Iterator[Job]:
    """The baseline for its time and that of SAN-PG, or of a share of it."""
    for seed, share in itertools.product(range(1, scale.seeds + 1), SHARES):
        epochs = round(scale.epochs + start_epochs(kept) / share)
        yield Job(BASELINE, HARD, COUNTED.format(share), epochs, seed)


def gap_jobs(kept: RowsFile, scale: Scale) -> Iterator[Job]:
    """Arms trained on the easier difficulty, judged where they were not trained."""
    for seed, name in itertools.product(range(1, min(scale.seeds, GAP_SEEDS) + 1), GAP_ARMS):
        epochs = epochs_in_time(kept, name, scale.epochs)
        yield Job(name, NORMAL, EQUAL_TIME, epochs, seed, tests=GAP_TESTS)


def continued_jobs(scale: Scale) -> Iterator[Job]:
    """Arms at equal epochs, whatever their time."""
    for seed, name in itertools.product(range(1, scale.seeds + 1), CONTINUED_ARMS):
        yield Job(name, HARD, EQUAL_EPOCHS, CONTINUED_EPOCHS, seed)


def long_jobs(kept: RowsFile, arms: Iterable[str], epochs: int, scale: Scale) -> Iterator[Job]:
    """Baseline and others for the CPU time of so many epochs, on fewer people."""
    for seed, name in itertools.product(range(1, min(scale.seeds, LONG_SEEDS) + 1), arms):
        given = epochs_in_time(kept, name, epochs)
        yield Job(name, HARD, LONG.format(epochs), given, seed, LONG_PEOPLE)


def epochs_in_time(kept: RowsFile, arm: str, epochs: int, arms: Mapping[str, Arm] = ARMS) -> int:
    """For how many epochs an arm takes the CPU time of that many of the baseline.

    Times are compared within a seed, and the median of seeds is taken.

    Raises:
        ValueError: its textures leave it no time.
    """
    ratio = median(_costs_in_seeds(kept, _twin(arm, arms), _seconds_an_epoch))
    given = next(name for name in timed_arms(arms) if arms[name].needs_pseudo)
    costs = _costs_in_seeds(kept, given, lambda row: float(row["texture_cpu_seconds"]))
    textures = median(costs) if arms[arm].needs_pseudo else 0.0
    found = round((epochs - textures) / ratio)
    if found < LEAST_EPOCHS:
        raise ValueError(
            f"{arm} has time for {found} epochs in that of {epochs} of the baseline; at least "
            f"{LEAST_EPOCHS} are needed"
        )
    return found


def start_epochs(kept: RowsFile) -> float:
    """The CPU time of SAN-PG in epochs of the baseline."""
    rows = kept.find(arm=BASELINE, budget=TIMING)
    seconds = median(map(_seconds_an_epoch, rows))
    found: float = kept.find(start=OWN)[-1]["generator"]["cpu_seconds"] / seconds
    return found


def _costs_in_seeds(kept: RowsFile, arm: str, cost: Callable[[Row], float]) -> list[float]:
    """Some cost of an arm in the first few epochs of each seed, in epochs of the baseline."""
    base = {row["seed"]: _seconds_an_epoch(row) for row in kept.find(arm=BASELINE, budget=TIMING)}
    return [cost(row) / base[row["seed"]] for row in kept.find(arm=arm, budget=TIMING)]


def _seconds_an_epoch(row: Row) -> float:
    seconds: float = row["cpu_seconds"] / row["epochs"]
    return seconds


class Part(NamedTuple):
    """A part of the measurement, as far as it is known before."""

    words: str
    runs: int
    epochs: float  # of the baseline on all people, whose CPU time all its runs take
    done: int = 0  # runs

    @property
    def epochs_left(self) -> float:
        """The same of the runs that are missing."""
        return self.epochs * (1 - min(1.0, self.done / self.runs))


SAN_PG_EPOCHS = 55  # what SAN-PG takes, in epochs of the baseline; roughly


def parts(kept: RowsFile, scale: Scale) -> list[Part]:
    """What is measured, in this order."""
    seeds, timed = scale.seeds, min(scale.seeds, len(TIMED_SEEDS))
    costs = [ARMS[name].cost for name in timed_arms(ARMS)]
    gap, long = (
        min(scale.seeds, most) * count
        for most, count in ((GAP_SEEDS, len(GAP_ARMS)), (LONG_SEEDS, LONG_ARMS + 1))
    )
    counted = sum(scale.epochs + SAN_PG_EPOCHS / share for share in SHARES)
    continued = CONTINUED_EPOCHS * sum(ARMS[name].cost for name in CONTINUED_ARMS)
    small = LONG_PEOPLE / TRAIN_PEOPLE

    def part(words: str, runs: int, epochs: float, **found: Any) -> Part:
        return Part(words, runs, epochs, len(kept.find(**found)))

    return [
        part(TIMING, timed * len(costs), timed * scale.timed_epochs * sum(costs), budget=TIMING),
        part(
            f"{EQUAL_TIME} at {HARD}",
            seeds * len(ARMS),
            seeds * len(ARMS) * scale.epochs,
            budget=EQUAL_TIME,
            difficulty=HARD,
        ),
        *(
            part(COUNTED.format(share), seeds, seeds * counted / 2, budget=COUNTED.format(share))
            for share in SHARES
        ),
        part(f"trained at {NORMAL}, judged elsewhere", gap, gap * scale.epochs, difficulty=NORMAL),
        part(EQUAL_EPOCHS, seeds * len(CONTINUED_ARMS), seeds * continued, budget=EQUAL_EPOCHS),
        *(
            part(
                f"{LONG.format(n)}, {LONG_PEOPLE} people",
                long,
                long * n * small,
                budget=LONG.format(n),
            )
            for n in LONG_EPOCHS
        ),
    ]
