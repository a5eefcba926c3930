"""The first line of a step: its device and its limits."""

import logging
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

from components.process import gpu
from components.process.limits import memory_limit
from components.process.machine import core_count, device
from components.process.torchrun import local_process_count

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def log_start(step: str, *, precision: str = "float32") -> None:
    """Log where a step computes: device, precision, threads, processes, memory limit.

    precision: the step's parameter; for steps that compute with torch.

    Raises:
        ValueError: there is a GPU that cannot be used.
    """
    by_torch = step in gpu.GPU_STEPS and find_spec("torch") is not None
    where = _describe_torch(precision) if by_torch else _describe_processor()
    count, limit = local_process_count(), memory_limit()
    if count > 1:
        where += f"; one of {count} processes"
    if limit is not None:
        where += f"; memory limited to {limit / 2**30:.1f} GiB"
    log.info("%s computes on %s", step, where)


def _describe_torch(precision: str) -> str:
    import torch

    place = device()
    if place.type == "cuda":
        gpu.check_has_kernels(place)
        where = gpu.describe_gpu(place)
    else:
        where = f"the processor (no GPU found or requested), torch {torch.__version__}"
    arithmetic = _automatic_precision(place) if precision == "auto" else precision
    return f"{where}; {arithmetic}; {_counted_threads(torch.get_num_threads())}"


def _automatic_precision(place: "torch.device") -> str:
    from san_core.training.precision import autocast_type

    return str(autocast_type("auto", place) or "float32").removeprefix("torch.")


def _describe_processor() -> str:
    return (
        f"the processor; {_counted_threads(int(os.environ.get('OMP_NUM_THREADS', core_count())))}"
    )


def _counted_threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"
