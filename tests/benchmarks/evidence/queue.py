"""Runs of arms side by side, a process a core; every finished one is kept at once."""

import itertools
import multiprocessing
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from san_core.synthesis.workers import end_with_parent
from tests.benchmarks.evidence.arms import (
    ARMS,
    Arm,
    Job,
    machine_and_torch,
    recipe_of_generator,
    run_job,
)
from tests.benchmarks.evidence.data import rendered_set, trained_generator
from tests.benchmarks.evidence.rows import RowsFile, row_name
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
        """The jobs that have no row; of matched CPU time the epochs are those of the first rows."""
        names = ("arm", "difficulty", "budget", "seed", "split")
        return [j for j in jobs if not self.kept.find(**{n: getattr(j, n) for n in names})]

    def run_jobs(self, jobs: Iterable[Job], arms: Mapping[str, Arm] = ARMS) -> None:
        """Run what is missing of the jobs, in order; each row is kept as it is there.

        Raises:
            ForeignRowsError: there are rows of another machine, whose times cannot be compared.
        """
        missing = self.missing_jobs(jobs)
        self._prepare(missing, with_generator=any(arms[job.arm].uses_generator for job in missing))
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

    def _prepare(self, jobs: Sequence[Job], *, with_generator: bool) -> None:
        """Render the sets of jobs, and train SAN-PG for them, where the cache lacks either."""
        if not (jobs and self._has_time_left()):
            return
        for row in self.kept.rows[:1]:
            self.kept.check_value(row, "machine", row["machine"], machine_and_torch())
        sets = sorted({(job.difficulty, job.seed) for job in jobs})
        tasks = [self._pool.submit(rendered_set, self.cache, *each) for each in sets]
        if with_generator:
            made_by = self._pool.submit(trained_generator, self.cache, recipe_of_generator())
            made_by.result()
        for task in tasks:
            task.result()

    def _has_time_left(self) -> bool:
        return time.monotonic() < self._deadline

    def _start(self, job: Job, arm: Arm) -> Future[dict[str, Any]]:
        return self._pool.submit(run_job, job, arm, self.cache, code=self.code, commit=self._commit)

    def _add_row(self, row: dict[str, Any]) -> None:
        self.kept.add(row)
        print(
            f"{row_name(row)}: mAP {row['mAP']:.1%}, rank-1 {row['rank1']:.1%}, "
            f"{row['cpu_seconds']:.0f} CPU seconds",
            flush=True,
        )
