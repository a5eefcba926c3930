"""The number of threads of the libraries that compute: torch, OpenMP, MKL and OpenBLAS.

They read it from the environment once, when they are loaded. By default they start one thread per
core of the machine, even if a container may use fewer cores or torchrun has started several
processes. Then threads wait for cores, and other threads wait for them.
"""

import os
from collections.abc import Mapping, MutableMapping

from components.process.machine import core_count
from components.process.torchrun import local_process_count

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Waiting threads release their core after about half a millisecond, not after seconds. Ten times as
# long costs a tenth of the speed beside other work; a tenth as long costs as much on a quiet
# machine.
SPIN_VARIABLES = {"GOMP_SPINCOUNT": "10000"}


def limit_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Give every library that is not loaded yet as many threads as this process may use.

    A number that is already set is kept, and all libraries use it.

    Raises:
        ValueError: the number that is set is invalid.
    """
    threads = _chosen_threads(environment) or max(1, core_count() // local_process_count())
    environment.update(thread_limits(threads))
    if "OMP_WAIT_POLICY" not in environment:
        for name, value in SPIN_VARIABLES.items():
            environment.setdefault(name, value)


def thread_limits(threads: int) -> dict[str, str]:
    """The environment variables that give every library of a step this number of threads."""
    return dict.fromkeys(VARIABLES, str(threads))


def _chosen_threads(environment: Mapping[str, str]) -> int | None:
    """The number of threads that the environment sets; None if it sets none.

    NOTE torchrun itself sets OMP_NUM_THREADS=1 if it is not set and several processes start. So
    under torchrun a 1 counts only if MKL_NUM_THREADS is 1 too.
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
