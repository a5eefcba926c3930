"""The NVIDIA GPU of this machine: how it is detected, and why torch cannot use it.

An unused GPU would mean days of training on the CPU, so a step refuses to ignore one.
`components.process.machine` decides which GPU a process uses.
"""

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# The steps that use a GPU if there is one; they run in the gpu image.
GPU_STEPS = frozenset({"train_san_pg", "generate_textures", "train_san", "extract_features"})

DEVICE_NODES = Path("/dev")
# Files with the driver's version, in order of preference; containers see the machine's.
DRIVER_FILES = (Path("/sys/module/nvidia/version"), Path("/proc/driver/nvidia/version"))
# The oldest driver for Linux that supports a CUDA of this major version
# (docs.nvidia.com/cuda/cuda-toolkit-release-notes, "minor version compatibility").
OLDEST_DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}

HIDING_VARIABLE = "CUDA_VISIBLE_DEVICES"  # torch's own
HOW_TO_DO_WITHOUT = (
    f"--device cpu, or {HIDING_VARIABLE}= (set and empty) for all steps, computes on the CPU"
)


def sign_of_gpu(environment: Mapping[str, str] = os.environ) -> str | None:
    """The evidence of a GPU; None if there is none, or if the user hides it.

    CUDA_VISIBLE_DEVICES, empty or -1, hides it. A container engine and Kubernetes set
    NVIDIA_VISIBLE_DEVICES in containers that requested a GPU.
    """
    if environment.get(HIDING_VARIABLE, "0").strip() in ("", "-1"):
        return None
    nodes = sorted(DEVICE_NODES.glob("nvidia[0-9]*"))
    if nodes:
        return str(nodes[0])
    asked = environment.get("NVIDIA_VISIBLE_DEVICES", "")
    return None if asked in ("", "void", "none") else f"NVIDIA_VISIBLE_DEVICES={asked}"


def is_usable() -> bool:
    """Whether torch can use a GPU of this machine.

    Raises:
        ValueError: there is one, and torch cannot use it.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the error below replaces torch's warnings
        works = torch.cuda.is_available()
    sign = None if works else sign_of_gpu()
    if sign is not None:
        raise ValueError(f"a GPU is here ({sign}), but {_why_not()}; {HOW_TO_DO_WITHOUT}")
    return works


@contextmanager
def hide_gpus(hidden: bool) -> Iterator[None]:
    """Hide GPUs from torch within the block, if `hidden`; no effect once torch uses one."""
    former = os.environ.get(HIDING_VARIABLE)
    if not hidden:
        yield
        return
    os.environ[HIDING_VARIABLE] = ""
    try:
        yield
    finally:
        del os.environ[HIDING_VARIABLE]
        if former is not None:
            os.environ[HIDING_VARIABLE] = former


def check_has_kernels(place: "torch.device") -> None:
    """Raise ValueError unless this build of torch has code for the GPU's generation."""
    import torch

    capability, built_for = torch.cuda.get_device_capability(place), torch.cuda.get_arch_list()
    if not _has_kernels(capability, built_for):
        raise ValueError(
            f"{torch.cuda.get_device_name(place)} is a GPU of generation sm_{_digits(capability)},"
            f" but torch {torch.__version__} is built for {' '.join(built_for)}; use a build for"
            f" this GPU (TORCH_CUDA in docker/README.md); {HOW_TO_DO_WITHOUT}"
        )


def describe_gpu(place: "torch.device") -> str:
    """Name and memory of a GPU, the machine's driver and the CUDA that torch is built for."""
    import torch

    memory = torch.cuda.get_device_properties(place).total_memory / 2**30
    return (
        f"{place}, {torch.cuda.get_device_name(place)} with {memory:.1f} GiB,"
        f" driver {driver_version() or 'unknown'}, CUDA {torch.version.cuda}"
        f" of torch {torch.__version__}"
    )


def driver_version(files: Sequence[Path] | None = None) -> str | None:
    """The version of NVIDIA's driver, such as "580.65.06"; None if none is loaded."""
    for file in DRIVER_FILES if files is None else files:
        if file.is_file():
            found = re.search(r"\b\d+\.\d+(\.\d+)?\b", file.read_text())
            if found:
                return found[0]
    return None


def _why_not() -> str:
    """The reason why torch cannot use the GPU, and what would help."""
    import torch

    build, driver = torch.version.cuda, driver_version()
    if build is None:
        return f"torch {torch.__version__} is built without CUDA; install a build with CUDA"
    needed = OLDEST_DRIVERS.get(int(build.partition(".")[0]))
    asks = f"CUDA {build} of torch {torch.__version__} needs {needed or 'a driver'} or newer"
    if driver is None:
        return (
            f"no driver was found, and {asks}; install it on the machine, and for containers the"
            " NVIDIA Container Toolkit (docker run --gpus all)"
        )
    if needed and _as_numbers(driver) < _as_numbers(needed):
        return (
            f"its driver is {driver}, and {asks}; update the driver, or use a build of torch for an"
            " older CUDA (TORCH_CUDA in docker/README.md)"
        )
    return f"torch cannot use it with driver {driver} ({asks}): {_reason_of_torch()}"


def _reason_of_torch() -> str:
    """Torch's own error when it initialises a GPU."""
    import torch

    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().partition("\n")[0]
    return f"it finds {torch.cuda.device_count()} GPUs"


def _has_kernels(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Whether a build supports a GPU: code runs on its generation, from its minor version on.

    built_for: names such as "sm_86", and "compute_90": which is compiled for any newer GPU.
    """
    for kind, number in (name.split("_") for name in built_for):
        major, minor = int(number.rstrip("af")[:-1]), int(number.rstrip("af")[-1])
        if kind == "compute" and (major, minor) <= capability:
            return True
        if major == capability[0] and minor <= capability[1]:
            return True
    return not built_for


def _digits(capability: tuple[int, int]) -> str:
    return "".join(map(str, capability))


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
