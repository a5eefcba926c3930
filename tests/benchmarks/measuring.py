"""How figures are measured: CPU time, threads pinned, rivals in turns, medians; and memory."""

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).parents[2]


def machine_facts() -> dict[str, Any]:
    """What is measured on: processor, cores, Python."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    return {
        "cpu": cpu or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit at hand, marked if other files differ from it than those that figures end up in.

    Empty where there is no git.
    """
    git = ("git", "-C", str(ROOT))
    found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if found.returncode:
        return ""
    written = (":!tests/results", ":!*.md")
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ".", *written])
    return found.stdout.strip() + ("-dirty" if changed.returncode else "")


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS and OpenMP on one thread."""
    with threadpool_limits(1):
        yield


def median_cpu_seconds(*rivals: Callable[[], object], times: int = 9) -> list[float]:
    """The median CPU time of each; after a warm-up they take turns."""
    for rival in rivals:
        rival()
    measured = [[_cpu_time(rival) for rival in rivals] for _ in range(times)]
    return np.median(measured, axis=0).tolist()


def least_cpu_seconds(*rivals: Callable[[], object], times: int = 9) -> list[float]:
    """The least CPU time of each, for work of the kernel, to which others' work only adds."""
    return np.min([[_cpu_time(rival) for rival in rivals] for _ in range(times)], axis=0).tolist()


def _cpu_time(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def least_wall_seconds(*rivals: Callable[[], object], times: int = 25) -> list[float]:
    """The least wall-clock time of each, since other work on the machine only adds to it."""
    return np.min([[_wall_time(rival) for rival in rivals] for _ in range(times)], axis=0).tolist()


def _wall_time(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


class StepCost(NamedTuple):
    """Seconds; CPU time is that of all processes."""

    wall: float
    cpu: float


def run_step(*words: str) -> StepCost:
    """Run a step by its command, and take the time it takes."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "components", *words]
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return StepCost(time.monotonic() - started, cpu)


def peak_mib(code: str) -> float:
    """How far memory rises in a process of its own while `run()` runs, which `code` defines.

    `code` also makes what is there before, and calls `run` once on something small, so that
    libraries have their buffers.
    """
    measure = """
import ctypes, gc

def resident(field):
    text = open("/proc/self/status").read()
    return int(text.split(field + ":")[1].split()[0]) / 1024

gc.collect()
ctypes.CDLL(None).malloc_trim(0)  # what was freed is given back, or its reuse would hide the rise
open("/proc/self/clear_refs", "w").write("5")  # the peak is counted from here
before = resident("VmRSS")
run()
print(resident("VmHWM") - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code + measure],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])
