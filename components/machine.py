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
