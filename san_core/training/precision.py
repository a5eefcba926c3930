"""Which arithmetic training uses: full, or mixed where the machine computes it natively.

On GPUs torch's convolutions use TF32 (10 of 23 mantissa bits) for float32 by default. Here float32
means float32, and TF32 is a separate choice.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch

Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]

_HALF_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# The types for autocast by the names that states tell; None for full precision.
AUTOCAST_TYPES = {"torch.float32": None, **{str(half): half for half in _HALF_DTYPES.values()}}


def resolve_precision(name: str, device: torch.device) -> Precision:
    """The precision of that name, after a check that the device supports it.

    Raises:
        ValueError: as in `autocast_type`.
    """
    precision: Precision = name  # type: ignore[assignment]  # checked by the next line
    autocast_type(precision, device)
    return precision


def autocast_type(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The type for autocast, None for full precision.

    "auto" is mixed precision on CUDA (bfloat16 where it is native, else float16) and full precision
    elsewhere. With "tf32" numbers stay float32; see `convolution_arithmetic`. NOTE not tested on a
    GPU.

    Raises:
        ValueError: no such precision, or the device only emulates it: processors without bfloat16
            instructions are 4 to 7 times slower with it.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r} is not one of {', '.join(get_args(Precision))}")
    if precision == "float32":
        return None
    native = _native_precisions(device)
    if precision == "auto":
        chosen = native[0] if device.type == "cuda" else "float32"
        return _HALF_DTYPES.get(chosen)
    if precision not in native:
        raise ValueError(
            f"precision {precision} is not native on this {device.type} and slower than float32; "
            f"native are {', '.join([*native, 'float32'])}"
        )
    return _HALF_DTYPES.get(precision)


@contextmanager
def convolution_arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Within the block, convolutions of float32 numbers use TF32 if that is the precision.

    Matrix products of float32 numbers, such as the distances of the triplet losses, never do.
    """
    if device.type != "cuda":
        yield
        return
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # made at import
    products = torch.backends.cuda.matmul
    before = convolutions.fp32_precision, products.fp32_precision
    convolutions.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    products.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision, products.fp32_precision = before


@contextmanager
def repeatable_arithmetic(*, wanted: bool) -> Iterator[None]:
    """Within the block, every sum has one order, where torch can; NOTE not tested on a GPU.

    cuBLAS does so where CUBLAS_WORKSPACE_CONFIG is set before its first product, such as ":4096:8".

    Raises:
        ValueError: the device has no deterministic version of an operation.
    """
    if not wanted:
        yield
        return
    memory: Any = torch.utils.deterministic  # its settings are read at import
    cudnn = torch.backends.cudnn
    enabled = torch.are_deterministic_algorithms_enabled()
    before = memory.fill_uninitialized_memory, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory, cudnn.benchmark = False, False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error).lower():
            raise
        first = str(error).splitlines()[0]
        raise ValueError(f"the recipe says deterministic=true, but torch: {first}") from error
    finally:
        torch.use_deterministic_algorithms(enabled)
        memory.fill_uninitialized_memory, cudnn.benchmark = before


def _native_precisions(device: torch.device) -> list[str]:
    """The precisions beside float32 that a device has instructions for, the best first."""
    if device.type == "cuda":
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)  # and so is TF32
        return ["bfloat16", "float16", "tf32"] if bfloat16 else ["float16"]
    able = torch.cpu.get_capabilities()
    return ["bfloat16"] if able.get("avx512_bf16") or able.get("amx_bf16") else []
