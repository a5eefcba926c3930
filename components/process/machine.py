"""The cores, processes, GPU and Python of this machine, and the worker number of a pod."""

import logging
import math
import os
import shlex
import shutil
import sys
from typing import TYPE_CHECKING

from components.process import gpu
from components.process.limits import cpu_quota, memory_limit
from components.process.torchrun import local_rank

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

# The number of cores of a pod; set in a pipeline compiled with --cpu or --cpu-limit.
CORES_VARIABLE = "SAN_CPUS"


def core_count() -> int:
    """The number of CPU cores this process may use: those it may run on, within its quota.

    A quota is rounded, half a core up: 1.5 is 2, 1.2 is 1. SAN_CPUS, if set, is a limit too.

    Raises:
        ValueError: SAN_CPUS is not a whole number above 0.
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
    """The number of worker processes: one per core, or fewer if memory is limited. Logs it.

    Args:
        bytes_each: memory that a worker needs.
        bytes_beside: memory that this process needs, which distributes the work.
    """
    count, cores, limit = core_count(), core_count(), memory_limit()
    if limit is not None:
        count = max(1, min(cores, (limit - bytes_beside) // bytes_each))
    why = f" on {cores} cores (memory is limited)" if count < cores else ""
    needed = (bytes_beside + count * bytes_each) >> 20
    many = "process" if count == 1 else "processes"
    log.info("working in %d %s%s, with about %d MiB of memory in total", count, many, why, needed)
    return count


def device() -> "torch.device":
    """The device of networks: the GPU if there is one, else the CPU.

    Each process of torchrun uses a GPU of its own.

    Raises:
        ValueError: torch cannot use the GPU, or torchrun started more processes than there are
            GPUs.
    """
    import torch

    if not gpu.is_usable():
        return torch.device("cpu")
    number, there_are = local_rank(), torch.cuda.device_count()
    if number >= there_are:
        raise ValueError(f"process {number + 1} has no GPU: this machine has {there_are}")
    return torch.device("cuda", number)


def worker_of_pod(text: str) -> str:
    """A worker "i/n"; "/n" becomes "i/n" with the index that Kubernetes gave this pod.

    Raises:
        ValueError: this is not a pod of an indexed Job.
    """
    if not text.startswith("/"):
        return text
    index = os.environ.get("JOB_COMPLETION_INDEX", "")
    if not index.isdecimal():
        raise ValueError(
            f"worker {text!r} reads its number from JOB_COMPLETION_INDEX, which is"
            f" {index or 'not set'}; give i/n, such as 0/2"
        )
    return index + text


def shell_command(*words: str) -> str:
    """A command of this Python, to copy into a shell.

    words: those after the interpreter, which is `python` if the shell finds this one by that name,
        else its path, relative if it lies below the working directory.
    """
    return shlex.join([_interpreter(), *words])


def _interpreter() -> str:
    if shutil.which("python") == sys.executable:
        return "python"
    relative = os.path.relpath(sys.executable)
    return sys.executable if relative.startswith("..") else relative
