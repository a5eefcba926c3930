"""What people have and keep: the folders, archives and tables that a step is pointed to."""

import os
from pathlib import Path

from components.storage.places import is_remote, open_storage
from components.storage.transfer import stat_if_file
from san_core.data.tree import is_archive
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


def file_versions(source: str | None) -> list[tuple[str, int, int | str]]:
    """Name, size and version of every file in a place, which may change at any time.

    An archive counts by itself; of any other file, such as a table of images, its folder does.
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
    walk = os.walk(folder, followlinks=True)
    files = sorted(Path(parent, name) for parent, _, names in walk for name in names)
    return [_file_version(path, folder) for path in files if path.is_file()]


def _file_version(path: Path, folder: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns
