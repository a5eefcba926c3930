"""Whether torch.compile can work here: for a GPU it compiles C, for a processor C++."""

import os
import shutil
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# By the kind of device: the language, the variable that names its compiler, and those that are
# taken where it is not set (triton/runtime/build.py; torch/_inductor/config.py, cpp.cxx).
_COMPILERS = {"cuda": ("C", "CC", ("gcc", "clang")), "cpu": ("C++", "CXX", ("g++",))}


def check_compiler(place: "torch.device") -> None:
    """Refuse to compile a network for a device where nothing here can.

    Raises:
        ValueError: there is no compiler, or Python's headers are missing, which it needs.
    """
    language, variable, usual = _COMPILERS[place.type]
    named = os.environ.get(variable, "").split()[:1]  # a compiler may come with words of its own
    if not any(map(shutil.which, named or usual)):
        what = f"{variable}={named[0]}" if named else " or ".join(usual)
        raise ValueError(
            f"compiled needs a {language} compiler, and {what} is not here: the gpu image has one;"
            f" install one, name it by {variable}, or leave compiled at false"
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise ValueError(
            f"compiled needs Python's headers, and {header} is not here: the gpu image has them;"
            " install them (python3-dev), or leave compiled at false"
        )
