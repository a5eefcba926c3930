"""Generate the pseudo ground-truth texture of every image of a data set."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from components.command.step import Input, Output
from components.storage.outputs import add_path_to_errors, atomic_folder

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from components.process.progress import Progress
    from components.storage.store import Storage
    from components.storage.texture_store import FinishedUnit
    from san_core.images.imageset import ImageSet
    from san_core.images.index import Records
    from san_core.images.pixels import Pixels
    from san_core.images.shard import Item, Record, Shard
    from san_core.images.texture_set import TextureSettings, WorkUnit
    from san_core.inference.network import Network, SeenTexture

log = logging.getLogger(__name__)

BATCH = 32


def generate_textures(
    dataset: Annotated[Path, Input("Dataset")],
    generator: Annotated[Path, Input("Model")],
    written: Annotated[Path, Output("Dataset")],
    destination: str = "",
    split: str = "train",
    worker: str = "0/1",
    shard_size: int = 1000,
    precision: str = "float32",
    fuse: str = "none",
    overwrite: bool = False,
    limit: int = 0,
    dry_run: bool = False,
    verify: str = "size",
) -> None:
    """Generate the pseudo ground-truth texture of every image of one split, shard by shard.

    Shards that this or an earlier run finished are kept. Run this step once for each worker, then
    run seal_textures.

    Args:
        dataset: the person images, an image set
        generator: SAN-PG, made by train_san_pg, or an ONNX file of it; the word shipped takes the
            package's own
        written: receipt that names the shards of this worker and where they are stored
        destination: folder or URI for textures, which get a folder of their own in it; on Kubeflow,
            empty is san-textures in the pipeline root
        split: split whose images get textures
        worker: "i/n" is worker i of n, counted from 0, which makes every n-th shard; "/n" reads i
            from JOB_COMPLETION_INDEX, which an indexed Kubernetes Job sets
        shard_size: images per shard, at most 1,000
        precision: float32, or on a GPU float16 or bfloat16
        fuse: none: one texture per image; person: one texture per person, fused from what each
            image shows, so that one image supplies the sides that another hides. Of more than 1,000
            images of a person, the 1,000 that show most are fused. person needs a generator that
            copies colours
        overwrite: whether to make finished shards again; their old files and the manifest that
            seal_textures wrote for them are deleted. If the step is killed, start it again with the
            same flags and it continues
        limit: maximum number of shards to make in this run; 0 makes all
        dry_run: whether only to report which shards exist and which are to be made
        verify: how finished shards are checked before they are kept: none, size or sha256
    """
    from components.inference.networks import open_network
    from components.process import machine
    from components.storage import retry
    from components.storage.places import open_storage
    from components.storage.staging import image_set_digest, open_image_records, open_image_set
    from components.storage.texture_store import (
        Overwriting,
        delete_replaced_shards,
        finished_units,
        sidecar_names,
    )
    from san_core.images.imageset import manifest_bytes
    from san_core.images.texture_set import (
        TextureSettings,
        build_receipt,
        check_generator,
        split_into_units,
        units_of_worker,
    )
    from san_core.model.saved import fingerprint

    if limit < 0:
        raise ValueError(f"limit {limit} is negative; 0 makes all shards")
    loaded = open_network(generator)
    check_generator(loaded.recipe, generator, fuse=fuse)
    if fuse != "none" and loaded.is_onnx:
        raise ValueError(
            f"{generator} is an ONNX file, which does not output what a picture shows; --fuse"
            f" {fuse} needs the folder of the generator"
        )
    settings = TextureSettings(
        source=fingerprint(generator),
        dataset=image_set_digest(dataset),
        split=split,
        texture_size=loaded.recipe.texture_size,
        shard_size=shard_size,
        precision=precision,
        fuse=fuse,
    )
    storage = open_storage(destination, settings.folder)
    loaded.check_precision(precision)
    worker = machine.worker_of_pod(worker)
    with open_image_records(dataset) as index:
        work = split_into_units(index.records_in_splits(split), shard_size, fuse=fuse)
        mine = units_of_worker(worker, work)
    done = finished_units(storage, {unit.number for unit in mine}, verify=verify)
    left = {unit.number for unit in mine}.difference(done)
    overwriting = Overwriting(storage, worker) if overwrite else None
    if overwriting:
        left |= overwriting.left(list(done))
    todo = [unit for unit in mine if unit.number in left][: limit or None]
    _log_plan(storage, mine, done, todo, worker=worker)
    if dry_run:
        return
    former = sidecar_names(storage) if overwrite else []
    if former and todo:
        storage.delete("manifest.json")  # it names shards that will go; seal_textures writes anew
    if overwriting:
        overwriting.note_left(left)
    if todo:
        needed = {number for unit in todo for number in (unit.whole or unit.records).shards()}
        patient = open_storage(destination, settings.folder, patience=retry.RESULT_BACKOFF)
        with open_image_set(dataset, shards=needed) as images:
            for number, made in _generate_shards(loaded, images, todo, settings, patient):
                done[number] = made
                delete_replaced_shards(storage, made, former)
                if overwriting:
                    left.discard(number)
                    overwriting.note_left(left)
    kept = [unit for unit in mine if unit.number in done]
    entries = [done[unit.number].manifest_entry() for unit in kept]
    content = build_receipt(entries, uri=storage.uri, worker=worker, split=split)
    with atomic_folder(written) as folder:
        (folder / "manifest.json").write_bytes(manifest_bytes(content))
    log.info("worker %s: %d of its %d shards are done", worker, len(kept), len(mine))


def _log_plan(
    storage: "Storage",
    mine: "Sequence[WorkUnit]",
    done: "Mapping[int, FinishedUnit]",
    todo: "Sequence[WorkUnit]",
    *,
    worker: str,
) -> None:
    """Log which shards exist and which are to be made."""
    size = sum(unit.size for unit in done.values()) / 1e6
    log.info("textures go to %s", storage.uri)
    found = len(done), len(mine), size
    log.info("worker %s: %d of its %d shards exist (%.1f MB)", worker, *found)
    numbers = [unit.number for unit in todo]
    shown = ", ".join(map(str, numbers[:20])) + (", ..." if len(numbers) > 20 else "")
    if todo:
        images = sum(len(unit.records) for unit in todo)
        log.info("to make: %d shards (%s), %d images", len(todo), shown, images)


def _generate_shards(
    generator: "Network",
    images: "ImageSet",
    todo: "Sequence[WorkUnit]",
    settings: "TextureSettings",
    storage: "Storage",
) -> "Iterator[tuple[int, FinishedUnit]]":
    """Make units and store them; yields each unit's number and what was stored.

    While a unit is computed, other threads decode its images, encode its textures and store the
    unit before it. A finished unit waits in a file, so memory holds only a few batches, however
    many images there are.
    """
    from components.process.machine import core_count
    from components.process.progress import Progress
    from components.process.scratch import temporary_folder
    from components.process.threads import thread_pool

    total = sum(len(unit.records) for unit in todo)
    sending: list[tuple[int, Future[FinishedUnit]]] = []
    with (
        temporary_folder() as room,
        thread_pool(max(2, core_count())) as pool,
        thread_pool(1) as sender,
        Progress(total, "images") as bar,
    ):
        painter = _Painter(generator, images, settings.precision, pool, {})
        for unit in todo:
            textures = _generate_pngs(painter, unit, settings.fuse)
            place = Path(room, f"{unit.number}.tar")
            shard, sheet = _pack_unit(painter, unit, textures, place, bar)
            if sending:
                number, sent = sending.pop()
                yield number, sent.result()
            sending.append(
                (unit.number, sender.submit(_store_shard, storage, shard, unit.number, sheet))
            )
        for number, sent in sending:
            yield number, sent.result()


class _Painter(NamedTuple):
    """All that is needed to make textures: network, images and threads.

    `fused` keeps the texture (PNG) of the last person whose images fill several units.
    """

    generator: "Network"
    images: "ImageSet"
    precision: str
    pool: "ThreadPoolExecutor"
    fused: "dict[int | str, bytes]"


def _paint(painter: _Painter, records: "Sequence[Record]") -> "Iterator[SeenTexture]":
    """The generator's output for images, in order."""
    from components.process.threads import map_bounded
    from san_core.images.pixels import decode, resize
    from san_core.inference.network import TextureError

    def read_input(record: "Record") -> "Pixels":
        picture = decode(painter.images.read(record), name=record.name)
        return resize(picture, painter.generator.recipe.image_size)

    try:
        yield from painter.generator.stream_textures(
            map_bounded(painter.pool, read_input, records, ahead=2 * BATCH),
            batch_size=BATCH,
            precision=painter.precision,
        )
    except TextureError as error:
        raise ValueError(f"{error}; its name is {records[error.place].name}") from error


def _generate_pngs(painter: _Painter, unit: "WorkUnit", fuse: str) -> "Iterator[bytes]":
    """The textures of a unit's images as PNG, in order."""
    from components.process.threads import map_bounded
    from san_core.images.pixels import encode_png

    if fuse == "person":
        yield from _fused_pngs(painter, unit)
        return
    textures = (view.texture for view in _paint(painter, unit.records))
    yield from map_bounded(painter.pool, encode_png, textures, ahead=2 * BATCH)


def _fused_pngs(painter: _Painter, unit: "WorkUnit") -> "Iterator[bytes]":
    """The fused texture of each image's person, once for every image of a unit."""
    from san_core.images.pixels import encode_png
    from san_core.images.texture_set import fused_with
    from san_core.inference.fusion import fuse_textures

    if unit.whole:
        person = fused_with(unit.whole[0])
        if person not in painter.fused:  # else the unit before has made it
            painter.fused.clear()
            texture = fuse_textures(_paint(painter, _that_see_most(painter, unit.whole)))
            painter.fused[person] = encode_png(texture)
        yield from repeat(painter.fused[person], len(unit.records))
        return
    views = _paint(painter, unit.records)
    for _, group in groupby(unit.records, key=fused_with):
        count = len(list(group))
        yield from repeat(encode_png(fuse_textures(islice(views, count))), count)


def _that_see_most(painter: _Painter, whole: "Records") -> "Records":
    """The images of a person whose textures are fused: all, or the 1,000 that show most."""
    from san_core.images.texture_set import MOST_FUSED
    from san_core.inference.fusion import views_that_see_most

    if len(whole) <= MOST_FUSED:
        return whole
    log.info(
        "person %s has %d images; the %d that show most are fused",
        *(whole[0].pid, len(whole), MOST_FUSED),
    )
    seen = [float(view.seen.mean()) for view in _paint(painter, whole)]
    return whole.picked(views_that_see_most(seen, MOST_FUSED))


def _pack_unit(
    painter: _Painter,
    unit: "WorkUnit",
    textures: "Iterator[bytes]",
    path: Path,
    bar: "Progress",
) -> "tuple[Shard, bytes]":
    """The textures of a unit as a shard whose tar lies at `path`, and their contact sheet."""
    from components.inference.texture_sheets import MOST, sheet_strip, texture_sheet
    from san_core.images.shard import pack_shard
    from san_core.images.sheet import preview_indices
    from san_core.images.texture_set import texture_item

    shown = preview_indices(len(unit.records), most=MOST)
    atlas = painter.generator.facts.get("atlas")
    strips: list[Future[Pixels]] = []

    def items() -> "Iterator[Item]":
        for i, (record, png) in enumerate(zip(unit.records, textures, strict=True)):
            if i in shown:
                strip = painter.pool.submit(sheet_strip, painter.images, record, png, atlas)
                strips.append(strip)
            bar.add()
            yield texture_item(record, png)

    with add_path_to_errors(path):
        shard = pack_shard(items(), path, unit.number, total=unit.total)
    made = (strip.result() for strip in strips)
    return shard, texture_sheet([unit.records[i] for i in shown], made, atlas=atlas)


def _store_shard(storage: "Storage", shard: "Shard", number: int, sheet: bytes) -> "FinishedUnit":
    """Store a shard and its contact sheet, and delete the local file."""
    from components.storage.texture_store import put_shard
    from san_core.images.sheet import preview_name

    storage.put_bytes(preview_name(number), sheet)
    stored = put_shard(storage, shard)
    shard.tar.unlink()
    return stored
