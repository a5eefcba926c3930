"""A shard of an image set: at most 1,000 images in a tar, and a sidecar that indexes it.

    shards/00007-of-00130.<hash>.tar    uncompressed ustar
    shards/00007-of-00130.<hash>.json   size and sha256 of the tar; where each image lies in it

Equal images give equal bytes: tar entries carry no time and no owner, and the hash in a shard's
name is that of its content.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO, NamedTuple, TypedDict

from san_core.checked_json import Rule, read_json

MAX_SHARD_SIZE = 1000
MOST_FILE_BYTES = 256 << 20  # of an image or an image table that is read at once
SPLITS = ("train", "val", "query", "gallery", "multi", "images")
_TAR_BLOCK = 512
_SHORT_NAME_BYTES, _SIZE_DIGITS = (
    100,
    11,
)  # bytes of a name, and digits of a size, in the header of a tar
_MOST_BYTES_OF_A_FILE_NAME = 255
_WRITE_BUFFER = 1 << 18  # bytes that are gathered before they are written

Size = Annotated[int, Rule(lambda number: number >= 0, "a whole number from 0")]
FileSize = Annotated[
    int,
    Rule(
        lambda number: 0 <= number <= MOST_FILE_BYTES, f"a whole number from 0 to {MOST_FILE_BYTES}"
    ),
]
Digest = Annotated[str, Rule(re.compile("[0-9a-f]{64}").fullmatch, "a sha256 in hexadecimal")]
PlainPath = Annotated[str, Rule(lambda name: is_plain_path(name), "a plain relative path")]
Split = Annotated[str, Rule(SPLITS.__contains__, f"one of {', '.join(SPLITS)}")]


class SidecarImage(TypedDict):
    """The sidecar entry of an image; it may have more keys, the fields of its record."""

    name: PlainPath
    pid: int | None
    camid: Size | None
    split: Split
    offset: Size
    size: FileSize
    sha256: Digest


class Sidecar(TypedDict):
    """The content of a sidecar."""

    tar: str
    size: Size
    sha256: Digest
    images: list[SidecarImage]


_RECORD_KEYS = tuple(SidecarImage.__annotations__)


class Item(NamedTuple):
    """An image to be written into a set.

    name is a relative POSIX path, unique in the set; data the bytes of a JPEG or PNG file; pid and
    camid are None where unknown, camid counts from 0; fields has further facts of the image, as
    JSON.
    """

    name: str
    data: bytes
    pid: int | None
    camid: int | None
    split: str
    fields: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Record:
    """An image in a set: its labels, and the place of its bytes (shard, offset, size)."""

    name: str
    pid: int | None
    camid: int | None
    split: str
    shard: int
    offset: int
    size: int
    sha256: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def named(self, what: str) -> str:
        """The name that a field holds, such as that of the image's texture.

        Raises:
            ValueError: the field holds no name.
        """
        found = self.fields.get(what)
        if not isinstance(found, str):
            raise ValueError(f"image {self.name} has no {what}: this is another kind of image set")
        return found


class Shard(NamedTuple):
    """A packed shard: a tar in a file, and its sidecar, which is written after it."""

    tar_name: str
    tar: Path
    size: int
    sha256: str
    sidecar_name: str
    sidecar: bytes


def canonical_json(value: Any) -> bytes:
    """Canonical JSON, for hashing and for reproducible files."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def sha256(data: bytes) -> str:
    """The sha256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def pack_shard(items: Iterable[Item], path: Path, number: int, *, total: int) -> Shard:
    """Pack images into shard `number` (from 0) of `total`, its tar in the file `path`.

    The images are read one by one; memory holds only one of them.

    Raises:
        ValueError: there are none or more than MAX_SHARD_SIZE, or one has an impossible name or
            an unknown split.
    """
    images = []
    with path.open("wb", buffering=_WRITE_BUFFER) as file:
        content = _HashingWriter(file)
        for item in items:
            _check_item(item)
            images.append(_sidecar_entry(item, content.size + _TAR_BLOCK))
            content.write(_tar_header(item))
            content.write(item.data)
            content.write(bytes(-len(item.data) % _TAR_BLOCK))
        content.write(bytes(2 * _TAR_BLOCK))  # the end mark of an archive, padded as tar does
        content.write(bytes(-content.size % tarfile.RECORDSIZE))
        size, digest = content.size, content.hexdigest()
    if not 1 <= len(images) <= MAX_SHARD_SIZE:
        raise ValueError(f"a shard holds 1 to {MAX_SHARD_SIZE} images, not {len(images)}")
    stem = _shard_stem(digest, number, total)
    sidecar = {"tar": f"{stem}.tar", "size": size, "sha256": digest, "images": images}
    return Shard(f"{stem}.tar", path, size, digest, f"{stem}.json", canonical_json(sidecar))


def _shard_stem(digest: str, number: int, total: int) -> str:
    return f"shards/{number:05d}-of-{total:05d}.{digest[:12]}"


def renumber_shard(shard: Shard, number: int, *, total: int) -> Shard:
    """A packed shard under the name it has as `number` of `total`; its tar stays where it is."""
    stem = _shard_stem(shard.sha256, number, total)
    # In canonical JSON, "tar" is the last of a sidecar's keys.
    images, found, _ = shard.sidecar.rpartition(f'"tar":"{shard.tar_name}"'.encode())
    assert found
    sidecar = images + f'"tar":"{stem}.tar"}}'.encode()
    return shard._replace(tar_name=f"{stem}.tar", sidecar_name=f"{stem}.json", sidecar=sidecar)


class _HashingWriter:
    """A file that is written from its beginning to its end, and hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)
        self.size += len(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


_BLANK_HEADER = tarfile.TarInfo("").tobuf(
    tarfile.USTAR_FORMAT
)  # of a file without name and content
_BLANK_CHECKSUM = int(_BLANK_HEADER[148:154], 8) - sum(_BLANK_HEADER[124:135])


def _tar_header(item: Item) -> bytes:
    """The header of an image in a tar: the same bytes as `tarfile`, which is slower.

    Raises:
        ValueError: the name is too long.
    """
    name, size = item.name.encode(), b"%011o" % len(item.data)
    if len(name) <= _SHORT_NAME_BYTES and len(size) == _SIZE_DIGITS:
        total = b"%06o\0 " % (_BLANK_CHECKSUM + sum(name) + sum(size))
        start = name.ljust(_SHORT_NAME_BYTES, b"\0") + _BLANK_HEADER[100:124]
        return start + size + _BLANK_HEADER[135:148] + total + _BLANK_HEADER[156:]
    info = tarfile.TarInfo(item.name)
    info.size = len(item.data)
    try:
        return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    except ValueError as error:
        raise ValueError(f"image {item.name!r}: {error}") from error


def _sidecar_entry(item: Item, offset: int) -> dict[str, Any]:
    """The sidecar entry of an image whose bytes begin at `offset` of the tar."""
    return {
        **item.fields,
        "name": item.name,
        "pid": item.pid,
        "camid": item.camid,
        "split": item.split,
        "offset": offset,
        "size": len(item.data),
        "sha256": sha256(item.data),
    }


TAR_NAME_RULE = "a tar holds names of 100 bytes, or of 155 for the folders and 100 for the file"


def name_fits_tar(name: str) -> bool:
    """Whether a tar can hold an image of that name (POSIX ustar)."""
    if len(name.encode()) <= _SHORT_NAME_BYTES:
        return True
    try:
        tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError:
        return False
    return True


def is_plain_path(name: str) -> bool:
    """Whether a name is a normalised relative POSIX path that stays below its root."""
    path = PurePosixPath(name)
    is_relative = not path.is_absolute() and ".." not in path.parts
    return bool(name) and is_relative and str(path) == name and "\0" not in name


def is_file_name(name: str) -> bool:
    """Whether a file can have a normalised path: no part is longer than 255 bytes."""
    parts = name.encode("utf-8", "surrogateescape").split(b"/")
    return is_plain_path(name) and max(map(len, parts)) <= _MOST_BYTES_OF_A_FILE_NAME


def _check_item(item: Item) -> None:
    if not is_plain_path(item.name):
        raise ValueError(f"image name {item.name!r} is not a plain relative path")
    if item.split not in SPLITS:
        raise ValueError(
            f"image {item.name}: split {item.split!r} is not one of {', '.join(SPLITS)}"
        )
    if (size := len(item.data)) > MOST_FILE_BYTES:
        raise ValueError(f"image {item.name} has {size:,} bytes; at most {MOST_FILE_BYTES:,} fit")
    if clash := set(item.fields) & set(_RECORD_KEYS):
        raise ValueError(f"image {item.name}: field {min(clash)!r} is reserved by the format")


def number_of_shards(total: int, shard_size: int) -> int:
    """How many shards `total` images take.

    Raises:
        ValueError: there are no images, or the shard size is not within 1 to MAX_SHARD_SIZE.
    """
    if not 1 <= shard_size <= MAX_SHARD_SIZE:
        raise ValueError(f"a shard holds 1 to {MAX_SHARD_SIZE} images, not {shard_size}")
    if total < 1:
        raise ValueError("an image set needs at least one image")
    return -(-total // shard_size)


def shard_entry(name: str, sidecar: bytes) -> dict[str, Any]:
    """The manifest entry of a shard, from the name and the bytes of its sidecar."""
    content = read_sidecar(sidecar, where=name)
    return {
        "tar": content["tar"],
        "size": content["size"],
        "sha256": content["sha256"],
        "sidecar": name,
        "sidecar_size": len(sidecar),
        "sidecar_sha256": sha256(sidecar),
        "images": len(content["images"]),
    }


def read_sidecar(data: bytes, *, where: str) -> Sidecar:
    """The content of the sidecar found at `where`.

    Raises:
        ValueError: it is not a sidecar.
    """
    return read_json(data, Sidecar, where=where)


def parse_sidecar(
    sidecar: bytes, shard: int, content: Mapping[str, Any], *, where: str
) -> list[Record]:
    """The images of shard number `shard` of a manifest, from the bytes of its sidecar.

    Raises:
        ValueError: they do not match the manifest, or are not a sidecar.
    """
    recorded = content["shards"][shard]
    if sha256(sidecar) != recorded["sidecar_sha256"]:
        raise ValueError(
            f"{where}: shard {recorded['sidecar']} is damaged: its sha256 is not that of the "
            "manifest"
        )
    records = []
    for told in read_sidecar(sidecar, where=f"{where}: {recorded['sidecar']}")["images"]:
        image: dict[str, Any] = {**told}
        known = {key: image.pop(key) for key in _RECORD_KEYS}
        record = Record(**known, shard=shard, fields=image)
        if record.offset + record.size > recorded["size"]:
            raise ValueError(
                f"{where}: {recorded['sidecar']}: image {record.name} would end after its tar"
            )
        records.append(record)
    return records
