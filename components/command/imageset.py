"""`python -m components imageset ls|verify|extract PLACE`: list, check or extract an image set.

PLACE is the folder or the URI of an image set: person images, PIT, textures. It may also be an
artifact that refers to one: a sealed manifest, or the receipt of a generate_textures worker.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.command.once import OnceParser, status_of
from components.process.messages import os_error_message, printable
from components.storage.places import open_storage
from components.storage.store import Storage

if TYPE_CHECKING:
    from san_core.images.shard import Record

THREADS = 16


class StoredSet(NamedTuple):
    """An image set in storage: its shards, as its manifest or receipt names them, and images."""

    storage: Storage
    content: Mapping[str, Any]
    records: "Sequence[Record]"


def imageset_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = OnceParser(
        prog="python -m components imageset",
        description="List the images of an image set, check them, or extract them.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="ls|verify|extract")
    listing = commands.add_parser("ls", help="list the images of a set")
    checking = commands.add_parser("verify", help="read every byte and report what is damaged")
    taking = commands.add_parser("extract", help="write images as files")
    for one in (listing, checking, taking):
        one.add_argument(
            "place", help="folder or URI of an image set, or of an artifact that refers to one"
        )
    for one in (listing, taking):
        one.add_argument("--split", help="only images of this split")
        one.add_argument(
            "--name", metavar="GLOB", help="only images whose name matches, such as '0002_*'"
        )
    taking.add_argument("--output", type=Path, required=True, help="folder to write them into")
    return parser


def run_imageset(argv: Sequence[str]) -> int:
    """Run the command; return the exit status: 1 if a set is damaged or cannot be read."""
    parser = imageset_parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:
        return status_of(stop)
    try:
        shelf = open_stored_set(options.place)
        if options.command == "verify":
            return _verify_shards(shelf)
        chosen = _select_records(shelf, options)
        if options.command == "ls":
            _print_records(shelf, chosen)
        else:
            _extract_images(shelf, chosen, options.output)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        told = os_error_message(error) if isinstance(error, OSError) else str(error)
        sys.stderr.write(f"imageset: {printable(' '.join(told.split()))}\n")
        return 1
    return 0


def open_stored_set(place: str) -> StoredSet:
    """The set at a place, with its sidecars read and compared with the manifest.

    Raises:
        FileNotFoundError: there is no manifest, or a sidecar is missing.
        ValueError: the manifest is not of an image set, or a sidecar is damaged.
    """
    from components.storage.staging import read_records

    at = open_storage(place)
    content = _read_content(at)
    storage = open_storage(content.get("uri", place))
    return StoredSet(storage, content, read_records(storage, content))


def _read_content(at: Storage) -> dict[str, Any]:
    """The manifest or receipt at a place."""
    from san_core.images.imageset import parse_manifest
    from san_core.images.texture_set import parse_receipt

    try:
        data = at.get("manifest.json")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{at.uri} has no manifest.json: it is not a finished image set"
        ) from error
    where = f"{at.uri}/manifest.json"
    return parse_receipt(data, where=where) or parse_manifest(data, where=where)


def _select_records(shelf: StoredSet, options: argparse.Namespace) -> "list[Record]":
    """The images that the options select.

    Raises:
        ValueError: they select none.
    """
    chosen = [
        record
        for record in shelf.records
        if options.split in (None, record.split)
        and (options.name is None or fnmatch(record.name, options.name))
    ]
    if not shelf.records:
        raise ValueError(f"{shelf.storage.uri} holds no images")
    if not chosen:
        asked = [f"--{k} {v}" for k in ("split", "name") if (v := getattr(options, k)) is not None]
        raise ValueError(
            f"none of the {len(shelf.records)} images in {shelf.storage.uri} matches"
            f" {' '.join(asked)}"
        )
    return chosen


def _print_records(shelf: StoredSet, chosen: "Sequence[Record]") -> None:
    """Print a line per image, in columns, and a last line with totals."""
    called = [key for key in ("person", "camera") if any(key in r.fields for r in chosen)]
    rows = [["name", "split", "pid", "camid", *called, "bytes"]]
    for r in chosen:
        known = [r.pid, r.camid, *(r.fields.get(key) for key in called)]
        told = ["-" if value is None else str(value) for value in known]
        rows.append([r.name, r.split, *told, str(r.size)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        _print_line(f"{name.ljust(widths[0])}  {'  '.join(cells)}")
    size = sum(record.size for record in chosen) / 1e6
    shards = len({record.shard for record in chosen})
    _print_line(f"{len(chosen)} images in {shards} shards, {size:.1f} MB, at {shelf.storage.uri}")


def _verify_shards(shelf: StoredSet) -> int:
    """Compare every byte with its record; print a line for each damaged shard."""
    from components.process.progress import Progress
    from components.process.threads import map_bounded, thread_pool

    shards = shelf.content["shards"]
    damaged = 0
    with thread_pool(4) as pool, Progress(len(shards), "shards") as bar:
        numbers = range(len(shards))
        for said in map_bounded(
            pool, lambda number: _describe_damage(shelf, number), numbers, ahead=8
        ):
            bar.add()
            if said:
                damaged += 1
                _print_line(said)
    size = sum(shard["size"] for shard in shards) / 1e6
    count = f"{len(shelf.records)} images in {len(shards)} shards, {size:.1f} MB"
    if "worker" in shelf.content:
        count += f", of worker {shelf.content['worker']}"
    _print_line(f"damaged: {damaged} of {len(shards)} shards" if damaged else f"whole: {count}")
    return 1 if damaged else 0


def _describe_damage(shelf: StoredSet, number: int) -> str:
    """The damage of a shard, in words; empty if it has none."""
    shard = shelf.content["shards"][number]
    found = shelf.storage.stat(shard["tar"])
    if found is None:
        return f"{shard['tar']} is missing"
    if found.size != shard["size"]:
        return f"{shard['tar']} has {found.size} bytes, but {shard['size']} are recorded"
    from components.storage.texture_store import tar_digest

    if tar_digest(shelf.storage, shard["tar"], shard["size"]) == shard["sha256"]:
        return ""
    hit = [r.name for r in shelf.records if r.shard == number and not _is_image_whole(shelf, r)]
    return f"{shard['tar']} is damaged: " + (", ".join(hit) or "none of its images, but the tar")


def _is_image_whole(shelf: StoredSet, record: "Record") -> bool:
    from san_core.images.shard import sha256

    return sha256(_read_image(shelf, record)) == record.sha256


def _read_image(shelf: StoredSet, record: "Record") -> bytes:
    """The bytes at the recorded place of an image."""
    tar = shelf.content["shards"][record.shard]["tar"]
    return shelf.storage.get_range(tar, record.offset, record.size)


def _extract_images(shelf: StoredSet, chosen: "Sequence[Record]", folder: Path) -> None:
    """Write images as files under their names; files that exist already are kept.

    Raises:
        ValueError: an image is damaged, or another file has its name.
    """
    from components.process.progress import Progress
    from components.process.threads import map_bounded, thread_pool

    with thread_pool(THREADS) as pool, Progress(len(chosen), "images") as bar:
        for _ in map_bounded(
            pool, lambda r: _write_image(shelf, r, folder), chosen, ahead=2 * THREADS
        ):
            bar.add()
    _print_line(f"{len(chosen)} images are in {folder}")


def _write_image(shelf: StoredSet, record: "Record", folder: Path) -> None:
    from components.storage.outputs import write_file
    from components.storage.store import check_object_name
    from san_core.images.shard import sha256

    check_object_name(record.name)
    file = folder / record.name
    if file.exists():
        if sha256(file.read_bytes()) != record.sha256:
            raise ValueError(f"{file} exists and is another picture; name another --output")
        return
    data = _read_image(shelf, record)
    if sha256(data) != record.sha256:
        raise ValueError(f"{shelf.storage.uri}: image {record.name} is damaged")
    write_file(file, data)


def _print_line(line: str) -> None:
    sys.stdout.write(printable(" ".join(line.split("\n"))) + "\n")
