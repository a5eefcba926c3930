"""The project's format for collections of images: tar shards with sidecar indices, and a manifest.

Person images, PIT textures and pseudo textures are all stored in it:

    manifest.json                       written last, so its presence means "finished"
    shards/00007-of-00130.<hash>.tar    uncompressed ustar, at most 1,000 images
    shards/00007-of-00130.<hash>.json   sidecar: size and sha256 of the tar; where each image lies
    preview/00007.png                   contact sheet, for people

Equal images give equal bytes: tar entries carry no time and no owner, a shard's name has the hash
of its content, and the manifest has no time, place or author. Everything read is checked against
its sha256, because a JPEG with a flipped bit may decode without error. An unfinished or damaged set
is refused with a line that names the shard and the image.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Annotated, Any, NamedTuple, NotRequired, Self, TypedDict

from san_core.checked_json import Rule, check_shape, json_bytes, read_json
from san_core.images.index import Records, pack_records
from san_core.images.shard import (
    MAX_SHARD_SIZE,
    Digest,
    Item,
    Record,
    Shard,
    SidecarImage,
    Size,
    canonical_json,
    number_of_shards,
    pack_shard,
    parse_sidecar,
    read_sidecar,
    renumber_shard,
    sha256,
    shard_entry,
)
from san_core.images.sheet import preview_indices, preview_name, preview_sheet

FORMAT = "san-imageset"
VERSION = 1
MAX_OPEN_TARS = 32  # of a set; several sets are open at once, and a process may have 256 files

TarName = Annotated[
    str, Rule(re.compile(r"shards/[\w.-]+\.tar").fullmatch, "the name of a shard's tar")
]
SidecarName = Annotated[
    str, Rule(re.compile(r"shards/[\w.-]+\.json").fullmatch, "the name of a shard's sidecar")
]


class ShardEntry(TypedDict):
    """The entry of a shard in a manifest, from `shard_entry`."""

    tar: TarName
    size: Size
    sha256: Digest
    sidecar: SidecarName
    sidecar_size: Size
    sidecar_sha256: Digest
    images: Size


class Manifest(TypedDict):
    """The content of a manifest, from `build_manifest`; with a uri if passed on by a step."""

    fingerprint: str
    count: Size
    splits: dict[str, dict[str, Any]]
    provenance: dict[str, Any]
    shards: list[ShardEntry]
    uri: NotRequired[str]


def build_manifest(
    sidecars: Mapping[str, bytes],
    *,
    provenance: Mapping[str, Any],
    fingerprint: str | None = None,
) -> dict[str, Any]:
    """The manifest of a finished set.

    Args:
        sidecars: the bytes of every sidecar by name, in shard order.
        provenance: the origin of the images, without times, hosts or paths.
        fingerprint: identifies the set; by default a hash of its content.

    Raises:
        ValueError: two images have the same name.
    """
    shards = []
    names: Counter[str] = Counter()
    splits: dict[str, _SplitTally] = {}
    for name, data in sidecars.items():
        shards.append(shard_entry(name, data))
        for image in read_sidecar(data, where=name)["images"]:
            names[image["name"]] += 1
            split = splits.setdefault(image["split"], _SplitTally(0, {None}, {None}))
            splits[image["split"]] = split._replace(images=split.images + 1)
            split.people.add(image["pid"])
            split.cameras.add(image["camid"])
    if repeated := [name for name, n in names.items() if n > 1]:
        raise ValueError(f"{len(repeated)} image names occur twice, such as {min(repeated)!r}")
    counts = {
        name: {
            "images": split.images,
            "identities": len(split.people) - 1,  # None is among them
            "cameras": len(split.cameras) - 1,
        }
        for name, split in sorted(splits.items())
    }
    content = sha256(canonical_json([shard["sidecar_sha256"] for shard in shards]))
    return {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": fingerprint or content,
        "count": sum(names.values()),
        "splits": counts,
        "provenance": dict(provenance),
        "shards": shards,
    }


class _SplitTally(NamedTuple):
    """The counts of a split."""

    images: int
    people: set[int | None]
    cameras: set[int | None]


def manifest_bytes(content: Mapping[str, Any]) -> bytes:
    """The bytes of manifest.json, indented for people; equal content gives equal bytes."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    return text.encode() + b"\n"


def write_imageset(
    path: Path,
    items: Iterable[Item],
    *,
    provenance: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    total: int | None = None,
    shard_size: int = MAX_SHARD_SIZE,
    preview: tuple[int, int] | None = (128, 64),
) -> dict[str, Any]:
    """Write a whole set into a folder and return its manifest; memory holds one image at a time.

    Args:
        path: the folder, made if need be.
        items: the images, in the order they are kept.
        provenance: as in `build_manifest`; or a function that makes it after all images have been
            read.
        total: the expected number of images, if it is to be checked.
        shard_size: images per shard, at most MAX_SHARD_SIZE.
        preview: rows and columns of a picture in the contact sheets; None makes no sheets.

    Raises:
        ValueError: there are no images or not `total`, or one cannot be packed.
    """
    number_of_shards(1 if total is None else total, shard_size)
    (path / "shards").mkdir(parents=True, exist_ok=True)
    packed: list[Shard] = []
    stream = _counted(items, total)
    for first in stream:
        number = len(packed)
        place = path / "shards" / f"{number}.unfinished"
        chunk = chain([first], islice(stream, shard_size - 1))
        packed.append(pack_shard(chunk, place, number, total=0))
        if preview:
            (path / "preview").mkdir(exist_ok=True)
            shown = _shown_images(packed[-1])
            labels = [PurePosixPath(image["name"]).stem for image in shown]
            sheet = preview_sheet(_read_images(packed[-1], shown), labels=labels, cell=preview)
            (path / preview_name(number)).write_bytes(sheet)
    if not packed:
        raise ValueError("an image set needs at least one image")
    sidecars = {}
    for number in range(len(packed)):
        shard = packed[number] = renumber_shard(packed[number], number, total=len(packed))
        shard.tar.rename(path / shard.tar_name)
        (path / shard.sidecar_name).write_bytes(shard.sidecar)
        sidecars[shard.sidecar_name] = shard.sidecar
    made = provenance() if callable(provenance) else provenance
    content = build_manifest(sidecars, provenance=made)
    (path / "manifest.json").write_bytes(manifest_bytes(content))
    return content


def _counted(items: Iterable[Item], total: int | None) -> Iterator[Item]:
    """The images, one by one.

    Raises:
        ValueError: there are not as many as announced.
    """
    count = 0
    for count, item in enumerate(items, 1):
        if total is not None and count > total:
            raise ValueError(f"{total} images were announced, but there are more")
        yield item
    if total is not None and count < total:
        raise ValueError(f"{total} images were announced, but there are only {count}")


def _shown_images(shard: Shard) -> list[SidecarImage]:
    """The sidecar entries of the images on a packed shard's contact sheet."""
    images = read_sidecar(shard.sidecar, where=shard.sidecar_name)["images"]
    return [images[i] for i in preview_indices(len(images))]


def _read_images(shard: Shard, images: Iterable[SidecarImage]) -> Iterator[bytes]:
    """Images of a packed shard, read from its tar again."""
    with shard.tar.open("rb") as file:
        for image in images:
            file.seek(image["offset"])
            yield file.read(image["size"])


class ImageSet:
    """A finished set in a local folder, open for reading.

    records lists every image, in the order of the shards. Images are read at random with `read`,
    each checked against its sha256; `verify` reads and checks everything at once.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], records: Records) -> None:
        self.path = path
        self.manifest = manifest
        self.records = records
        self._open_tar = lru_cache(MAX_OPEN_TARS)(self._open_tar_anew)

    @classmethod
    def open(cls, path: Path, *, shards: Collection[int] | None = None) -> Self:
        """Open the set in `path`, checking its manifest and its sidecars.

        Args:
            path: the folder.
            shards: the numbers of those that will be read from, whose tars must be there; None
                means all.

        Raises:
            FileNotFoundError: there is no manifest, or a shard's tar or sidecar is missing.
            ValueError: the manifest has another format, or a file differs from its record.
        """
        content = read_manifest(path)

        def records() -> Iterator[Record]:
            for number, shard in enumerate(content["shards"]):
                sidecar = json_bytes(_expect_file(path, shard["sidecar"]))
                yield from parse_sidecar(sidecar, number, content, where=str(path))
                if shards is None or number in shards:
                    _check_tar_size(path, shard)

        return cls(path, content, pack_records(records()))

    def read(self, record: Record) -> bytes:
        """The bytes of one image; several threads may read at once.

        Raises:
            ValueError: they are not the bytes that were packed.
        """
        tar_name = self.manifest["shards"][record.shard]["tar"]
        try:
            data = self._open_tar(record.shard).read(record.offset, record.size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path / tar_name)) from error
        if sha256(data) != record.sha256:
            raise ValueError(
                f"{self.path}: shard {tar_name} is damaged: the sha256 of image"
                f" {record.name} is not the recorded one"
            )
        return data

    def _open_tar_anew(self, shard: int) -> "_OpenTar":
        return _OpenTar(os.open(self.path / self.manifest["shards"][shard]["tar"], os.O_RDONLY))

    def records_in_splits(self, *splits: str) -> Records:
        """The records of one or more splits, in the order of the set.

        Raises:
            ValueError: there is no image in any of them.
        """
        found = self.records.in_splits(splits)
        if not found:
            have = ", ".join(self.manifest["splits"])
            raise ValueError(
                f"{self.path} has no images in split {' or '.join(splits)}; it has {have}"
            )
        return found

    def verify(self, shards: Collection[int] | None = None) -> None:
        """Read every byte, or those of some shards, and compare it with what was recorded.

        Raises:
            ValueError: a shard is damaged; the line names it and, if one is hit, the image.
        """
        for number, shard in enumerate(self.manifest["shards"]):
            if shards is not None and number not in shards:
                continue
            with (self.path / shard["tar"]).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != shard["sha256"]:
                for record in self.records:
                    if record.shard == number:
                        self.read(record)
                raise ValueError(
                    f"{self.path}: shard {shard['tar']} is damaged: its sha256 is not that of "
                    "the manifest"
                )

    def close(self) -> None:
        """Close the shards that were read from."""
        self._open_tar.cache_clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _OpenTar:
    """A tar that stays open while a reading thread or the cache holds it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def __del__(self) -> None:
        os.close(self._descriptor)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the set in a folder.

    Raises:
        FileNotFoundError: there is none: the set was never finished, or this is not a set.
        ValueError: it has another format.
    """
    file = path / "manifest.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} has no manifest.json: it is not a finished image set")
    return parse_manifest(json_bytes(file), where=str(file))


def parse_manifest(data: bytes, *, where: str) -> dict[str, Any]:
    """The content of a manifest.json found at `where`.

    Raises:
        ValueError: it has another format or an unknown version.
    """
    content = read_json(data, Any, where=where)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{where} is not the manifest of an image set ({FORMAT})")
    if content.get("version") != VERSION:
        raise ValueError(
            f"{where} has format version {content.get('version')!r}; this software reads {VERSION}"
        )
    check_shape(content, Manifest, where=where)
    return content


def _check_tar_size(path: Path, shard: Mapping[str, Any]) -> None:
    tar_size = _expect_file(path, shard["tar"]).stat().st_size
    if tar_size != shard["size"]:
        raise ValueError(
            f"{path}: shard {shard['tar']} is damaged: it has {tar_size} bytes"
            f" where {shard['size']} are recorded"
        )


def _expect_file(path: Path, name: str) -> Path:
    file = path / name
    if not file.is_file():
        raise FileNotFoundError(f"{path}: shard file {name} is missing")
    return file
