"""Which arithmetic training uses: full, or mixed where the machine computes it natively."""

from typing import Literal, get_args

import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]

_HALF_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_precision(name: str, device: torch.device) -> Precision:
    """The precision of that name, once it is known that the device computes it.

    Raises:
        ValueError: as `autocast_type`.
    """
    precision: Precision = name  # type: ignore[assignment]  # checked by the next line
    autocast_type(precision, device)
    return precision


def autocast_type(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The type for autocast, None for full precision.

    "auto" is mixed precision on CUDA (bfloat16 where it is native, else float16) and full precision
    elsewhere. NOTE not tested on a GPU.

    Raises:
        ValueError: no such precision, or the device only emulates it: processors without bfloat16
            instructions are 4 to 7 times slower with it.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r} is none of {', '.join(get_args(Precision))}")
    native = _native_half_precisions(device)
    if precision == "auto":
        chosen = native[0] if device.type == "cuda" else "float32"
        return _HALF_DTYPES.get(chosen)
    if precision != "float32" and precision not in native:
        raise ValueError(
            f"precision {precision} is not native on this {device.type}, and slower than float32; "
            f"native are {', '.join([*native, 'float32'])}"
        )
    return _HALF_DTYPES.get(precision)


def _native_half_precisions(device: torch.device) -> list[str]:
    """The half precisions a device has instructions for, the better first."""
    if device.type == "cuda":
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ["bfloat16", "float16"] if bfloat16 else ["float16"]
    able = torch.cpu.get_capabilities()
    return ["bfloat16"] if able.get("avx512_bf16") or able.get("amx_bf16") else []
