"""Gallery and query pictures: of an image set, a folder, an archive or a file, also remote."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from components.inference.embedding import encoded_images
from components.inference.lazy_sequence import LazySequence
from components.process.scratch import temporary_folder
from components.storage.places import is_remote, local_path, open_storage
from components.storage.sources import file_version, file_versions
from components.storage.staging import image_set_digest, open_image_records, open_image_set
from components.storage.transfer import fetch_artifact, local_file, local_source, stat_if_file
from san_core.data.batches.cache import EncodedImage
from san_core.data.readers import images as image_reader
from san_core.data.tree import is_archive, is_litter, open_tree
from san_core.images.pixels import IMAGE_SUFFIXES

_MANIFEST = "manifest.json"


class Pictures(NamedTuple):
    """Pictures that can be read until the block of their place ends.

    Attributes:
        names: their names within the place, in a fixed order.
        fingerprint: a digest that changes when they change.
        open_files: returns the files at some indices of `names`, in that order.
    """

    names: Sequence[str]
    fingerprint: str
    open_files: Callable[[Sequence[int]], Sequence[EncodedImage]]


@contextmanager
def open_pictures(place: str) -> Iterator[Pictures]:
    """The pictures at a place: a folder, archive, file or URI, or an image set.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it has no picture, or is a damaged image set.
    """
    with ExitStack() as kept:
        if is_remote(place):
            yield _open_remote(place, kept)
            return
        path = local_path(place)
        if (path / _MANIFEST).is_file():
            yield _open_set(path, kept)
        elif path.is_file() and not is_archive(path.name):
            yield _single_file(path, file_versions(place, is_single=True))
        else:
            yield _open_tree(path, place, kept)


def _open_remote(place: str, kept: ExitStack) -> Pictures:
    """Pictures in a bucket: those of a folder are read one by one; an archive is downloaded."""
    if stat_if_file(place) is not None:
        if is_archive(place):
            return _open_tree(kept.enter_context(local_source(place)), place, kept)
        copy = kept.enter_context(local_file(place))
        return _single_file(copy, file_versions(place, is_single=True))
    storage = open_storage(place)
    if storage.stat(_MANIFEST) is not None:
        return _open_set(
            fetch_artifact(place, kept.enter_context(temporary_folder()) / "set"), kept
        )
    listed = sorted(stat for stat in storage.list() if _is_picture(stat.name))
    if not listed:
        raise FileNotFoundError(
            f"{place} holds no image; images end in {', '.join(IMAGE_SUFFIXES)}"
        )
    files = LazySequence(listed, lambda one: EncodedImage(one.name, partial(storage.get, one.name)))
    return _pictures(files, _digest([[s.name, s.size, s.version] for s in listed]))


def _is_picture(name: str) -> bool:
    hidden = any(is_litter(part) for part in name.split("/"))
    return not hidden and name.lower().endswith(IMAGE_SUFFIXES)


def _open_set(artifact: Path, kept: ExitStack) -> Pictures:
    """The images of an image set; only the shards that are needed are read."""
    index = kept.enter_context(open_image_records(artifact))
    records = index.records

    def open_files(chosen: Sequence[int]) -> Sequence[EncodedImage]:
        wanted = records.picked(chosen)
        images = kept.enter_context(open_image_set(artifact, shards=wanted.shards()))
        return encoded_images(images, wanted)

    names = LazySequence(records, attrgetter("name"))
    return Pictures(names, image_set_digest(artifact), open_files)


def _open_tree(path: Path, place: str, kept: ExitStack) -> Pictures:
    """The pictures of a folder or an archive."""
    tree = kept.enter_context(open_tree(path))
    listed = image_reader.listing(tree, {}).images
    lock = Lock()  # only one thread at a time can read an archive

    def read(read_file: Callable[[], bytes]) -> bytes:
        with lock:
            return read_file()

    files = LazySequence(
        listed,
        lambda one: EncodedImage(one.name, one.read if path.is_dir() else partial(read, one.read)),
    )
    if path.is_dir():  # other files, such as an output, do not count
        return _pictures(files, _digest([file_version(path / one.name, path) for one in listed]))
    return _pictures(files, _digest(file_versions(place)))


def _single_file(path: Path, versions: Sequence[tuple[str, int, int | str]]) -> Pictures:
    return _pictures([EncodedImage(path.name, path.read_bytes)], _digest(versions))


def _pictures(files: Sequence[EncodedImage], fingerprint: str) -> Pictures:
    def open_files(chosen: Sequence[int]) -> Sequence[EncodedImage]:
        return LazySequence(chosen, files.__getitem__)

    return Pictures(LazySequence(files, attrgetter("name")), fingerprint, open_files)


def _digest(versions: object) -> str:
    return hashlib.sha256(json.dumps(versions).encode("utf-8", "surrogateescape")).hexdigest()
