"""What people have and keep: the folders, archives and tables that a step is pointed to."""

import os
from pathlib import Path

from components.storage.places import is_remote, local_path, open_storage
from components.storage.transfer import stat_if_file
from san_core.data.tree import is_archive, open_tree
from san_core.shipped.generator import SHIPPED_GENERATOR

# The parameters that name such a place, and those that name one to keep things.
SOURCE_PARAMETERS = ("source", "target_source")
STORE_PARAMETERS = ("destination", "checkpoint")
# All parameters, of steps and of graphs, that may name a folder or file to read.
READ_PARAMETERS = (*SOURCE_PARAMETERS, "texture_source", "generator", "backgrounds", "body")
PLACE_PARAMETERS = (*STORE_PARAMETERS, *READ_PARAMETERS)
# What is said instead of a place where nothing shall be kept; a folder of that name is ./none.
KEEPS_NOTHING = "none"


def names_place(name: str, value: object) -> bool:
    """Whether a parameter's value names a place; generator=shipped, checkpoint=none are words."""
    return (
        name in PLACE_PARAMETERS
        and bool(value)
        and (name, value) != ("generator", SHIPPED_GENERATOR)
        and not keeps_nothing(name, value)
    )


def keeps_nothing(name: str, value: object) -> bool:
    """Whether a parameter says that nothing is kept: checkpoint=none."""
    return (name, value) == ("checkpoint", KEEPS_NOTHING)


def check_place(name: str, place: str) -> None:
    """Open a place that a parameter names, so that it is not found wrong hours later.

    A place in a bucket is asked for by one request, which takes credentials too.

    Raises:
        OSError: what is to be read is not there, or may not be read; or nothing can be kept there.
        ValueError: it is no place.
    """
    if name in STORE_PARAMETERS:
        _check_store(name, place)
    elif is_remote(place):
        if stat_if_file(place) is None and open_storage(place).is_empty():
            raise FileNotFoundError(f"{name} {place}: there is nothing there")
    elif not (path := local_path(place)).exists():
        raise FileNotFoundError(f"{name} {place}: there is no such folder or file")
    elif not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise PermissionError(f"{name} {place}: user {os.getuid()} may not read it")


def _check_store(name: str, place: str) -> None:
    """What is kept must be writable; in a bucket, at least it must answer."""
    if is_remote(place):
        open_storage(place).is_empty()
        return
    folder = local_path(place).absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{name} {place}: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{name} {place}: user {os.getuid()} may not write to {there}")


def file_versions(source: str | None) -> list[tuple[str, int, int | str]]:
    """Name, size and version of every file in a place, which may change at any time.

    An archive counts by itself; of any other file, such as a table of images, its folder does.

    Raises:
        ValueError: links lead to one folder of it twice.
    """
    if not source:
        return []
    if is_remote(source):
        single = stat_if_file(source)
        found = [single] if single else open_storage(source).list()
        if single and not is_archive(single.name):
            found = open_storage(source.rstrip("/").rpartition("/")[0]).list()
        return [(s.name, s.size, s.version) for s in found]
    place = Path(source)
    if place.is_file() and is_archive(place.name):
        return [_file_version(place, place.parent)]
    folder = place.parent if place.is_file() else place
    if not folder.is_dir():
        return []
    with open_tree(folder) as tree:
        files = sorted(folder / name for name in tree.walk())
    return [_file_version(path, folder) for path in files if path.is_file()]


def _file_version(path: Path, folder: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns
