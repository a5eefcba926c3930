"""`make reproduce`: measure whether texture supervision helps.

Every arm is trained on rendered people, several seeds each, and judged on people it has never
seen. A finished run is a row in tests/results/evidence_rows.json at once, and what is there is not
measured again: it may be stopped at any time and goes on later. ARGS=--anew forgets what is there,
ARGS="--only baseline,full" takes some arms, ARGS=--quick a short version of all, which is not kept
with the results, and ARGS=--choices the variants among which the recipe `synthetic` was chosen.
Two at a time would forget each other's rows.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.__main__ import measure_group as measure_group
from tests.benchmarks.evidence import choices, figures, table
from tests.benchmarks.evidence.arms import ARMS, Job, default_cache
from tests.benchmarks.evidence.code import code_fingerprint
from tests.benchmarks.evidence.queue import JobQueue
from tests.benchmarks.evidence.rows import ForeignRowsError, RowsFile
from tools import readme

MATCHED_ARMS = tuple(figures.ARMS_BESIDE)  # whose CPU time the baseline is given too
CONVERGING_ARMS, CONVERGING_SEEDS = ("baseline", "full"), 3
SECONDS_AN_EPOCH = 2.0  # CPU time of the baseline, roughly, for the plan that is printed
PREPARATION_SECONDS = 600  # CPU seconds for sets and SAN-PG, roughly


class Scale(NamedTuple):
    """How much is measured."""

    difficulties: tuple[str, ...]
    epochs: int
    seeds: int  # at most
    doublings: int  # at most
    minutes: float  # after which nothing is started
    results: Path


FULL = Scale(("hard", "normal"), 16, 5, 3, 100, figures.ROWS)
QUICK = Scale(("hard",), 10, 2, 0, 20, default_cache() / "quick.json")
CHOICES = FULL._replace(results=choices.CHOICES_ROWS)


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is missing, then print the figures and renew table and plot."""
    parser = _parser()
    asked = parser.parse_args(words)
    arms = asked.only.split(",") if asked.only else list(ARMS)
    if unknown := sorted(set(arms) - set(ARMS)):
        parser.error(f"no arm {unknown[0]!r}; there are {', '.join(ARMS)}")
    if asked.choices and (asked.quick or asked.only):
        parser.error("--choices takes neither --quick nor --only")
    if asked.jobs < 1:
        parser.error(f"--jobs {asked.jobs}: at least one process is needed")
    scale = CHOICES if asked.choices else QUICK if asked.quick else FULL
    known = choices.VARIANTS if asked.choices else ARMS
    kept = RowsFile(scale.results)
    if asked.anew:
        kept.drop(arms if asked.only else {row["arm"] for row in kept.rows})
    try:
        code = code_fingerprint()
        figures.check_rows(kept, code, known)
        with JobQueue(asked.jobs, kept, asked.cache, code=code, minutes=scale.minutes) as queue:
            if asked.choices:
                choices.measure_variants(queue)
            else:
                measure_arms(queue, scale, arms)
    except ForeignRowsError as error:
        print(error, file=sys.stderr)
        return 1
    if asked.quick:
        print(table.results_table(kept))
    else:
        if not asked.choices:
            measure_group("evidence")
        readme.main()
    return 0


def measure_arms(queue: JobQueue, scale: Scale, arms: Sequence[str]) -> None:
    """By difficulty equal epochs, then equal CPU time; then doublings, until that brings little."""
    print(
        plan_text(queue.missing_jobs(expected_jobs(scale, arms)), at_once=queue.jobs_at_once),
        flush=True,
    )
    for difficulty in scale.difficulties:
        part = scale._replace(difficulties=(difficulty,))
        queue.run_jobs(equal_epochs_jobs(part, arms))
        queue.run_jobs(equal_cpu_jobs(part, arms, figures.cpu_ratios(queue.kept)))
    for doubling in range(1, scale.doublings + 1):
        queue.run_jobs(doubling_jobs(scale, arms, doubling))
        if figures.has_converged(queue.kept, scale.difficulties[0], doubling):
            break


def expected_jobs(scale: Scale, arms: Sequence[str]) -> Iterator[Job]:
    """All jobs there may be, as far as can be known before any was run."""
    yield from equal_epochs_jobs(scale, arms)
    costs = {(d, arm): ARMS[arm].cost for d in scale.difficulties for arm in MATCHED_ARMS}
    yield from equal_cpu_jobs(scale, arms, costs)
    for doubling in range(1, scale.doublings + 1):
        yield from doubling_jobs(scale, arms, doubling)


def equal_epochs_jobs(scale: Scale, arms: Sequence[str]) -> Iterator[Job]:
    """Every arm for the same epochs; seed by seed, so that what is there can be compared."""
    for seed, difficulty in itertools.product(range(1, scale.seeds + 1), scale.difficulties):
        for name in arms:
            if seed <= ARMS[name].seeds:
                yield Job(name, difficulty, figures.EQUAL_EPOCHS, scale.epochs, seed)


def equal_cpu_jobs(
    scale: Scale, arms: Sequence[str], ratios: Mapping[tuple[str, str], float]
) -> Iterator[Job]:
    """The baseline for as many epochs as take it the CPU time of another arm.

    ratios: of an arm's CPU time to the baseline's, by difficulty and arm; those that are known.
    """
    for difficulty, other in itertools.product(scale.difficulties, MATCHED_ARMS):
        if {"baseline", other} <= set(arms) and (difficulty, other) in ratios:
            epochs = round(ratios[difficulty, other] * scale.epochs)
            for seed in range(1, min(scale.seeds, ARMS["baseline"].seeds) + 1):
                yield Job("baseline", difficulty, figures.MATCHED_CPU.format(other), epochs, seed)


def doubling_jobs(scale: Scale, arms: Sequence[str], doubling: int) -> Iterator[Job]:
    """Baseline and full SAN for 2, 4, 8 ... times the epochs, at the first difficulty."""
    for seed in range(1, min(scale.seeds, CONVERGING_SEEDS) + 1):
        for name in CONVERGING_ARMS:
            if name in arms:
                epochs = 2**doubling * scale.epochs
                yield Job(
                    name, scale.difficulties[0], figures.budget_of_doubling(doubling), epochs, seed
                )


def plan_text(jobs: Sequence[Job], *, at_once: int) -> str:
    """What is about to be measured and how long that takes, roughly."""
    seconds = sum(SECONDS_AN_EPOCH * ARMS[job.arm].cost * job.epochs for job in jobs)
    seconds += PREPARATION_SECONDS if jobs else 0
    return (
        f"at most {len(jobs)} runs are missing: {seconds:,.0f} CPU seconds, "
        f"{seconds / at_once / 60:.0f} minutes in {at_once} processes"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.evidence.reproduce")
    parser.description = __doc__
    parser.add_argument(
        "--quick", action="store_true", help="one difficulty, two seeds, few epochs"
    )
    parser.add_argument(
        "--choices", action="store_true", help="the variants of the recipe, on validation people"
    )
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument("--only", default="", metavar="ARM,ARM", help=", ".join(ARMS))
    parser.add_argument(
        "--anew", action="store_true", help="forget the rows there are of these arms"
    )
    parser.add_argument("--cache", type=Path, default=default_cache(), help="sets and SAN-PG")
    return parser


if __name__ == "__main__":
    sys.exit(main())
