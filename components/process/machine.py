"""What this machine offers, detected and never configured, and the work that is this pod's."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from components.process.torchrun import local_rank

if TYPE_CHECKING:
    import torch

# What a container may use of the processor, in microseconds: "QUOTA PERIOD", or "max PERIOD".
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def core_count(cpu_max: Path = CPU_MAX) -> int:
    """How many processor cores this process may use: those it may run on, within its quota.

    cpu_max: the file of cgroup v2 that holds the quota; without it there is none.
    """
    most = len(os.sched_getaffinity(0))
    quota, _, period = cpu_max.read_text().partition(" ") if cpu_max.is_file() else ("max", "", "")
    return most if quota == "max" else max(1, min(most, int(quota) // int(period)))


def device() -> "torch.device":
    """Where networks run: the GPU if there is one, else the processor.

    Processes that torchrun started take a GPU each.

    Raises:
        ValueError: torchrun started more processes than there are GPUs.
    """
    import torch

    if not torch.cuda.is_available():
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
