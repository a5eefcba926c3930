"""How many threads the libraries that compute take: torch, OpenMP, MKL and OpenBLAS.

They read it from the environment, once, when they are loaded. Left alone they take a thread for
each core of the machine, whatever a container may use of it and however many processes torchrun
has started there: threads that wait for one another then wait for a core.
"""

import os
from collections.abc import Mapping, MutableMapping

from components.process.machine import core_count
from components.process.torchrun import local_process_count

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Threads that wait give the core back after about half a millisecond, not after seconds. Ten times
# as long costs a tenth of the speed beside other work; a tenth of it, as much on a quiet machine.
SPIN_VARIABLES = {"GOMP_SPINCOUNT": "10000"}


def limit_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let every library that is not loaded yet take as many threads as this process may use.

    A number that is set is kept, and all libraries take that one.

    Raises:
        ValueError: a number of threads is set that is none.
    """
    threads = _chosen_threads(environment) or max(1, core_count() // local_process_count())
    environment.update(thread_limits(threads))
    if "OMP_WAIT_POLICY" not in environment:
        for name, value in SPIN_VARIABLES.items():
            environment.setdefault(name, value)


def thread_limits(threads: int) -> dict[str, str]:
    """The environment in which every library of a step takes so many threads."""
    return dict.fromkeys(VARIABLES, str(threads))


def _chosen_threads(environment: Mapping[str, str]) -> int | None:
    """The number of threads that somebody set; None where nobody did.

    NOTE torchrun sets OMP_NUM_THREADS=1 itself where it is not set and it starts several processes:
    one alone is not taken for a choice there, unless MKL_NUM_THREADS says so too.
    """
    given = {name: environment[name] for name in VARIABLES if environment.get(name)}
    if local_process_count() > 1 and given == {"OMP_NUM_THREADS": "1"}:
        return None
    for name, text in given.items():
        first = text.partition(",")[0].strip()  # OpenMP takes a list: of nested levels
        if not first.isdecimal() or int(first) == 0:
            raise ValueError(f"{name} is {text!r}; it must be a number of threads, such as 2")
        return int(first)
    return None
