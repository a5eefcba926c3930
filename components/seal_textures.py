"""Check that every texture exists and is undamaged, and write the manifest."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, NamedTuple

from components.command.step import Input, Output
from components.storage.outputs import atomic_folder

if TYPE_CHECKING:
    from components.storage.store import Storage
    from components.storage.texture_store import FinishedUnit
    from san_core.data.tree import Tree
    from san_core.images.imageset import ImageSet
    from san_core.images.index import Records
    from san_core.images.shard import Record
    from san_core.images.texture_set import WorkUnit

log = logging.getLogger(__name__)


def seal_textures(
    dataset: Annotated[Path, Input("Dataset")],
    textures: Annotated[Path, Output("Dataset")],
    destination: str = "",
    generator: Annotated[Path | None, Input("Model")] = None,
    split: str = "train",
    shard_size: int = 1000,
    precision: str = "float32",
    fuse: str = "none",
    source: str = "",
    atlas: str = "",
    prune: bool = False,
    verify: str = "size",
) -> None:
    """Seal generated textures: check that no shard is missing or damaged, and write the manifest.

    With a source instead of a generator, the step packs ready-made textures, matched to the images
    by file name. It deletes nothing unless prune is set.

    Args:
        dataset: the person images the textures belong to
        textures: sealed manifest, which says where the shards are
        destination: folder or URI as given to generate_textures
        generator: SAN-PG, as given to generate_textures
        split: split whose images have textures, as given to generate_textures
        shard_size: images per shard, as given to generate_textures
        precision: as given to generate_textures
        fuse: as given to generate_textures
        source: folder, .zip, .tar or URI of ready-made textures to pack instead of generated ones
        atlas: name of the UV layout of the source's textures, such as san-atlas-1, the package's
            own; if empty, the layout is unknown, and mirrored images are left out of the texture
            losses
        prune: whether to delete shards that the manifest does not name; do not set it while workers
            run
        verify: how shards are checked before they are sealed: none, size or sha256
    """
    from components.storage import retry
    from components.storage.places import open_storage
    from components.storage.staging import image_set_digest, open_image_records, open_image_set
    from components.storage.texture_store import delete_other_shards as prune_shards
    from components.storage.texture_store import finished_units, forget_overwriting
    from components.storage.transfer import local_source
    from san_core.data.tree import open_tree
    from san_core.images.imageset import build_manifest, manifest_bytes
    from san_core.images.texture_set import TextureSettings, split_into_units

    if (generator is None) == (not source):
        raise ValueError("give either a generator or a source of textures, not both")
    if source and fuse != "none":
        raise ValueError(f"--fuse {fuse} has no effect on the ready-made textures of --source")
    if atlas and not source:
        raise ValueError(f"--atlas {atlas} needs --source; a generator's own files name its layout")
    with open_image_records(dataset) as images:
        records = images.records_in_splits(split)
    with ExitStack() as opened:
        if generator:
            made = _origin_of_generator(generator, fuse)
        else:
            place = opened.enter_context(local_source(source))
            made = _origin_of_files(opened.enter_context(open_tree(place)), records, atlas)
        settings = TextureSettings(
            source=made.sha256,
            dataset=image_set_digest(dataset),
            split=split,
            texture_size=made.texture_size,
            shard_size=shard_size,
            precision=precision,
            fuse=fuse,
        )
        storage = open_storage(destination, settings.folder)
        patient = open_storage(destination, settings.folder, patience=retry.RESULT_BACKOFF)
        work = split_into_units(records, shard_size, fuse=fuse)
        done = finished_units(storage, range(len(work)), verify=verify)
        left = [unit for unit in work if unit.number not in done]
        if made.ready and left:
            needed = {number for unit in left for number in unit.records.shards()}
            with open_image_set(dataset, shards=needed) as pictures:
                done |= _pack_ready_textures(left, made.ready, made.atlas, pictures, patient)
    _check_complete(work, done, where=storage.uri)
    content = build_manifest(
        {done[unit.number].name: done[unit.number].data for unit in work},
        provenance={"settings": asdict(settings), "atlas": made.atlas},
        fingerprint=settings.fingerprint,
    )
    patient.put_bytes("manifest.json", manifest_bytes(content))
    forget_overwriting(storage)
    with atomic_folder(textures) as artifact:
        travelling = manifest_bytes({**content, "uri": storage.uri})
        (artifact / "manifest.json").write_bytes(travelling)
    log.info("sealed %d textures in %d shards at %s", len(records), len(work), storage.uri)
    if prune:
        log.info("deleted %d files the manifest does not name", prune_shards(storage, done))


class _ReadyTextures(NamedTuple):
    """Ready-made textures: the file of each image, by name, and a function that reads a file."""

    files: Mapping[str, str]
    read: Callable[[str], bytes]


class _TextureOrigin(NamedTuple):
    """The source of textures: a generator's weights, or ready-made files."""

    sha256: str
    texture_size: int
    atlas: str | None
    ready: _ReadyTextures | None


def _origin_of_generator(generator: Path, fuse: str) -> _TextureOrigin:
    """The facts that a trained generator states about its textures."""
    from san_core.images.texture_set import check_generator
    from san_core.model.saved import fingerprint, read_description

    recipe, facts = read_description(generator)
    check_generator(recipe, generator, fuse=fuse)
    return _TextureOrigin(fingerprint(generator), recipe.texture_size, facts.get("atlas"), None)


def _origin_of_files(tree: "Tree", records: "Sequence[Record]", atlas: str) -> _TextureOrigin:
    """Ready-made textures, matched to the images by file name without its suffix.

    Raises:
        FileNotFoundError: some images have no texture.
        ValueError: two files match one image, or the textures are not squares of one size.
    """
    from san_core.images.pixels import decode
    from san_core.images.shard import canonical_json, sha256

    files = _match_textures(tree, records)
    digests: dict[str, str] = {}
    shapes: dict[tuple[int, int], list[str]] = {}
    for name, file in files.items():
        data = tree.read(file)
        digests[name] = sha256(data)
        rows, columns = decode(data, name=f"{tree.place}/{file}").shape[:2]
        shapes.setdefault((rows, columns), []).append(PurePosixPath(file).name)
    (rows, columns), *others = sorted(shapes, key=lambda shape: -len(shapes[shape]))
    if others:
        odd = "; ".join(f"{w}x{h}: {_abbreviate_names(shapes[h, w])}" for h, w in others)
        raise ValueError(
            f"{tree.place}: textures must be of one size; most are {columns}x{rows}, but {odd}"
        )
    if rows != columns:
        raise ValueError(f"{tree.place}: textures must be square, and these are {columns}x{rows}")
    told = [digests, atlas] if atlas else digests
    ready = _ReadyTextures(files, tree.read)
    return _TextureOrigin(sha256(canonical_json(told)), rows, atlas or None, ready)


def _match_textures(tree: "Tree", records: "Sequence[Record]") -> dict[str, str]:
    """The texture file of each image: that of its path without suffix, else of its bare name.

    Raises:
        FileNotFoundError: some images have no texture.
        ValueError: two files have one name, or two images match one file.
    """
    from san_core.images.pixels import IMAGE_SUFFIXES

    pictures = [
        name for name in tree.walk() if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
    ]
    by_path: dict[PurePosixPath, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    for name in pictures:
        by_path.setdefault(PurePosixPath(name).with_suffix(""), []).append(name)
        by_stem.setdefault(PurePosixPath(name).stem, []).append(name)
    files: dict[str, str] = {}
    missing = []
    for record in records:
        image = PurePosixPath(record.name)
        found = by_path.get(image.with_suffix("")) or by_stem.get(image.stem, [])
        if len(found) > 1:
            raise ValueError(f"{tree.place}: {found[0]} and {found[1]} have the same name")
        if found:
            files[record.name] = found[0]
        else:
            missing.append(record.name)
    if missing:
        raise FileNotFoundError(
            f"{tree.place}: {len(missing)} of {len(records)} images have no texture:"
            f" {_abbreviate_names(missing)}"
        )
    _check_distinct(files)
    return files


def _check_distinct(files: Mapping[str, str]) -> None:
    """Check that each texture file belongs to one image.

    Raises:
        ValueError: two images with the same bare name share a file.
    """
    owner: dict[str, str] = {}
    for name, file in files.items():
        if (other := owner.setdefault(file, name)) != name:
            raise ValueError(f"{file} would be the texture of both {other} and {name}")


def _abbreviate_names(names: "Sequence[str]") -> str:
    """Up to ten names for a message of one line; if there are more, all are logged."""
    if len(names) <= 10:
        return ", ".join(names)
    for name in names:
        log.info("%s", name)
    return ", ".join(names[:10]) + f" and {len(names) - 10} more, listed above"


def _pack_ready_textures(
    work: "Sequence[WorkUnit]",
    ready: _ReadyTextures,
    atlas: str | None,
    pictures: "ImageSet",
    storage: "Storage",
) -> "dict[int, FinishedUnit]":
    """Pack ready-made textures into the shards of some units, each with a contact sheet.

    Returns these units, finished. pictures: the images that the textures belong to.
    """
    from components.process.progress import track_progress
    from components.process.scratch import temporary_folder
    from components.storage.texture_store import put_shard
    from san_core.images.shard import pack_shard
    from san_core.images.sheet import preview_name
    from san_core.images.texture_set import texture_item

    done = {}
    with temporary_folder() as room:
        for unit in track_progress(work, total=len(work), unit="shards"):
            items = (texture_item(record, _ready_png(ready, record)) for record in unit.records)
            shard = pack_shard(items, Path(room, "shard.tar"), unit.number, total=unit.total)
            sheet = _ready_sheet(unit.records, ready, atlas, pictures)
            storage.put_bytes(preview_name(unit.number), sheet)
            done[unit.number] = put_shard(storage, shard)
    return done


def _ready_png(ready: _ReadyTextures, record: "Record") -> bytes:
    """The texture of an image as PNG."""
    from san_core.images.pixels import decode, encode_png

    return encode_png(decode(ready.read(ready.files[record.name])))


def _ready_sheet(
    records: "Records", ready: _ReadyTextures, atlas: str | None, pictures: "ImageSet"
) -> bytes:
    """A contact sheet of some of the textures, each beside its picture."""
    from components.inference.texture_sheets import MOST, sheet_strip, texture_sheet
    from san_core.images.sheet import preview_indices

    shown = [records[i] for i in preview_indices(len(records), most=MOST)]
    strips = (sheet_strip(pictures, one, _ready_png(ready, one), atlas) for one in shown)
    return texture_sheet(shown, strips, atlas=atlas)


def _check_complete(
    work: "Sequence[WorkUnit]", done: "Mapping[int, FinishedUnit]", *, where: str
) -> None:
    """Check that every unit exists and holds the textures of exactly its images.

    Raises:
        FileNotFoundError: units are missing; the message names them.
        ValueError: a shard holds the textures of other images.
    """
    from san_core.images.shard import read_sidecar
    from san_core.images.texture_set import texture_name

    missing = [unit.number for unit in work if unit.number not in done]
    if missing:
        shown = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
        raise FileNotFoundError(
            f"{where}: {len(missing)} of {len(work)} shards of textures are missing ({shown});"
            " run generate_textures again; it makes only the missing ones"
        )
    for unit in work:
        found = done[unit.number]
        images = read_sidecar(found.data, where=f"{where}/{found.name}")["images"]
        if [i["name"] for i in images] != [texture_name(r.name) for r in unit.records]:
            raise ValueError(
                f"{where}: {found.name} holds textures of other images;"
                " delete it and run generate_textures again"
            )
