"""A check that torch.compile works here: it compiles C for a GPU and C++ for a CPU."""

import os
import shutil
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# By kind of device: the language, the variable that names its compiler, and the compilers used if
# it is not set (triton/runtime/build.py; torch/_inductor/config.py, cpp.cxx).
_COMPILERS = {"cuda": ("C", "CC", ("gcc", "clang")), "cpu": ("C++", "CXX", ("g++",))}


def check_compiler(place: "torch.device") -> None:
    """Check that a network can be compiled for a device.

    Raises:
        ValueError: there is no compiler, or Python's headers, which it needs, are missing.
    """
    language, variable, usual = _COMPILERS[place.type]
    named = os.environ.get(variable, "").split()[:1]  # a compiler may be followed by options
    if not any(map(shutil.which, named or usual)):
        what = f"{variable}={named[0]}" if named else " or ".join(usual)
        raise ValueError(
            f"compiled=true needs a {language} compiler, and {what} was not found; the gpu image"
            f" has one; install one, name it in {variable}, or set compiled=false"
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise ValueError(
            f"compiled=true needs Python's headers, and {header} was not found; the gpu image has"
            " them; install them (python3-dev), or set compiled=false"
        )
