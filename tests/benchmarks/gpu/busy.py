"""The share of time in which a device computes, from the intervals that torch's profiler saw."""

import time
from collections.abc import Callable, Iterable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

Interval = tuple[float, float]  # begin and end, in microseconds

_COPIES = ("Memcpy", "Memset")  # as CUPTI names what is no computing


def busy_share(run: Callable[[], object], device: torch.device) -> float:
    """The share of a run's time in which the device computes at least one thing.

    Copies do not count. On a processor it is the share in which it is in an operator of torch.
    """
    on_gpu = device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    place = DeviceType.CUDA if on_gpu else DeviceType.CPU
    with profile(activities=[activity]) as seen:
        synchronise(device)
        started = time.perf_counter()
        run()
        synchronise(device)
        seconds = time.perf_counter() - started
    intervals = [
        (event.time_range.start, event.time_range.end)
        for event in seen.events()
        if event.device_type == place and not event.name.startswith(_COPIES)
    ]
    return covered(intervals) / 1e6 / seconds


def covered(intervals: Iterable[Interval]) -> float:
    """How much of the time line lies in at least one of the intervals."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
