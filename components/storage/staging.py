"""Downloads the image set of an artifact, and verifies it before use.

The artifact may hold the manifest alone, which then contains the absolute `uri` of the shards.
Otherwise the shards lie beside the manifest. Shards in a bucket are first downloaded to a local
folder, once for all processes: SAN_CACHE, or san-pipeline in the user's cache folder. The name of a
copy is the digest of its content, so artifacts with equal bytes share it. Nothing deletes old
copies.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from components.process.machine import core_count
from components.process.messages import note_copy
from components.process.progress import Progress
from components.process.threads import map_bounded, thread_pool
from components.storage.outputs import add_path_to_errors, flush_to_disk, write_file
from components.storage.places import is_remote, local_path, open_storage
from components.storage.store import Storage
from san_core.checked_json import json_bytes
from san_core.images.imageset import ImageSet, manifest_bytes, read_manifest
from san_core.images.index import Records, pack_records
from san_core.images.shard import parse_sidecar, read_sidecar, sha256

log = logging.getLogger(__name__)

STAGING_THREADS = 4
STAGING_CHUNK = 8 << 20
FETCH_TRIES = 2  # downloads of a file whose sha256 differs from the recorded one


def open_image_set(
    artifact: Path, *, verify: bool = True, shards: Collection[int] | None = None
) -> ImageSet:
    """Open the set of an artifact after verifying every byte.

    Args:
        artifact: the folder with the manifest.
        verify: whether to read and verify local shards; the index is always verified.
        shards: the numbers of the shards to download and verify; None means all.

    Raises:
        FileNotFoundError: the set is unfinished, or a file is missing.
        ValueError: the set is damaged, or differs from the one that the artifact refers to.
        OSError: a download fails, or there is not enough disk space.
    """
    content, uri = _manifest_and_uri(artifact)
    if uri is not None and is_remote(uri):
        copy = _stage_set(content, open_storage(uri), verify=verify, shards=shards)
        return ImageSet.open(copy, shards=shards)
    place = artifact if uri is None else local_path(uri)
    images = ImageSet.open(place, shards=shards)
    if images.manifest != content and uri is not None:
        raise ValueError(
            f"{place} holds another image set than the one of {artifact / 'manifest.json'}:"
            f" manifest {_manifest_digest(images.manifest)[:12]} where"
            f" {_manifest_digest(content)[:12]} was expected"
        )
    if verify:
        images.verify(shards)
    return images


def open_image_records(artifact: Path) -> ImageSet:
    """Open the set of an artifact for its records alone; from a bucket only sidecars are read.

    Raises:
        FileNotFoundError: the set is unfinished, or a sidecar is missing.
        ValueError: the set is damaged.
    """
    content, uri = _manifest_and_uri(artifact)
    if uri is None or not is_remote(uri):
        return open_image_set(artifact, verify=False)
    return ImageSet(artifact, content, read_records(open_storage(uri), content))


def shards_of_splits(artifact: Path, splits: Iterable[str]) -> set[int]:
    """The numbers of the shards with images of the given splits, for `open_image_set`.

    Raises:
        FileNotFoundError: the set is unfinished, or a sidecar is missing.
        ValueError: the set is damaged, or has no image in these splits.
    """
    with open_image_records(artifact) as index:
        return index.records_in_splits(*splits).shards()


def read_records(storage: Storage, content: Mapping[str, Any]) -> Records:
    """The records of the shards that a manifest or receipt lists, from sidecars in a store.

    Raises:
        FileNotFoundError: a sidecar is missing.
        ValueError: a sidecar is damaged.
    """
    names = [shard["sidecar"] for shard in content["shards"]]
    with thread_pool(STAGING_THREADS) as pool:
        sidecars = map_bounded(pool, storage.get, names, ahead=2 * STAGING_THREADS)
        return pack_records(
            record
            for number, data in enumerate(sidecars)
            for record in parse_sidecar(data, number, content, where=storage.uri)
        )


def image_set_digest(artifact: Path) -> str:
    """The sha256 that identifies an image set: that of its manifest without `uri`.

    Raises:
        FileNotFoundError: the set is unfinished.
    """
    return _manifest_digest(_manifest_and_uri(artifact)[0])


def _manifest_and_uri(artifact: Path) -> tuple[dict[str, Any], str | None]:
    """A manifest without `uri`, and the `uri` if it has one."""
    content = read_manifest(artifact)
    uri: str | None = content.pop("uri", None)
    return content, uri


def _manifest_digest(content: dict[str, Any]) -> str:
    return sha256(manifest_bytes(content))


class _RecordedFile(NamedTuple):
    """A file that a manifest lists."""

    name: str
    size: int
    sha256: str


def _stage_set(
    content: dict[str, Any], storage: Storage, *, verify: bool, shards: Collection[int] | None
) -> Path:
    """The folder with the local copy of a set; missing files are downloaded.

    If no file is missing, nothing is written, so a complete copy may be read-only.

    Raises:
        OSError: there is not enough disk space, or a file arrives damaged.
    """
    folder = cache_folder() / "imagesets" / _manifest_digest(content)[:32]
    manifest = folder / "manifest.json"
    files = _recorded_files(content, shards)
    missing = _missing_files(files, folder, verify=verify)
    if missing or not manifest.is_file():
        with lock_folder(folder):  # another process may have fetched them meanwhile
            folder.mkdir(exist_ok=True)
            _fetch_files(_missing_files(missing, folder, verify=verify), storage, folder)
            write_file(manifest, manifest_bytes(content))
    note_copy(folder, storage.uri)  # not earlier: errors about missing files must name the copy
    return folder


def _recorded_files(
    content: Mapping[str, Any], shards: Collection[int] | None
) -> list[_RecordedFile]:
    """All sidecars, then the tars of some shards, or of all.

    Sidecars are downloaded first: they name the damaged image of a tar.
    """
    listed = content["shards"]
    chosen = listed if shards is None else [listed[number] for number in sorted(shards)]
    return [
        *(_RecordedFile(s["sidecar"], s["sidecar_size"], s["sidecar_sha256"]) for s in listed),
        *(_RecordedFile(s["tar"], s["size"], s["sha256"]) for s in chosen),
    ]


def cache_folder() -> Path:
    """The folder for copies of files in buckets: SAN_CACHE, else the user's cache folder.

    Raises:
        FileNotFoundError: SAN_CACHE is not set, and the user's cache folder cannot be created.
    """
    if place := os.environ.get("SAN_CACHE"):
        return Path(place).absolute()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "san-pipeline"
    try:
        folder = Path.home() / ".cache" / "san-pipeline"
    except RuntimeError:
        raise FileNotFoundError(
            f"user {os.getuid()} has no home for copies of files in buckets:"
            " set SAN_CACHE to a folder"
        ) from None
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if nearest != folder and not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        raise FileNotFoundError(
            f"user {os.getuid()} cannot create {folder} for copies of files in buckets:"
            " set SAN_CACHE to a folder"
        )
    return folder


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Let one process at a time fill a folder; the others wait, and then find it complete.

    Raises:
        OSError: the lock file beside it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that is filling %s", folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _missing_files(
    files: Sequence[_RecordedFile], folder: Path, *, verify: bool
) -> list[_RecordedFile]:
    """The files that are missing or incomplete in the folder."""
    with thread_pool(max(STAGING_THREADS, core_count())) as pool:
        whole = pool.map(lambda file: _is_whole(folder / file.name, file, verify), files)
        return [file for file, is_whole in zip(files, whole, strict=True) if not is_whole]


def _fetch_files(absent: Sequence[_RecordedFile], storage: Storage, folder: Path) -> None:
    """Download files to the folder, sidecars before tars."""
    if not absent:
        return
    size = sum(file.size for file in absent)
    _check_disk_space(folder, absent)
    log.info("fetching %d files, %.1f MB, from %s", len(absent), size / 1e6, storage.uri)
    tars = [file for file in absent if file.name.endswith(".tar")]
    with thread_pool(STAGING_THREADS) as pool, Progress(len(absent), "files") as bar:
        for part in (absent[: len(absent) - len(tars)], tars):
            for _ in pool.map(lambda file: _fetch_file(file, storage, folder), part):
                bar.add()


def _is_whole(path: Path, file: _RecordedFile, verify: bool) -> bool:
    """Whether a file exists with the recorded size and, if `verify`, sha256."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    if verify and _file_hash(path).hexdigest() != file.sha256:
        log.warning("%s is damaged; it is downloaded again", path)
        return False
    return True


def _check_disk_space(folder: Path, absent: Collection[_RecordedFile]) -> None:
    """Check that there is enough disk space, before the first download.

    Raises:
        OSError: there is not enough.
    """
    begun = sum(
        _part_path(folder, f).stat().st_size for f in absent if _part_path(folder, f).exists()
    )
    needed = sum(file.size for file in absent) - begun
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{folder} needs {needed / 1e6:,.1f} MB, but only {free / 1e6:,.1f} MB are free;"
            " set SAN_CACHE to a folder with more room"
        )


def _fetch_file(file: _RecordedFile, storage: Storage, folder: Path) -> None:
    """Download a file, or resume its download; it appears when it is complete.

    Raises:
        OSError: its sha256 differs from the recorded one after every try.
    """
    part = _part_path(folder, file)
    part.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(FETCH_TRIES):
        is_right = _resume_download(file, storage, part) == file.sha256
        if is_right and part.stat().st_size == file.size:
            flush_to_disk(part)
            part.replace(folder / file.name)
            flush_to_disk(part.parent)
            return
        hit = _damaged_image(part, folder, file)
        part.unlink()
        log.warning("%s/%s arrived damaged%s", storage.uri, file.name, hit)
    raise OSError(
        f"{storage.uri}: shard {file.name} is damaged{hit}: its sha256 is not the recorded one;"
        " textures are made again by generate_textures and seal_textures with verify sha256"
    )


def _part_path(folder: Path, file: _RecordedFile) -> Path:
    return folder / f"{file.name}.part"


def _resume_download(file: _RecordedFile, storage: Storage, part: Path) -> str:
    """Download the rest of a file in pieces; return the sha256 of the whole file."""
    digest = _file_hash(part) if part.exists() else hashlib.sha256()
    with add_path_to_errors(part), part.open("ab") as content:
        while (start := content.tell()) < file.size:
            data = storage.get_range(file.name, start, min(STAGING_CHUNK, file.size - start))
            content.write(data)
            digest.update(data)
    return digest.hexdigest()


def _file_hash(path: Path) -> "hashlib._Hash":
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256")


def _damaged_image(part: Path, folder: Path, file: _RecordedFile) -> str:
    """The damaged image of a tar, in words for a message; empty if no image is damaged."""
    sidecar = (folder / file.name).with_suffix(".json")
    if not file.name.endswith(".tar") or not sidecar.is_file():
        return ""
    with part.open("rb") as content:
        for image in read_sidecar(json_bytes(sidecar), where=str(sidecar))["images"]:
            content.seek(image["offset"])
            if sha256(content.read(image["size"])) != image["sha256"]:
                return f" at image {image['name']}"
    return ""
