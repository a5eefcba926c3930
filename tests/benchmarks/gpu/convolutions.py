"""The limit of a training step: its convolutions alone, forward and backward, in plain torch.

A step is run once and every call of a convolution is written down; then the same calls are made
with random tensors that lie on the device already. Nothing else is computed, read or waited for.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from tests.benchmarks.gpu.busy import synchronise

_CONVOLUTIONS = (
    torch.ops.aten.convolution.default,
    torch.ops.aten.convolution_backward.default,
)


@dataclass(frozen=True)
class TensorKind:
    """What decides how fast a convolution of a tensor is."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class ConvolutionCall(NamedTuple):
    """A call of torch's, its tensors told by their kinds."""

    operator: Any
    arguments: tuple[Any, ...]


class _Recorder(TorchDispatchMode):
    """Counts calls of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[ConvolutionCall] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _CONVOLUTIONS:
            told = tree_map_only(torch.Tensor, _kind, args)
            self.calls[ConvolutionCall(func, _hashable(told))] += 1
        return func(*args, **(kwargs or {}))


def record_convolutions(run: Callable[[], object]) -> Counter[ConvolutionCall]:
    """The convolutions of a run, backward ones among them, and how often each is called."""
    with _Recorder() as recorder:
        run()
    return recorder.calls


def convolutions_per_second(
    calls: Counter[ConvolutionCall], device: torch.device, *, seconds: float, precision: str
) -> float:
    """How often a second all of these calls can be made; measured for about so many seconds."""
    tensors: dict[TensorKind, torch.Tensor] = {}

    def tensor(kind: TensorKind) -> torch.Tensor:
        if kind not in tensors:
            made = torch.empty_strided(kind.shape, kind.stride, dtype=kind.dtype, device=device)
            tensors[kind] = made.normal_()
        return tensors[kind]

    ready = [
        (call.operator, tree_map_only(TensorKind, tensor, call.arguments))
        for call in calls.elements()
    ]

    def run() -> None:
        for operator, arguments in ready:
            operator(*arguments)

    with torch.no_grad(), _fastest_convolutions(precision):
        return runs_per_second(run, device, seconds=seconds)


def runs_per_second(run: Callable[[], object], device: torch.device, *, seconds: float) -> float:
    """How often a second it runs, after a warm-up; measured for about so many seconds."""
    run()
    synchronise(device)
    done, started = 0, time.perf_counter()
    while done == 0 or time.perf_counter() - started < seconds:
        run()
        synchronise(device)
        done += 1
    return done / (time.perf_counter() - started)


@contextmanager
def _fastest_convolutions(precision: str) -> Iterator[None]:
    """Let cuDNN try its ways; float32 numbers are cut to TF32 if that is the precision."""
    convolutions = torch.backends.cudnn.conv
    before = torch.backends.cudnn.benchmark, convolutions.fp32_precision
    torch.backends.cudnn.benchmark = True
    convolutions.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark, convolutions.fp32_precision = before


def _kind(tensor: torch.Tensor) -> TensorKind:
    return TensorKind(tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _hashable(value: Any) -> Any:
    """Lists as tuples."""
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value
