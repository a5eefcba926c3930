"""Folders for what is needed only while a step runs: in SAN_SCRATCH, or else where TMPDIR says.

NFS keeps a file that is deleted while it is open or mapped, under another name, and its folder with
it: whatever is in a folder must be closed before its block ends. What cannot be removed all the
same is warned of and no more, as no result hangs on it.
"""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from types import TracebackType

from san_core.disk import DISK_FULL_ERRORS, disk_full_error

log = logging.getLogger(__name__)

SCRATCH_VARIABLE = "SAN_SCRATCH"
_OPEN_FOLDERS: list[Path] = []  # those whose block has not ended


@contextmanager
def scratch_folder(output: Path) -> Iterator[Path]:
    """A directory for what is needed until `output` is written, removed in the end.

    What a killed predecessor left there is removed first: the name goes by where the output lies.

    Raises:
        OSError: of a full disk, naming the directory and the variable that names another.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = vacant_folder(scratch_root() / f"san-{_key(output)}")
    folder.mkdir(mode=0o700)
    with _removed_in_the_end(folder), _name_when_full(folder):
        yield folder


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A directory of this process alone, removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="san-", dir=scratch_root()))
    with _removed_in_the_end(folder):
        yield folder


@contextmanager
def _removed_in_the_end(folder: Path) -> Iterator[None]:
    _OPEN_FOLDERS.append(folder)
    try:
        yield
    finally:
        _OPEN_FOLDERS.remove(folder)
        remove_or_warn(folder)


def remove_open_folders() -> None:
    """Remove what the blocks of this process would remove, which ends without leaving them."""
    for folder in sorted(_OPEN_FOLDERS):
        remove_or_warn(folder)


def vacant_folder(folder: Path) -> Path:
    """Remove what a killed predecessor left in a folder; another name where that does not go."""
    others = (folder.with_name(f"{folder.name}.{number}") for number in count(2))
    for place in chain([folder], others):
        if place.exists():
            remove_or_warn(place)
        if not place.exists():
            return place
    raise AssertionError  # the names have no end


def remove_or_warn(folder: Path) -> None:
    """Remove a directory and all that is in it; what cannot be removed is warned of."""
    problems: list[BaseException] = []

    def note(
        _do: object, _path: str, error: tuple[type[BaseException], BaseException, TracebackType]
    ) -> None:
        problems.append(error[1])

    shutil.rmtree(folder, onerror=note)
    if problems:
        log.warning("%s cannot be removed (%s); it is not needed any more", folder, problems[0])


def scratch_root() -> Path:
    """Where such directories are made."""
    root = Path(os.environ.get(SCRATCH_VARIABLE) or tempfile.gettempdir()).absolute()
    root.mkdir(parents=True, exist_ok=True)
    return root


def _key(output: Path) -> str:
    """What stands for one output on one machine, however its path is written."""
    place = output.parent.stat()
    told = f"{os.uname().nodename} {place.st_dev} {place.st_ino} {output.name}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]


@contextmanager
def _name_when_full(folder: Path) -> Iterator[None]:
    """Let errors of a full disk say that it is this directory's, unless they are of another."""
    try:
        yield
    except OSError as error:
        is_here = error.filename is None or Path(error.filename).is_relative_to(folder)
        if error.errno not in DISK_FULL_ERRORS or not is_here:
            raise
        told = error if error.filename else disk_full_error(folder)
        hint = f"{told.strerror}; {SCRATCH_VARIABLE} names a folder with more room"
        raise OSError(error.errno, hint, told.filename) from error
