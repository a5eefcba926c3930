"""Artifacts in buckets: a step run by hand accepts a URI for every input and output path.

    python -m components train_san --dataset s3://san/reid --model s3://san/model ...

Inputs are downloaded before the step starts, except the shards of image sets. The URI of a set is
added to its manifest, and `components.storage.staging` downloads shards when they are read. Outputs
are uploaded when the step has ended. The completion file is deleted first and uploaded last, so
that no reader accepts a partial artifact. During the upload the object `unfinished.json` marks the
artifact. After a kill, the next attempt may replace an artifact with this mark.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from components.process.messages import note_copy
from components.process.progress import Progress
from components.process.scratch import temporary_folder
from components.process.threads import thread_pool
from components.storage import retry
from components.storage.outputs import has_step_format, is_written_by_step, write_file
from components.storage.places import is_remote, local_path, open_storage
from components.storage.store import Stat, Storage
from san_core.checked_json import json_bytes, read_json
from san_core.data.tree import is_archive
from san_core.disk import check_room
from san_core.images.shard import is_file_name

log = logging.getLogger(__name__)

TRANSFER_THREADS = 16
MAX_IN_MEMORY = 8 << 20  # bytes of an object that is held in memory
# Readers accept an artifact if it has its file of these.
COMPLETION_FILES = (
    *("manifest.json", "recipe.json", "features.json", "report.json", "events.json"),
)
IMAGE_SET_FOLDERS = ("shards", "preview")
UNFINISHED_MARK = "unfinished.json"
UNFINISHED_CONTENT = b'{"format": "san-unfinished"}\n'
ARTIFACT_FILE_PATTERN = re.compile(
    r"(?:(?:images|textures|dense)/)?(?:manifest\.json|(?:shards|preview)/[^/]+)"
    r"|SHA256SUMS|MODEL_CARD\.md|(?:recipe|features|report|events)\.json|history\.jsonl|(?:index|split|ranked|queries)\.csv"
    r"|events\.out\.tfevents\.[^/]+"
    r"|[\w-]+\.(?:safetensors|npy|onnx)"
)


def fetch_artifact(uri: str, folder: Path) -> Path:
    """Download an artifact from a bucket to a folder, without the shards of image sets.

    A model may be a single ONNX file; the folder then contains only this file.

    Raises:
        FileNotFoundError: the artifact does not exist, or its upload is incomplete.
        OSError: the download fails.
    """
    if uri.endswith(".onnx") and stat_if_file(uri) is not None:
        fetch_file(uri, folder / uri.rpartition("/")[2])
        return folder
    storage = open_storage(uri)
    listed = _list_objects(storage)
    named = [PurePosixPath(stat.name) for stat in listed]
    sets = {name.parent for name in named if name.name == "manifest.json"}
    left_out = {place / name for place in sets for name in IMAGE_SET_FOLDERS}
    wanted = [s for s in listed if not left_out.intersection(PurePosixPath(s.name).parents)]
    _download_objects(storage, wanted, folder)
    for place in sets:
        _add_uri_to_manifest(
            folder / place / "manifest.json", "/".join([uri.rstrip("/"), *place.parts])
        )
    return folder


def fetch_file(uri: str, path: Path) -> None:
    """Download one object from a bucket.

    Raises:
        FileNotFoundError: it does not exist.
        OSError: the download fails.
    """
    note_copy(path, uri)
    parent, _, name = uri.rstrip("/").rpartition("/")
    storage = open_storage(parent)
    stat = storage.stat(name)
    if stat is None:
        raise FileNotFoundError(f"{uri} does not exist")
    _download_object(storage, stat, path)


def _list_objects(storage: Storage) -> list[Stat]:
    listed = storage.list()
    if not listed:
        raise FileNotFoundError(f"{storage.uri} holds no objects")
    is_marked = any(stat.name == UNFINISHED_MARK for stat in listed)
    if is_marked and has_step_format(storage.get(UNFINISHED_MARK)):
        raise FileNotFoundError(
            f"{storage.uri} is unfinished: a step is sending it, or was stopped while it did; run"
            " that step again"
        )
    return listed


def _download_objects(
    storage: Storage,
    wanted: Sequence[Stat],
    folder: Path,
    left_out: Callable[[str, str], None] | None = None,
) -> None:
    """Download whole objects to a folder, in parallel.

    left_out: called with the name of each object that cannot be a file here, and the reason.

    Raises:
        ValueError: there is such an object, and `left_out` is None.
        OSError: a download fails, or there is not enough disk space.
    """
    for name, why in _impossible_files(wanted).items():
        if left_out is None:
            raise ValueError(f"{storage.uri}/{name} cannot be downloaded: it is {why}")
        left_out(name, why)
    folders = _folders_of(wanted)
    wanted = [s for s in wanted if is_file_name(s.name) and s.name not in folders]
    folder.mkdir(parents=True, exist_ok=True)
    check_room(folder, sum(stat.size for stat in wanted))

    def one(stat: Stat) -> None:
        _download_object(storage, stat, folder / stat.name)

    with thread_pool(TRANSFER_THREADS) as pool, Progress(len(wanted), "files") as bar:
        for _ in pool.map(one, wanted):
            bar.add()


def _impossible_files(listed: Sequence[Stat]) -> dict[str, str]:
    """The objects whose keys cannot be file names, with reasons; empty folders are ignored."""
    folders = _folders_of(listed)
    found = {s.name: "the name of no file" for s in listed if not is_file_name(s.name)}
    twins = [s.name for s in listed if s.name in folders and s.size]
    return found | dict.fromkeys(twins, "a file and a folder")


def _folders_of(listed: Sequence[Stat]) -> set[str]:
    """The folders of objects, up to the root."""
    return {str(folder) for stat in listed for folder in PurePosixPath(stat.name).parents}


def _download_object(storage: Storage, stat: Stat, path: Path) -> None:
    if stat.size <= MAX_IN_MEMORY:
        write_file(path, storage.get(stat.name))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.get_file(stat.name, path)


def _add_uri_to_manifest(file: Path, uri: str) -> None:
    """Add `uri` to the manifest of an image set, unless it has one."""
    data = json_bytes(file)
    if has_step_format(data):  # the reader reports other formats
        told = {"uri": uri, **read_json(data, dict[str, Any], where=str(file))}
        write_file(file, json.dumps(told, indent=1, ensure_ascii=False))


def check_uri_replaceable(uri: str, *, is_file: bool) -> None:
    """Check that an output in a bucket would replace nothing but an older output.

    Raises:
        ValueError: the URI holds objects that no step has written, or is a folder although the
            output is a file.
        OSError: the bucket cannot be listed.
    """
    storage = open_storage(uri)
    found = [stat.name for stat in storage.list()]
    if is_file and not uri.partition("://")[2].rstrip("/").partition("/")[2]:
        raise ValueError(f"{uri} names no file in its bucket")
    if found and is_file:
        raise ValueError(f"{uri} is a folder, but the output is a file; name another")
    is_unfinished = UNFINISHED_MARK in found and has_step_format(storage.get(UNFINISHED_MARK))
    if found and not is_unfinished and not is_written_by_step(found, storage.get):
        raise ValueError(f"{uri} holds objects that no step has written; name another")


def send_artifact(path: Path, uri: str) -> None:
    """Upload an artifact, a folder or a file, to a bucket, and replace an older one.

    Only older objects with names of artifact files are deleted.

    Raises:
        OSError: the upload fails.
    """
    if path.is_file():
        parent, _, name = uri.rstrip("/").rpartition("/")
        open_storage(parent, patience=retry.RESULT_BACKOFF).put_file(name, path)
        return
    storage = open_storage(uri, patience=retry.RESULT_BACKOFF)
    former = [stat.name for stat in storage.list() if ARTIFACT_FILE_PATTERN.fullmatch(stat.name)]
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    marks = [name for name in names if _is_completion_file(name)]
    storage.put_bytes(UNFINISHED_MARK, UNFINISHED_CONTENT)
    for name in filter(_is_completion_file, former):
        storage.delete(name)
    with thread_pool(TRANSFER_THREADS // 4) as pool, Progress(len(names), "files") as bar:
        for part in ([name for name in names if name not in marks], marks):
            for _ in pool.map(lambda name: storage.put_file(name, path / name), part):
                bar.add()
    for name in set(former).difference(names):
        storage.delete(name)
    storage.delete(UNFINISHED_MARK)
    log.info("sent to %s", storage.uri)


def delete_artifact(uri: str) -> None:
    """Delete an artifact, a folder, from a bucket.

    While it is incomplete, it is marked as unfinished, so that it is not read, and a step may
    replace it.

    Raises:
        OSError: it cannot be deleted.
    """
    storage = open_storage(uri)
    names = [stat.name for stat in storage.list() if stat.name != UNFINISHED_MARK]
    if names:
        storage.put_bytes(UNFINISHED_MARK, UNFINISHED_CONTENT)
    for name in [*names, UNFINISHED_MARK]:
        storage.delete(name)


def _is_completion_file(name: str) -> bool:
    return PurePosixPath(name).name in COMPLETION_FILES


@contextmanager
def local_source(source: str, left_out: Callable[[str, str], None] | None = None) -> Iterator[Path]:
    """The folder or file of a source; a temporary copy, within the block, if it is in a bucket.

    If the source is a file but no archive, such as a table of images, its whole folder is
    downloaded. left_out: called with the name of each object that cannot be a file, and the reason;
    None refuses such objects.

    Raises:
        FileNotFoundError: the source does not exist.
        ValueError: an object cannot be a file, and `left_out` is None.
        OSError: the download fails.
    """
    if not is_remote(source):
        yield local_path(source) if source else Path()
        return
    with temporary_folder() as folder:
        single = stat_if_file(source)
        parent, _, name = source.rstrip("/").rpartition("/")
        note_copy(folder, parent if single else source)
        storage = open_storage(parent if single else source)
        listed = [single] if single and is_archive(name) else _list_objects(storage)
        log.info("fetching %d files from %s", len(listed), source)
        _download_objects(storage, listed, folder, left_out)
        yield folder / name if single else folder


@contextmanager
def local_file(place: str) -> Iterator[Path]:
    """The file of a path or a URI; a temporary copy, within the block, if it is in a bucket.

    Raises:
        FileNotFoundError: the object does not exist.
        OSError: the download fails.
    """
    if not is_remote(place):
        yield local_path(place)
        return
    with temporary_folder() as folder:
        copy = folder / place.rstrip("/").rpartition("/")[2]
        fetch_file(place, copy)
        yield copy


def stat_if_file(uri: str) -> Stat | None:
    """The object of a URI, such as an archive; None if the URI is a folder of objects.

    Raises:
        OSError: the bucket does not answer.
    """
    parent, _, name = uri.rstrip("/").rpartition("/")
    if not PurePosixPath(name).suffix or parent.endswith("/"):
        return None  # without a suffix it is a folder; no request is needed
    return open_storage(parent).stat(name)
