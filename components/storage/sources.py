"""What people have and keep: the folders, archives and tables that a step is pointed to."""

import os
from pathlib import Path

from components.storage.places import is_remote, open_storage
from components.storage.transfer import single_object
from san_core.data.tree import is_archive
from san_core.shipped.generator import SHIPPED

# The parameters that name such a place, and those that name one to keep things.
SOURCES = ("source", "target_source")
STORES = ("destination", "checkpoint")
# All parameters, of steps and of graphs, that may name a folder or file to read.
READ = (*SOURCES, "texture_source", "generator", "backgrounds", "body")
PLACES = (*STORES, *READ)


def is_place(name: str, value: object) -> bool:
    """Whether a parameter's value names a place; generator=shipped is a word."""
    return name in PLACES and bool(value) and (name, value) != ("generator", SHIPPED)


def versions(source: str | None) -> list[tuple[str, int, int | str]]:
    """Name, size and version of every file in a place, which may change at any time.

    An archive counts by itself; of any other file, such as a table of images, its folder does.
    """
    if not source:
        return []
    if is_remote(source):
        single = single_object(source)
        found = [single] if single else open_storage(source).list()
        if single and not is_archive(single.name):
            found = open_storage(source.rstrip("/").rpartition("/")[0]).list()
        return [(s.name, s.size, s.version) for s in found]
    place = Path(source)
    if place.is_file() and is_archive(place.name):
        return [_version(place, place.parent)]
    folder = place.parent if place.is_file() else place
    walk = os.walk(folder, followlinks=True)
    files = sorted(Path(parent, name) for parent, _, names in walk for name in names)
    return [_version(path, folder) for path in files if path.is_file()]


def _version(path: Path, folder: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns
