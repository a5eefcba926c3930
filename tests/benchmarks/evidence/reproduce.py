"""`make reproduce`: measure whether texture supervision pays.

Every arm is trained on rendered people, several seeds each, and judged on people it has never
seen. A finished run is a row in tests/results/evidence_rows.json at once, and what is there is not
measured again: it may be stopped at any time and goes on later. ARGS=--anew forgets what is there,
ARGS=--quick takes two seeds and few epochs, which are not kept with the results, ARGS=--choices the
variants among which the recipe `synthetic` was chosen, and ARGS=--large a larger encoder, as many
seeds as there is time for. Two at a time would forget each other's rows.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.__main__ import measure_group as measure_group
from tests.benchmarks.evidence import choices, figures, plan
from tests.benchmarks.evidence.arms import ARMS, BASELINE, LARGE_ARMS, Arm
from tests.benchmarks.evidence.code import code_fingerprint
from tests.benchmarks.evidence.paper import table
from tests.benchmarks.evidence.plan import Scale
from tests.benchmarks.evidence.queue import JobQueue
from tests.benchmarks.evidence.rows import ForeignRowsError, RowsFile
from tests.benchmarks.evidence.run import default_cache
from tools import readme

SECONDS_AN_EPOCH = 2.0  # CPU time of the baseline, roughly, for the plan that is printed


class Sitting(NamedTuple):
    """What one command measures."""

    arms: Mapping[str, Arm]
    scale: Scale
    minutes: float  # after which nothing is started
    results: Path


SITTINGS = {
    "": Sitting(ARMS, Scale(), 240, figures.ROWS),
    "quick": Sitting(ARMS, Scale(2, 10, 3), 30, default_cache() / "quick.json"),
    "choices": Sitting(choices.VARIANTS, Scale(), 120, choices.CHOICES_ROWS),
    "large": Sitting(LARGE_ARMS, Scale(epochs=16, timed_epochs=3), 600, figures.LARGE_ROWS),
}


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is missing, then print the figures and renew table and plot."""
    parser = _parser()
    asked = parser.parse_args(words)
    if asked.jobs < 1:
        parser.error(f"--jobs {asked.jobs}: at least one process is needed")
    sitting = SITTINGS[asked.sitting]
    kept = RowsFile(sitting.results)
    if asked.anew:
        kept.rows = []
    try:
        code = code_fingerprint()
        figures.check_rows(kept, code, sitting.arms)
        with JobQueue(asked.jobs, kept, asked.cache, code=code, minutes=sitting.minutes) as queue:
            _measure(queue, asked.sitting)
    except ForeignRowsError as error:
        print(error, file=sys.stderr)
        return 1
    if asked.sitting == "quick":
        print(table.results_table(kept))
        return 0
    if asked.sitting != "choices":
        measure_group("evidence")
    readme.main()
    return 0


def _measure(queue: JobQueue, sitting: str) -> None:
    asked = SITTINGS[sitting]
    if sitting == "choices":
        choices.measure_variants(queue)
    elif sitting == "large":
        measure_large(queue, asked.scale)
    else:
        measure_arms(queue, asked.scale)


def measure_arms(queue: JobQueue, scale: Scale) -> None:
    """What decides first; then what SAN-PG's time, other people, equal epochs and time change."""
    kept = queue.kept
    print(plan_text(plan.parts(kept, scale), at_once=queue.jobs_at_once), flush=True)
    if not queue.finish(plan.timing_jobs(scale)):
        return
    for part in (
        plan.decision_jobs(kept, scale),
        plan.counted_jobs(kept, scale),
        plan.gap_jobs(kept, scale),
        plan.continued_jobs(scale),
    ):
        if not queue.finish(part):
            return
    names = (BASELINE, *figures.best_arms(kept, plan.LONG_ARMS))
    for number, epochs in enumerate(plan.LONG_EPOCHS):
        if not queue.finish(plan.long_jobs(kept, names, epochs, scale)):
            return
        if number and figures.has_converged(kept, number):
            return


def measure_large(queue: JobQueue, scale: Scale) -> None:
    """The arms of the larger encoder, seed by seed."""
    arms = LARGE_ARMS
    first = scale._replace(seeds=1)  # whose time is taken, since an epoch takes minutes
    if queue.finish(plan.timing_jobs(first, arms), arms):
        queue.finish(plan.decision_jobs(queue.kept, scale, arms), arms)


def plan_text(parts: Sequence[plan.Part], *, at_once: int) -> str:
    """What is about to be measured and how long that takes, roughly."""
    lines = [
        f"{part.words}: {part.done} of {part.runs} runs are there, "
        f"{SECONDS_AN_EPOCH * part.epochs_left:,.0f} CPU seconds to come"
        for part in parts
    ]
    seconds = SECONDS_AN_EPOCH * sum(part.epochs_left for part in parts)
    lines.append(
        f"at most {seconds / 3600:.1f} CPU hours and some minutes for sets and SAN-PG: "
        f"{seconds / at_once / 60:.0f} minutes in {at_once} processes"
    )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.evidence.reproduce")
    parser.description = __doc__
    sitting = parser.add_mutually_exclusive_group()
    for name, text in {
        "quick": "two seeds, few epochs",
        "choices": "the variants of the recipe, on validation people",
        "large": "ResNet-18 in images of 128x64",
    }.items():
        sitting.add_argument(
            f"--{name}", dest="sitting", action="store_const", const=name, help=text
        )
    parser.set_defaults(sitting="")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument("--anew", action="store_true", help="forget the rows there are")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="sets and networks")
    return parser


if __name__ == "__main__":
    sys.exit(main())
