"""What this machine offers: detected, never configured."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0))


def device() -> "torch.device":
    """Where networks run: the GPU if there is one, else the processor."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def worker(text: str) -> str:
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
