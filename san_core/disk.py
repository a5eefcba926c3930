"""Disk space, reserved before anything is written.

Writing to a memory-mapped file on a full disk kills the process by SIGBUS without a message.
"""

import errno
import os
import shutil
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)


def write_file(path: Path, data: bytes) -> None:
    """Write a file.

    Raises:
        OSError: there is no room for it; the message says how much there is.
    """
    with path.open("wb") as file:
        reserve_space(file, len(data), path=path)
        file.write(data)


def new_array(path: Path, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> "np.memmap[Any, Any]":
    """A new .npy file of zeros, to be filled as a memory map; its room on disk is taken.

    Raises:
        OSError: there is no room for it; the message says how much there is.
    """
    import numpy as np

    made = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("r+b") as file:
        reserve_space(file, path.stat().st_size, path=path)
    return made


def check_room(folder: Path, size: int) -> None:
    """Check that a folder's disk has room for so many bytes.

    Raises:
        OSError: it has not; the message says how much there is.
    """
    if size > shutil.disk_usage(folder).free:
        raise disk_full_error(folder, needed=size)


def reserve_space(file: IO[Any], size: int, *, path: Path) -> None:
    """Give a file that is open for writing its full size on disk.

    Raises:
        OSError: there is no room for it; the message says how much there is.
    """
    if not size:
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in DISK_FULL_ERRORS:
            raise
        raise disk_full_error(path, needed=size) from error


def disk_full_error(path: Path, *, needed: int | None = None) -> OSError:
    """The message for a file or folder without disk space: `PATH: no space left (...)`."""
    place = next(place for place in (path, *path.absolute().parents) if place.exists())
    has = f"has {_size_text(shutil.disk_usage(place).free)}"
    told = has if needed is None else f"needs {_size_text(needed)}, {has}"
    return OSError(errno.ENOSPC, f"no space left ({told})", str(path))


def _size_text(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
