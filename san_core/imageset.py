"""The one format for collections of images: tar shards, a sidecar index beside each, a manifest.

Person images, PIT textures and pseudo textures all travel in it:

    manifest.json                       written last, so its presence means "finished"
    shards/00007-of-00130.<hash>.tar    uncompressed ustar, at most 1,000 images
    shards/00007-of-00130.<hash>.json   sidecar: size and sha256 of the tar; where each image lies
    preview/00007.png                   contact sheet, for people

Equal images give equal bytes: tar entries carry no time and no owner, the hash in a shard's name is
that of its content, and nothing in the manifest tells when, where or by whom it was written.
Everything read is checked against its sha256, because a flipped bit in a JPEG decodes without
complaint; a set that is unfinished or damaged is refused by a line naming the shard and the image.
"""

import hashlib
import io
import json
import os
import tarfile
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from san_core.pixels import contact_sheet, decode, encode_png

FORMAT = "san-imageset"
VERSION = 1
MAX_SHARD = 1000
SPLITS = ("train", "val", "query", "gallery", "multi", "images")
_TAR_BLOCK = 512
_MANIFEST_KEYS = {"fingerprint", "count", "splits", "provenance", "shards"}
_RECORD_KEYS = ("name", "pid", "camid", "split", "offset", "size", "sha256")


class Item(NamedTuple):
    """An image on its way into a set.

    name is a relative POSIX path, unique in the set; data the bytes of a JPEG or PNG file; pid and
    camid are None where unknown, camid counts from 0; fields is whatever else is known of the
    image, as JSON.
    """

    name: str
    data: bytes
    pid: int | None
    camid: int | None
    split: str
    fields: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Record:
    """An image in a set: what is known of it, and where its bytes lie (shard, offset, size)."""

    name: str
    pid: int | None
    camid: int | None
    split: str
    shard: int
    offset: int
    size: int
    sha256: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class Shard(NamedTuple):
    """A packed shard: a tar, which lies in a file, and its sidecar, to be written after it."""

    tar_name: str
    tar: Path
    size: int
    sha256: str
    sidecar_name: str
    sidecar: bytes


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value, for hashing and for files that must not vary."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def sha256(data: bytes) -> str:
    """The sha256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def pack(items: Iterable[Item], path: Path, number: int, *, total: int) -> Shard:
    """Pack images into shard `number` (from 0) of `total`, its tar in the file `path`.

    The images are taken one by one, as they are made; memory holds none but the last.

    Raises:
        ValueError: there are no images or more than MAX_SHARD, or one has an impossible name or
            an unknown split.
    """
    images = []
    with path.open("wb") as file:
        content = _Hashed(file)
        with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for item in items:
                _check_item(item)
                images.append(_described(item, content.tell() + _TAR_BLOCK))
                info = tarfile.TarInfo(item.name)
                info.size = len(item.data)
                try:
                    tar.addfile(info, io.BytesIO(item.data))
                except ValueError as error:
                    raise ValueError(f"image {item.name!r}: {error}") from error
        size, digest = content.tell(), content.hexdigest()
    if not 1 <= len(images) <= MAX_SHARD:
        raise ValueError(f"a shard holds 1 to {MAX_SHARD} images, not {len(images)}")
    stem = f"shards/{number:05d}-of-{total:05d}.{digest[:12]}"
    sidecar = {"tar": f"{stem}.tar", "size": size, "sha256": digest, "images": images}
    return Shard(f"{stem}.tar", path, size, digest, f"{stem}.json", canonical_json(sidecar))


class _Hashed(io.RawIOBase):
    """A file that is written from its beginning to its end, and hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: Any) -> int:
        self._hash.update(data)
        written = self._file.write(data)
        self._size += written
        return written

    def tell(self) -> int:
        return self._size

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _described(item: Item, offset: int) -> dict[str, Any]:
    """What a sidecar says of an image whose bytes begin at `offset` of the tar."""
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


def _check_item(item: Item) -> None:
    path = PurePosixPath(item.name)
    if not item.name or path.is_absolute() or ".." in path.parts or str(path) != item.name:
        raise ValueError(f"image name {item.name!r} is not a plain relative path")
    if item.split not in SPLITS:
        raise ValueError(f"image {item.name}: split {item.split!r} is none of {', '.join(SPLITS)}")
    if clash := set(item.fields) & set(_RECORD_KEYS):
        raise ValueError(f"image {item.name}: field {min(clash)!r} is the format's own")


def manifest(
    sidecars: Mapping[str, bytes],
    *,
    provenance: Mapping[str, Any],
    fingerprint: str | None = None,
) -> dict[str, Any]:
    """The manifest of a finished set.

    Args:
        sidecars: the bytes of every sidecar by its name, in shard order.
        provenance: what the images were made from; without times, hosts or paths.
        fingerprint: identifies the set; by default made from its content.

    Raises:
        ValueError: two images have one name.
    """
    shards = []
    names: Counter[str] = Counter()
    splits: dict[str, list[Mapping[str, Any]]] = {}
    for name, data in sidecars.items():
        shards.append(shard_entry(name, data))
        for image in json.loads(data)["images"]:
            names[image["name"]] += 1
            splits.setdefault(image["split"], []).append(image)
    if repeated := [name for name, n in names.items() if n > 1]:
        raise ValueError(f"{len(repeated)} image names occur twice, such as {min(repeated)!r}")
    counts = {
        split: {
            "images": len(images),
            "identities": len({i["pid"] for i in images if i["pid"] is not None}),
            "cameras": len({i["camid"] for i in images if i["camid"] is not None}),
        }
        for split, images in sorted(splits.items())
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


def shard_entry(name: str, sidecar: bytes) -> dict[str, Any]:
    """What a manifest says of a shard, from the name and the bytes of its sidecar."""
    content = json.loads(sidecar)
    return {
        "tar": content["tar"],
        "size": content["size"],
        "sha256": content["sha256"],
        "sidecar": name,
        "sidecar_size": len(sidecar),
        "sidecar_sha256": sha256(sidecar),
        "images": len(content["images"]),
    }


def manifest_bytes(content: Mapping[str, Any]) -> bytes:
    """The bytes of manifest.json, indented for people; equal content gives equal bytes."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    return text.encode() + b"\n"


def write(
    path: Path,
    items: Iterable[Item],
    *,
    total: int,
    provenance: Mapping[str, Any],
    shard_size: int = MAX_SHARD,
    preview: tuple[int, int] | None = (128, 64),
) -> dict[str, Any]:
    """Write a whole set into a folder and return its manifest; memory holds one shard at a time.

    Args:
        path: the folder, made if need be.
        items: the images, in the order they are kept.
        total: how many there will be, since shard names carry the number of shards.
        provenance: as in `manifest`.
        shard_size: images per shard, at most MAX_SHARD.
        preview: rows and columns of a picture in the contact sheets; None makes no sheets.

    Raises:
        ValueError: there are not `total` images, or one cannot be packed.
    """
    n_shards = number_of_shards(total, shard_size)
    (path / "shards").mkdir(parents=True, exist_ok=True)
    sidecars = {}
    stream = iter(items)
    for number in range(n_shards):
        chunk = list(islice(stream, shard_size))
        expected = min(shard_size, total - number * shard_size)
        if len(chunk) != expected:
            got = number * shard_size + len(chunk)
            raise ValueError(f"{total} images were announced, but there are only {got}")
        shard = pack(chunk, path / "shards" / "unfinished.tar", number, total=n_shards)
        shard.tar.rename(path / shard.tar_name)
        (path / shard.sidecar_name).write_bytes(shard.sidecar)
        sidecars[shard.sidecar_name] = shard.sidecar
        if preview:
            (path / "preview").mkdir(exist_ok=True)
            shown = [chunk[i].data for i in previewed(len(chunk))]
            sheet = preview_sheet(shown, cell=preview)
            (path / preview_name(number)).write_bytes(sheet)
    if next(stream, None) is not None:
        raise ValueError(f"{total} images were announced, but there are more")
    content = manifest(sidecars, provenance=provenance)
    (path / "manifest.json").write_bytes(manifest_bytes(content))
    return content


def number_of_shards(total: int, shard_size: int) -> int:
    """How many shards `total` images take.

    Raises:
        ValueError: there are no images, or the shard size is not within 1 to MAX_SHARD.
    """
    if not 1 <= shard_size <= MAX_SHARD:
        raise ValueError(f"a shard holds 1 to {MAX_SHARD} images, not {shard_size}")
    if total < 1:
        raise ValueError("an image set needs at least one image")
    return -(-total // shard_size)


def preview_name(number: int) -> str:
    """Where the contact sheet of a shard lies."""
    return f"preview/{number:05d}.png"


def previewed(count: int, *, most: int = 60) -> range:
    """Which of `count` images a contact sheet shows: at most `most`, evenly picked."""
    return range(0, count, max(1, -(-count // most)))


def preview_sheet(images: Sequence[bytes], *, cell: tuple[int, int]) -> bytes:
    """A contact sheet (PNG) of encoded images, each in a cell of `cell` = (rows, columns)."""
    pictures = [decode(data) for data in images]
    return encode_png(contact_sheet(pictures, columns=15, cell=cell))


class ImageSet:
    """A finished set in a local folder, open for reading.

    records lists every image, in the order of the shards. Images are read at random with `read`,
    each checked against its sha256; `verify` reads and checks everything at once.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], records: tuple[Record, ...]) -> None:
        self.path = path
        self.manifest = manifest
        self.records = records
        self._files: dict[int, int] = {}
        self._opening = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the set in `path`, checking its manifest and its sidecars.

        Raises:
            FileNotFoundError: there is no manifest, or a shard's tar or sidecar is missing.
            ValueError: the manifest is none of this format, or a file is not the recorded one.
        """
        content = read_manifest(path)
        records: list[Record] = []
        for number, shard in enumerate(content["shards"]):
            sidecar = _expect_file(path, shard["sidecar"]).read_bytes()
            records += records_of(sidecar, number, content, where=str(path))
            tar_size = _expect_file(path, shard["tar"]).stat().st_size
            if tar_size != shard["size"]:
                raise ValueError(
                    f"{path}: shard {shard['tar']} is damaged: it has {tar_size} bytes"
                    f" where {shard['size']} are recorded"
                )
        return cls(path, content, tuple(records))

    def read(self, record: Record) -> bytes:
        """The bytes of one image; several threads may read at once.

        Raises:
            ValueError: they are not the bytes that were packed.
        """
        data = os.pread(self._file(record.shard), record.size, record.offset)
        if sha256(data) != record.sha256:
            tar_name = self.manifest["shards"][record.shard]["tar"]
            raise ValueError(
                f"{self.path}: shard {tar_name} is damaged: the sha256 of image"
                f" {record.name} is not the recorded one"
            )
        return data

    def _file(self, shard: int) -> int:
        """The descriptor of a shard's tar, opened once."""
        with self._opening:
            if shard not in self._files:
                tar = self.path / self.manifest["shards"][shard]["tar"]
                self._files[shard] = os.open(tar, os.O_RDONLY)
            return self._files[shard]

    def of_split(self, *splits: str) -> list[Record]:
        """The records of one or more splits, in the order of the set.

        Raises:
            ValueError: there is no image in any of them.
        """
        found = [record for record in self.records if record.split in splits]
        if not found:
            have = ", ".join(self.manifest["splits"])
            raise ValueError(
                f"{self.path} has no images in split {' or '.join(splits)}; it has {have}"
            )
        return found

    def verify(self) -> None:
        """Read every byte and compare it with what was recorded.

        Raises:
            ValueError: a shard is damaged; the line names it and, if one is hit, the image.
        """
        for number, shard in enumerate(self.manifest["shards"]):
            with (self.path / shard["tar"]).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != shard["sha256"]:
                for record in self.records:
                    if record.shard == number:
                        self.read(record)
                raise ValueError(
                    f"{self.path}: shard {shard['tar']} is damaged: its sha256 is not the recorded"
                )

    def close(self) -> None:
        """Close the shards that were read from."""
        while self._files:
            os.close(self._files.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the set in a folder.

    Raises:
        FileNotFoundError: there is none, so the set was never finished, or this is no set.
        ValueError: it is none of this format.
    """
    file = path / "manifest.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} has no manifest.json: it is not a finished image set")
    return parse_manifest(file.read_bytes(), where=str(file))


def parse_manifest(data: bytes, *, where: str) -> dict[str, Any]:
    """The content of a manifest.json found at `where`.

    Raises:
        ValueError: it is none of this format, or of a version not known here.
    """
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{where} is not the manifest of an image set ({FORMAT})")
    if content.get("version") != VERSION:
        raise ValueError(
            f"{where} has format version {content.get('version')!r}; this software reads {VERSION}"
        )
    if missing := _MANIFEST_KEYS - content.keys():
        raise ValueError(f"{where} is damaged: it has no {min(missing)}")
    return content


def _expect_file(path: Path, name: str) -> Path:
    file = path / name
    if not file.is_file():
        raise FileNotFoundError(f"{path}: shard file {name} is missing")
    return file


def records_of(
    sidecar: bytes, shard: int, content: Mapping[str, Any], *, where: str
) -> list[Record]:
    """The images of shard number `shard` of a manifest, from the bytes of its sidecar.

    Raises:
        ValueError: they are not the bytes that the manifest speaks of.
    """
    recorded = content["shards"][shard]
    if sha256(sidecar) != recorded["sidecar_sha256"]:
        raise ValueError(
            f"{where}: shard {recorded['sidecar']} is damaged: its sha256 is not the recorded"
        )
    records = []
    for image in json.loads(sidecar)["images"]:
        known = {key: image.pop(key) for key in _RECORD_KEYS}
        records.append(Record(**known, shard=shard, fields=image))
    return records
