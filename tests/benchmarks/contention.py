"""What the number of threads that a step takes by itself is worth, alone and beside other work.

Images a second of training steps, in processes that take their threads as `python -m components`
does; the settings take turns, and the medians are compared.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from components.command.code import ROOT
from components.process.compute_threads import SPIN_VARIABLES, VARIABLES, limit_threads
from tests.benchmarks.figure import Figure

ROUNDS = 3
SECONDS = 8.0  # of training in each process
BUSY_PROCESSES = 2
DEFAULT: dict[str, str] = {}
ONE, TWO = {"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "2"}
SPINNING = {"OMP_WAIT_POLICY": "active"}  # threads that wait never give the core back


def figures() -> Iterator[Figure]:
    """The ratios of the default to threads that are asked for."""
    default, one, two, spinning = _median_rates(DEFAULT, ONE, TWO, SPINNING)
    yield Figure("training.default_vs_best_threads", default / max(one, two), "ratio")
    yield Figure("training.spinning_vs_default", spinning / default, "ratio")
    with _busy_processes():
        default, one = _median_rates(DEFAULT, ONE)
    yield Figure("training.contended_vs_one_thread", default / one, "ratio")


def _median_rates(*settings: Mapping[str, str]) -> list[float]:
    rates = [[_images_per_second(one) for one in settings] for _ in range(ROUNDS)]
    return [statistics.median(taken) for taken in zip(*rates, strict=True)]


def _images_per_second(settings: Mapping[str, str]) -> float:
    """Of a process that has these settings and no others of threads."""
    ours = {*VARIABLES, *SPIN_VARIABLES, "OMP_WAIT_POLICY"}
    env = {name: value for name, value in os.environ.items() if name not in ours}
    command = [sys.executable, "-m", "tests.benchmarks.contention"]
    done = subprocess.run(
        command, cwd=ROOT, env={**env, **settings}, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@contextmanager
def _busy_processes() -> Iterator[None]:
    """Within the block other processes use all the time they get."""
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(BUSY_PROCESSES)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Train on one batch for some seconds; print images a second."""
    limit_threads()
    from tests.benchmarks.groups.training import demo_step

    work, images = demo_step()
    work()  # warms up
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        work()
        steps += 1
    print(images * steps / (time.perf_counter() - started))


if __name__ == "__main__":
    main()
