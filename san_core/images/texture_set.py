"""The identity, the units of work and the file names of a set of pseudo textures.

The textures of a data set are made by several workers, perhaps over several attempts, and sealed by
another step. All must agree on the place of the textures and on the images of each shard. The
functions here define both.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypedDict

import numpy as np

from san_core.checked_json import check_shape, read_json
from san_core.images.imageset import ShardEntry
from san_core.images.index import Records
from san_core.images.shard import (
    MAX_SHARD_SIZE,
    Item,
    Record,
    Size,
    Split,
    canonical_json,
    number_of_shards,
    sha256,
)
from san_core.recipe import Recipe

RECEIPT_FORMAT = "san-receipt"
PRECISIONS = ("float32", "float16", "bfloat16")
FUSIONS = ("none", "person")
MOST_FUSED = 1000  # pictures of a person whose textures become one


@dataclass(frozen=True)
class TextureSettings:
    """Everything that determines the textures of a data set, and nothing else.

    source is the sha256 of the generator's weights, or of the content of a folder of ready-made
    textures; dataset the sha256 of the data set's manifest. The machine, the number of workers, the
    place and the time must not be part of it, or interrupted work could not be resumed. fuse
    "person" gives all images of a person one texture.

    Raises:
        ValueError: the shard size, the precision or the fusion is not allowed.
    """

    source: str
    dataset: str
    split: str
    texture_size: int
    shard_size: int = MAX_SHARD_SIZE
    precision: str = "float32"
    codec: str = "png"
    format: str = "san-textures-1"
    fuse: str = "none"

    def __post_init__(self) -> None:
        if not 1 <= self.shard_size <= MAX_SHARD_SIZE:
            raise ValueError(f"a shard holds 1 to {MAX_SHARD_SIZE} images, not {self.shard_size}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is not one of {', '.join(PRECISIONS)}")
        check_fuse(self.fuse)

    @property
    def fingerprint(self) -> str:
        """The sha256 that identifies these textures."""
        fields = asdict(self)
        if self.fuse == "none":  # as for textures from before fusion existed
            del fields["fuse"]
        return sha256(canonical_json(fields))

    @property
    def folder(self) -> str:
        """The folder under the destination that holds these textures and no others."""
        return self.fingerprint[:16]


def check_fuse(fuse: str) -> None:
    """Raise ValueError if textures cannot be fused in that way."""
    if fuse not in FUSIONS:
        raise ValueError(f"fuse {fuse!r} is not one of {', '.join(FUSIONS)}")


def check_generator(recipe: Recipe, where: object, *, fuse: str = "none") -> None:
    """Refuse a network that was not trained to make textures, saved at `where`.

    Raises:
        ValueError: it is a network of ReID training, with or without a decoder; or textures are to
            be fused and it does not predict visibility.
    """
    if fuse != "none" and recipe.texture_from != "copy":
        raise ValueError(
            f"fuse {fuse!r} weights textures by the texels that each picture shows. Only "
            f"generators trained with texture_from=copy predict these; {where} has "
            "texture_from=regress"
        )
    if recipe.needs_identities or not recipe.needs_decoder:
        raise ValueError(f"{where} is not a texture generator; train_san_pg makes one")


class WorkUnit(NamedTuple):
    """One shard's worth of work: shard `number` of `total`, and the images it is made from.

    `whole` has all images of a person whose images in this shard are only a part.
    """

    number: int
    total: int
    records: Records
    whole: Records | None = None


def split_into_units(records: Records, shard_size: int, *, fuse: str = "none") -> list[WorkUnit]:
    """The images of a data set cut into shards, in their order.

    For fusion, shards hold whole people in the order of their first images. A person with more
    images than a shard holds gets separate shards.

    Raises:
        ValueError: there are no images, or the textures of two would have the same name.
    """
    _check_texture_names(records)
    if fuse == "person":
        parts = _people_in_shards(records, shard_size)
        return [
            WorkUnit(
                number, len(parts), records.picked(rows), records.picked(whole) if whole else None
            )
            for number, (rows, whole) in enumerate(parts)
        ]
    total = number_of_shards(len(records), shard_size)
    return [
        WorkUnit(number, total, records[number * shard_size : (number + 1) * shard_size])
        for number in range(total)
    ]


def fused_with(record: Record) -> int | str:
    """The key of images whose textures are fused: the person, if known."""
    return record.pid if record.pid is not None and record.pid > 0 else record.name


def _people_in_shards(records: Records, size: int) -> list[tuple[list[int], list[int]]]:
    """For every shard the numbers of its images, and of all images of a person it holds in part."""
    people: dict[int | str, list[int]] = {}
    for number, record in enumerate(records):
        people.setdefault(fused_with(record), []).append(number)
    shards: list[tuple[list[int], list[int]]] = []
    open_shard: list[int] = []
    for rows in people.values():
        if open_shard and len(open_shard) + len(rows) > size:
            shards.append((open_shard, []))
            open_shard = []
        if len(rows) > size:
            shards += [(rows[i : i + size], rows) for i in range(0, len(rows), size)]
        else:
            open_shard = open_shard + rows
    return shards + ([(open_shard, [])] if open_shard else [])


def _check_texture_names(records: Records) -> None:
    """Check that the textures of all images have different names.

    Memory holds eight bytes an image: names are compared only where their hashes are equal.
    """
    names = (hash(texture_name(record.name)) for record in records)
    hashes = np.sort(np.fromiter(names, np.int64, len(records)))
    suspected = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not suspected:
        return
    known: dict[str, str] = {}
    for record in records:
        texture = texture_name(record.name)
        if hash(texture) in suspected and known.setdefault(texture, record.name) != record.name:
            raise ValueError(
                f"images {known[texture]} and {record.name} differ only in their endings, so "
                "their textures would have the same name; rename one of them"
            )


def units_of_worker(worker: str, work: Sequence[WorkUnit]) -> list[WorkUnit]:
    """The units that worker "i/n" makes: every n-th, beginning with the i-th (from 0).

    Raises:
        ValueError: `worker` is not of that form, or i is not below n.
    """
    number, count = parse_worker(worker)
    return list(work[number::count])


def parse_worker(worker: str) -> tuple[int, int]:
    """The numbers i and n of worker "i/n".

    Raises:
        ValueError: `worker` is not of that form, or i is not below n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", worker)
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(f"worker {worker!r} is not i/n with i from 0 to n - 1, such as 0/2")
    return int(match[1]), int(match[2])


def texture_name(image_name: str) -> str:
    """The name of the texture of an image: its own, as PNG."""
    return str(PurePosixPath(image_name).with_suffix(".png"))


def texture_item(record: Record, png: bytes) -> Item:
    """The texture of an image as an item of its own set; the field `image` names the image."""
    return Item(
        texture_name(record.name),
        png,
        record.pid,
        record.camid,
        record.split,
        {"image": record.name},
    )


def parse_sidecar_name(sidecar_name: str) -> tuple[int, int]:
    """The number of a shard and the total, from the name of its sidecar.

    Raises:
        ValueError: it is not the name of a sidecar.
    """
    match = re.fullmatch(r"shards/(\d{5,})-of-(\d{5,})\.[0-9a-f]{12}\.json", sidecar_name)
    if not match:
        raise ValueError(f"{sidecar_name!r} is not the name of a shard's sidecar")
    return int(match[1]), int(match[2])


def build_receipt(
    shards: Sequence[Mapping[str, Any]], *, uri: str, worker: str, split: str
) -> dict[str, Any]:
    """The receipt of a worker: the entries of its shards, and their place."""
    return {
        "format": RECEIPT_FORMAT,
        "uri": uri,
        "worker": worker,
        "split": split,
        "count": sum(shard["images"] for shard in shards),
        "shards": list(shards),
    }


class Receipt(TypedDict):
    """The content that `build_receipt` returns."""

    uri: str
    worker: str
    split: Split
    count: Size
    shards: list[ShardEntry]


def parse_receipt(data: bytes, *, where: str) -> dict[str, Any] | None:
    """The receipt in a manifest.json found at `where`; None if it holds something else.

    Raises:
        ValueError: it is not JSON, or an incomplete receipt.
    """
    content = read_json(data, Any, where=where)
    if not isinstance(content, dict) or content.get("format") != RECEIPT_FORMAT:
        return None
    check_shape(content, Receipt, where=where)
    return content
