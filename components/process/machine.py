"""What this machine offers, detected and never configured, and the work that is this pod's."""

import logging
import math
import os
from typing import TYPE_CHECKING

from components.process import gpu
from components.process.limits import cpu_quota, memory_limit
from components.process.torchrun import local_rank

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

# How many cores a pod was given; set by whoever compiled its pipeline with --cpu or --cpu-limit.
CORES_VARIABLE = "SAN_CPUS"


def core_count() -> int:
    """How many processor cores this process may use: those it may run on, within its quota.

    A quota of half a core more counts as a whole one: 1.5 is 2, 1.2 is 1. SAN_CPUS, which a pod
    may have, bounds it too.

    Raises:
        ValueError: SAN_CPUS is no whole number above 0.
    """
    most, quota = len(os.sched_getaffinity(0)), cpu_quota()
    if quota is not None:
        most = max(1, min(most, math.floor(quota + 0.5)))
    given = os.environ.get(CORES_VARIABLE, "")
    if not given:
        return most
    if not given.isdecimal() or int(given) == 0:
        raise ValueError(f"{CORES_VARIABLE} is {given!r}; it must be a number of cores, such as 4")
    return min(most, int(given))


def worker_count(*, bytes_each: int, bytes_beside: int) -> int:
    """How many processes to work in: one a core, or fewer where memory is limited; it is logged.

    Args:
        bytes_each: memory that one of them needs.
        bytes_beside: memory that this one needs, which hands out the work.
    """
    count, cores, limit = core_count(), core_count(), memory_limit()
    if limit is not None:
        count = max(1, min(cores, (limit - bytes_beside) // bytes_each))
    why = f" on {cores} cores (memory is limited)" if count < cores else ""
    needed = (bytes_beside + count * bytes_each) >> 20
    many = "process" if count == 1 else "processes"
    log.info("working in %d %s%s, with about %d MiB of memory in all", count, many, why, needed)
    return count


def device() -> "torch.device":
    """Where networks run: the GPU if there is one, else the processor.

    Processes that torchrun started take a GPU each.

    Raises:
        ValueError: there is a GPU that torch cannot use, or torchrun started more processes than
            there are GPUs.
    """
    import torch

    if not gpu.is_usable():
        return torch.device("cpu")
    number, there_are = local_rank(), torch.cuda.device_count()
    if number >= there_are:
        raise ValueError(f"process {number + 1} has no GPU: this machine has {there_are}")
    return torch.device("cuda", number)


def worker_of_pod(text: str) -> str:
    """A worker "i/n" as given; "/n" becomes "i/n" by the number Kubernetes gave this pod.

    Raises:
        ValueError: this is no pod of an indexed job.
    """
    if not text.startswith("/"):
        return text
    index = os.environ.get("JOB_COMPLETION_INDEX", "")
    if not index.isdecimal():
        raise ValueError(
            f"worker {text!r} takes its number from JOB_COMPLETION_INDEX, which is"
            f" {index or 'not set'}; give i/n, such as 0/2"
        )
    return index + text
