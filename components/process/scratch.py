"""Temporary folders of a step: in SAN_SCRATCH, or else in TMPDIR.

NFS keeps a file that is deleted while it is open or mapped, under another name, and so its folder.
So files must be closed before the block of their folder ends. A folder that cannot be removed only
causes a warning, as no result depends on it.
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
_OPEN_FOLDERS: list[Path] = []  # folders whose block has not ended


@contextmanager
def scratch_folder(output: Path) -> Iterator[Path]:
    """A directory for files needed until `output` is written; it is removed at the end.

    Its name depends on the path of the output, so files that a killed process left are removed
    first.

    Raises:
        OSError: the disk is full; the message names the directory and the variable for another.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = vacant_folder(scratch_root() / f"san-{_key(output)}")
    folder.mkdir(mode=0o700)
    with _removed_in_the_end(folder), _name_when_full(folder):
        yield folder


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A directory for this process only; it is removed at the end."""
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
    """Remove the open folders of this process, for an exit that does not leave their blocks."""
    for folder in sorted(_OPEN_FOLDERS):
        remove_or_warn(folder)


def vacant_folder(folder: Path) -> Path:
    """Remove the files of a killed process from a folder; choose another name if that fails."""
    others = (folder.with_name(f"{folder.name}.{number}") for number in count(2))
    for place in chain([folder], others):
        if place.exists():
            remove_or_warn(place)
        if not place.exists():
            return place
    raise AssertionError  # the names have no end


def remove_or_warn(folder: Path) -> None:
    """Remove a directory with its content; warn if something cannot be removed."""
    problems: list[BaseException] = []

    def note(
        _do: object, _path: str, error: tuple[type[BaseException], BaseException, TracebackType]
    ) -> None:
        problems.append(error[1])

    shutil.rmtree(folder, onerror=note)
    if problems:
        log.warning("%s cannot be removed (%s); it is no longer needed", folder, problems[0])


def scratch_root() -> Path:
    """The parent of temporary directories."""
    root = Path(os.environ.get(SCRATCH_VARIABLE) or tempfile.gettempdir()).absolute()
    root.mkdir(parents=True, exist_ok=True)
    return root


def _key(output: Path) -> str:
    """A key of an output on one machine, the same for every spelling of its path."""
    place = output.parent.stat()
    told = f"{os.uname().nodename} {place.st_dev} {place.st_ino} {output.name}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]


@contextmanager
def _name_when_full(folder: Path) -> Iterator[None]:
    """Name this directory in errors of a full disk, unless they are about another."""
    try:
        yield
    except OSError as error:
        is_here = error.filename is None or Path(error.filename).is_relative_to(folder)
        if error.errno not in DISK_FULL_ERRORS or not is_here:
            raise
        told = error if error.filename else disk_full_error(folder)
        hint = f"{told.strerror}; {SCRATCH_VARIABLE} names another folder to use"
        raise OSError(error.errno, hint, told.filename) from error
