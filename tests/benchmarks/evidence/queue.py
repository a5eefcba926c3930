"""Runs of arms side by side, a process a core; every finished one is kept at once."""

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from san_core.synthesis.workers import end_with_parent
from tests.benchmarks.evidence.arms import ARMS, Arm, Job, recipe_of_arm
from tests.benchmarks.evidence.data import rendered_set
from tests.benchmarks.evidence.rows import RowsFile, row_name
from tests.benchmarks.evidence.run import machine_and_torch, run_job
from tests.benchmarks.evidence.score import TESTS
from tests.benchmarks.evidence.starts import IDENTITY, NONE, OWN, seen_textures, trained_start
from tests.benchmarks.measuring import commit


class JobQueue:
    """Works off jobs in several processes of one thread each; rows that are there count as done."""

    def __init__(
        self,
        jobs_at_once: int,
        kept: RowsFile,
        cache: Path,
        *,
        code: str,
        minutes: float,
    ) -> None:
        self.kept, self.cache, self.code = kept, cache, code
        self.jobs_at_once = jobs_at_once
        self._deadline = time.monotonic() + 60 * minutes
        self._commit = commit()
        os.environ["OMP_NUM_THREADS"] = "1"  # the processes are started afresh and inherit it
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(jobs_at_once, context, initializer=end_with_parent)

    def __enter__(self) -> "JobQueue":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def missing_jobs(self, jobs: Iterable[Job]) -> list[Job]:
        """The jobs that have no row; for how many epochs a row was trained is its own affair."""
        names = ("arm", "difficulty", "budget", "seed")
        return [j for j in jobs if not self.kept.find(**{n: getattr(j, n) for n in names})]

    def finish(self, jobs: Iterable[Job], arms: Mapping[str, Arm] = ARMS) -> bool:
        """Run what is missing of the jobs; returns whether none is left."""
        wanted = list(jobs)
        self.run_jobs(wanted, arms)
        return not self.missing_jobs(wanted)

    def run_jobs(self, jobs: Iterable[Job], arms: Mapping[str, Arm] = ARMS) -> None:
        """Run what is missing of the jobs, in order; each row is kept as it is there.

        Raises:
            ForeignRowsError: there are rows of another machine, whose times cannot be compared.
        """
        missing = self.missing_jobs(jobs)
        self._prepare(missing, arms)
        waiting = iter(missing)
        running: set[Future[dict[str, Any]]] = set()
        while True:
            room = self.jobs_at_once - len(running)
            for job in itertools.islice(waiting, room if self._has_time_left() else 0):
                running.add(self._start(job, arms[job.arm]))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                self._add_row(future.result())
        left = len(list(waiting))
        if left:
            print(f"the time is up: {left} runs are left, the same command goes on", flush=True)

    def _prepare(self, jobs: Sequence[Job], arms: Mapping[str, Arm]) -> None:
        """Render, train and generate what jobs need, where the cache lacks it."""
        if not (jobs and self._has_time_left()):
            return
        for row in self.kept.rows[:1]:
            self.kept.check_value(row, "machine", row["machine"], machine_and_torch())
        asked = [(job, arms[job.arm], recipe_of_arm(arms[job.arm], job.epochs)) for job in jobs]
        sets, with_textures = set(), set()
        for job, arm, settings in asked:
            levels = [TESTS[test][0] or job.difficulty for test in job.tests]
            sets |= {(level, job.seed, settings.image_size) for level in (job.difficulty, *levels)}
            if arm.needs_pseudo:
                with_textures.add((job.difficulty, job.seed, settings.image_size))
        starts = {arm.start: settings for _, arm, settings in asked if arm.start != NONE}
        if IDENTITY in starts:  # which is given the time of SAN-PG
            starts = {OWN: starts[IDENTITY], **starts}
        self._wait_for(rendered_set, sorted(sets))
        for start, settings in starts.items():
            self._wait_for(trained_start, [(start, settings)])
        self._wait_for(seen_textures, sorted(with_textures))

    def _wait_for(self, make: Callable[..., object], asked: Sequence[tuple[Any, ...]]) -> None:
        for task in [self._pool.submit(make, self.cache, *each) for each in asked]:
            task.result()

    def _has_time_left(self) -> bool:
        return time.monotonic() < self._deadline

    def _start(self, job: Job, arm: Arm) -> Future[dict[str, Any]]:
        return self._pool.submit(run_job, job, arm, self.cache, code=self.code, commit=self._commit)

    def _add_row(self, row: dict[str, Any]) -> None:
        self.kept.add(row)
        found = ", ".join(f"{test} {each['mAP']:.1%}" for test, each in row["scores"].items())
        seconds = row["cpu_seconds"] + row["texture_cpu_seconds"]
        print(
            f"{row_name(row)}: {row['epochs']} epochs, {seconds:.0f} CPU seconds, mAP {found}",
            flush=True,
        )
