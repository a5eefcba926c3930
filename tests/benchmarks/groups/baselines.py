"""What the parts of strong baselines bring: rendered people, equal CPU time, three seeds.

Each arm is the recipe `demo-baseline` with one thing changed, for as many epochs as take the
CPU time of `fc512`, which changes nothing; one more takes together what gained alone. The best on
validation people is chosen, and of it alone, beside fc512, the score on other people is told.
`make bench GROUP=baselines` measures them. A finished run is kept at once, under
runs/evidence and the fingerprint of the code: stopped at any time, the same command goes on.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean, median

from tests.benchmarks.evidence.arms import Arm, Job
from tests.benchmarks.evidence.code import code_fingerprint
from tests.benchmarks.evidence.figures import difference_figures
from tests.benchmarks.evidence.queue import JobQueue
from tests.benchmarks.evidence.rows import (
    Difference,
    ForeignRowsError,
    Row,
    RowsFile,
    mean_difference,
    mean_score,
    paired_differences,
)
from tests.benchmarks.evidence.run import default_cache
from tests.benchmarks.figure import Figure

DIFFICULTY, SEEDS = "hard", (1, 2, 3)
EPOCHS, TIMED_EPOCHS = 24, 3  # of fc512; and of every arm, to see what an epoch costs
TIMING, EQUAL_CPU = "a few epochs", "equal CPU time"
MINUTES = 90.0  # of a sitting, after which nothing is started
CONTROL, TOGETHER = "fc512", "together"


def _arm(words: str, overrides: str) -> Arm:
    return Arm(words, "demo-baseline", overrides, seeds=len(SEEDS), cost=1)


# tools/readme.py has them in words, beside what was published
ARMS = {
    CONTROL: _arm("fc512", ""),
    "bnneck": _arm("BNNeck", "embedding=bnneck"),
    "gem": _arm("GeM", "pooling=gem"),
    "cosine": _arm("cosine softmax", "classifier=cosine classifier_scale=16"),
    "circle": _arm("circle loss", "classifier=circle classifier_scale=16"),
    "soft": _arm("soft-margin triplet", "triplet=soft"),
    "weighted": _arm("weighted triplet", "triplet=weighted"),
    "ema": _arm("EMA", "ema=0.99"),
    "jitter": _arm("colour jitter", "jitter=0.3"),
    "greyscale": _arm("greyscale", "greyscale=0.2"),
    "autoaugment": _arm("AutoAugment", "autoaugment=0.3"),
    "mirrored": _arm("mirrored images at test", "mirrored=true"),
}


def figures() -> Iterator[Figure]:
    """Measure what is missing, then what all rows come to; ends the process if time was short."""
    code = code_fingerprint()
    kept = RowsFile(default_cache() / f"baselines-{code[:12]}.json")
    jobs_at_once = len(os.sched_getaffinity(0))
    try:
        with JobQueue(jobs_at_once, kept, default_cache(), code=code, minutes=MINUTES) as queue:
            measure_arms(queue)
    except ForeignRowsError as error:
        sys.exit(f"{error}; delete {kept.path}")
    yield from figures_of_rows(kept)


def measure_arms(queue: JobQueue) -> None:
    """Run what is missing: every arm alone, then what gained together.

    Raises SystemExit if the time of the sitting was too short for it.
    """
    _compare(queue, ARMS)
    _compare(queue, ARMS | combined_arm(queue.kept))


def _compare(queue: JobQueue, arms: Mapping[str, Arm]) -> None:
    """Run what is missing of arms."""
    _finish(queue, timing_jobs(arms), arms)
    _finish(queue, equal_cpu_jobs(queue.kept, arms), arms)


def _finish(queue: JobQueue, jobs: Iterable[Job], arms: Mapping[str, Arm]) -> None:
    wanted = list(jobs)
    queue.run_jobs(wanted, arms)
    if left := queue.missing_jobs(wanted):
        sys.exit(f"{len(left)} runs are left of this part: the same command goes on")


def timing_jobs(arms: Iterable[str]) -> Iterator[Job]:
    """Every arm for a few epochs on each seed's people."""
    for seed in SEEDS:
        for name in arms:
            yield Job(name, DIFFICULTY, TIMING, TIMED_EPOCHS, seed)


def equal_cpu_jobs(kept: RowsFile, arms: Iterable[str]) -> Iterator[Job]:
    """Every arm for the CPU time of fc512."""
    for seed in SEEDS:
        for name in arms:
            yield Job(name, DIFFICULTY, EQUAL_CPU, equal_epochs(kept, name), seed)


def equal_epochs(kept: RowsFile, arm: str) -> int:
    """For how many epochs an arm takes the CPU time of fc512."""
    seconds = {
        name: {row["seed"]: row["cpu_seconds"] for row in kept.find(arm=name, budget=TIMING)}
        for name in (CONTROL, arm)
    }
    ratio = median(seconds[arm][seed] / seconds[CONTROL][seed] for seed in SEEDS)
    return max(TIMED_EPOCHS, round(EPOCHS / ratio))


def gain(kept: RowsFile, arm: str, split: str = "val") -> Difference:
    """What an arm has over fc512 on the same people, in points of mAP."""
    own, other = (rows_of(kept, name) for name in (arm, CONTROL))
    return mean_difference(paired_differences(own, other, test=split))


def rows_of(kept: RowsFile, arm: str) -> list[Row]:
    """The rows of an arm that was given the CPU time of fc512."""
    return kept.find(arm=arm, budget=EQUAL_CPU)


def chosen_arm(kept: RowsFile) -> str:
    """The arm of the highest mean mAP on validation people; fc512 if none has more."""
    names = dict.fromkeys(row["arm"] for row in kept.find(budget=EQUAL_CPU))
    return max(names, key=lambda name: gain(kept, name).mean)


def combined_arm(kept: RowsFile) -> dict[str, Arm]:
    """What gained alone, together; of two that set one field, the better one.

    None where fewer than two gained.
    """
    gained = [name for name in ARMS if gain(kept, name).mean > 0]
    words: dict[str, str] = {}
    taken = []
    for name in sorted(gained, key=lambda name: -gain(kept, name).mean):
        own = dict(word.split("=") for word in ARMS[name].overrides.split())
        if not own.keys() & words.keys():
            words |= own
            taken.append(ARMS[name].words)
    if len(taken) < 2:
        return {}
    overrides = " ".join(f"{field}={value}" for field, value in words.items())
    return {TOGETHER: _arm(", ".join(taken), overrides)}


def figures_of_rows(kept: RowsFile) -> Iterator[Figure]:
    """What the rows come to; which arm was chosen is told by the names of its test figures."""
    best, together = chosen_arm(kept), combined_arm(kept)
    print(f"chosen: {best} ({(ARMS | together)[best].overrides or 'nothing changed'})")
    for name in ARMS | together:
        rows = rows_of(kept, name)
        yield from _mean_figures(f"baselines.{name}", rows, "val")
        yield Figure(f"baselines.{name}_epochs", rows[0]["epochs"], "epochs")
        if name != CONTROL:
            yield from difference_figures(f"baselines.{name}_val_gain", gain(kept, name))
    for name in dict.fromkeys((CONTROL, best)):
        yield from _mean_figures(f"baselines.{name}", rows_of(kept, name), "test")
    yield from difference_figures("baselines.best_vs_fc512_map", gain(kept, best, "test"))
    seconds = [_mean_seconds(rows_of(kept, name)) for name in (best, CONTROL)]
    yield Figure("baselines.best_vs_fc512_cpu", seconds[0] / seconds[1], "ratio")


def _mean_figures(name: str, rows: Sequence[Row], split: str) -> Iterator[Figure]:
    yield Figure(f"{name}_{split}_map", 100 * mean_score(rows, test=split), "%")
    yield Figure(f"{name}_{split}_rank1", 100 * mean_score(rows, "rank1", test=split), "%")
    yield Figure(f"{name}_{split}_cpu_seconds", _mean_seconds(rows), "s")


def _mean_seconds(rows: Sequence[Row]) -> float:
    return fmean(row["cpu_seconds"] for row in rows)
