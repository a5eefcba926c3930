"""The folders, archives and files that parameters of steps name."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from components.storage.places import is_remote, local_path, open_storage
from components.storage.transfer import stat_if_file
from san_core.data.readers.several import join_dataset_places, split_dataset_places
from san_core.data.tree import is_archive, open_tree
from san_core.shipped.generator import SHIPPED_FOLDER, SHIPPED_GENERATOR

# The parameters that name a place to keep things.
STORE_PARAMETERS = ("destination", "checkpoint", "feature_parts")
# Those that name one file, of which nothing beside it is read.
FILE_PARAMETERS = ("body",)
# All parameters, of steps and of graphs, that may name a folder or file to read.
READ_PARAMETERS = (
    *("source", "target_source", "texture_source", "generator", "model", "backgrounds"),
    *FILE_PARAMETERS,
)
PLACE_PARAMETERS = (*STORE_PARAMETERS, *READ_PARAMETERS)
# Those that may name several places, by the parameter that names the data sets which lie there.
_SEVERAL_PARAMETERS = {"source": "dataset", "target_source": "target"}
# What is said instead of a place where nothing shall be kept; a folder of that name is ./none. Who
# makes textures has to keep them.
KEEPS_NOTHING = "none"
_MAY_KEEP_NOTHING = ("checkpoint", "feature_parts")
# The parameters that replace fields of a recipe, and the field that may name a file.
OVERRIDES_PARAMETERS = ("overrides", "san_overrides", "pg_overrides")
# Those that name a data set, whose option `split` names a file.
DATASET_PARAMETERS = ("dataset", "target")
_SPLIT_OPTION = re.compile(r"(?<=[:,])( *split)=([^,+]*[^,+\s])")
_FILE_FIELD = re.compile(r"(?<!\S)(pretrained)=(?!(?:none|imagenet)(?!\S))(\S+)")
# What names a file within the value of a parameter, and the parameters.
_FILE_WORDS = ((OVERRIDES_PARAMETERS, _FILE_FIELD), (DATASET_PARAMETERS, _SPLIT_OPTION))


class ReadPlace(NamedTuple):
    """A place that is read.

    Attributes:
        name: the parameter that names it, as messages say it; numbered from the second place on
        uri: folder, file or URI
        is_single: whether it is a file of which nothing beside it is read
    """

    name: str
    uri: str
    is_single: bool


def read_places(values: Mapping[str, Any], step: str = "") -> list[ReadPlace]:
    """Every place that the parameters name for reading.

    Files that overrides and the options of data sets name are among them.

    Args:
        values: parameters of a graph, or those of a step.
        step: which step, so that its words are told from places: take_generator's source=shipped is
            the generator of the package.
    """
    found = [
        ReadPlace(_numbered(name, number), uri, name in FILE_PARAMETERS)
        for name in READ_PARAMETERS
        if names_place(name, values.get(name))
        for number, uri in enumerate(_places_in(name, values), 1)
    ]
    if takes_shipped_generator(step, values):
        found = [ReadPlace("source", str(SHIPPED_FOLDER), is_single=False)]
    for names, file in _FILE_WORDS:
        for name in names:
            for number, (word, uri) in enumerate(file.findall(str(values.get(name) or "")), 1):
                called = _numbered(f"{name} {word.strip()}", number)
                found.append(ReadPlace(called, uri, is_single=True))
    return found


def takes_shipped_generator(step: str, values: Mapping[str, Any]) -> bool:
    """Whether a step reads the generator of the package: take_generator's source=shipped."""
    return (step, values.get("source")) == ("take_generator", SHIPPED_GENERATOR)


def _numbered(name: str, number: int) -> str:
    """The name of one of several places; the first has no number."""
    return name if number == 1 else f"{name} {number}"


def change_places(values: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The values of parameters, with every place replaced by `change`."""

    def changed_file(match: re.Match[str]) -> str:
        place = change(match[2])
        if "://" not in place and set(" ,+") & set(place):  # these would end the word it stands in
            place = Path(place).as_uri()
        return f"{match[1]}={place}"

    changed = dict(values)
    for name in filter(lambda each: names_place(each, values[each]), values):
        places = [change(place) for place in _places_in(name, values)]
        changed[name] = join_dataset_places(_datasets_at(name, values), places)
    for names, file in _FILE_WORDS:
        for name in filter(changed.__contains__, names):
            changed[name] = file.sub(changed_file, changed[name])
    return changed


def replace_split_file(dataset: str, stands_for: str) -> str:
    """The name of a data set with something else in the place of the file of its option split."""
    return _SPLIT_OPTION.sub(rf"\1={stands_for}", dataset)


def _places_in(name: str, values: Mapping[str, Any]) -> list[str]:
    """The places that a parameter names: one, or those of several data sets."""
    return split_dataset_places(_datasets_at(name, values), str(values[name]))


def _datasets_at(name: str, values: Mapping[str, Any]) -> str:
    """The data sets whose places a parameter names; empty where it names one place of any kind."""
    return str(values.get(_SEVERAL_PARAMETERS.get(name, "")) or "")


def names_place(name: str, value: object) -> bool:
    """Whether a parameter's value names a place; generator=shipped, checkpoint=none are words."""
    return (
        name in PLACE_PARAMETERS
        and bool(value)
        and (name, value) != ("generator", SHIPPED_GENERATOR)
        and not keeps_nothing(name, value)
    )


def keeps_nothing(name: str, value: object) -> bool:
    """Whether a parameter turns storing off: checkpoint=none, feature_parts=none."""
    return name in _MAY_KEEP_NOTHING and value == KEEPS_NOTHING


def check_place(name: str, place: str) -> None:
    """Open a place that a parameter names, so that an error appears now and not hours later.

    A place in a bucket is asked for by one request, which takes credentials too.

    Raises:
        OSError: what is to be read is not there, or may not be read; or nothing can be kept there.
        ValueError: it is no place.
    """
    if name in STORE_PARAMETERS:
        _check_store(name, place)
    elif is_remote(place):
        if stat_if_file(place) is None and open_storage(place).is_empty():
            raise FileNotFoundError(f"{name} {place}: it does not exist or is empty")
    elif not (path := local_path(place)).exists():
        raise FileNotFoundError(f"{name} {place}: there is no such folder or file")
    elif not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise PermissionError(f"{name} {place}: user {os.getuid()} may not read it")


def _check_store(name: str, place: str) -> None:
    """Check that a place is writable, or that its bucket at least answers."""
    if is_remote(place):
        open_storage(place).is_empty()
        return
    folder = local_path(place).absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{name} {place}: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{name} {place}: user {os.getuid()} may not write to {there}")


def file_versions(source: str, *, is_single: bool = False) -> list[tuple[str, int, int | str]]:
    """Name, size and version of every file in a place, which may change at any time.

    An archive counts by itself; of any other file, such as a table of images, its folder does.

    Args:
        source: folder, file or URI.
        is_single: whether it is a file of which nothing beside it is read.

    Raises:
        ValueError: links lead to one folder of it twice.
    """
    if is_remote(source):
        single = stat_if_file(source)
        found = [single] if single else open_storage(source).list()
        if single and not is_single and not is_archive(single.name):
            found = open_storage(source.rstrip("/").rpartition("/")[0]).list()
        return [(s.name, s.size, s.version) for s in found]
    place = local_path(source)
    if place.is_file() and (is_single or is_archive(place.name)):
        return [file_version(place, place.parent)]
    folder = place.parent if place.is_file() else place
    if not folder.is_dir():
        return []
    with open_tree(folder) as tree:
        files = sorted(folder / name for name in tree.walk())
    return [file_version(path, folder) for path in files if path.is_file()]


def file_version(path: Path, folder: Path) -> tuple[str, int, int]:
    """Name within a folder, size and version of one file of it."""
    stat = path.stat()
    return str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns
