"""Synthesize paired image-texture data (PIT), or import existing pairs."""

import inspect
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

from components.command.step import Output
from components.process.scratch import scratch_folder
from components.storage.outputs import add_path_to_errors, atomic_folder

if TYPE_CHECKING:
    from san_core.data.pairs import Pairs
    from san_core.images.pixels import Pixels
    from san_core.images.shard import Item, Record
    from san_core.synthesis.spec import PitSpec

log = logging.getLogger(__name__)

# Rows and columns in the contact sheets
TEXTURE_PREVIEW = (128, 128)
PAIRS_SHOWN = 24


def make_pit(
    pit: Annotated[Path, Output("Dataset")],
    textures: int = 929,
    meshes: int = 10,
    image_height: int = 256,
    image_width: int = 0,
    texture_size: int = 256,
    dense: bool = False,
    world: str = "studio",
    backgrounds: str = "",
    body: str = "",
    source: str = "",
    atlas: str = "unknown",
    seed: int = 0,
) -> None:
    """Synthesize paired image-texture data (PIT): pictures of people with their whole UV texture.

    Args:
        pit: the pairs, as two image sets: images/ and textures/ (one texture per identity)
        textures: number of identities, each with its own texture; a tenth is held out
        meshes: pictures per identity, each with another body shape, pose, camera and light
        image_height: height of a picture in pixels
        image_width: width of a picture in pixels; 0 is half its height
        texture_size: side of a texture in texels; a divisor of 256
        dense: whether to write dense/ too: for each pixel, the texel that it shows (red is the
            column, green the row) and the share of the pixel that the person covers (blue)
        world: studio: one person alone, in plain clothes, seen by a good camera; street: clothes,
            skin and hair of every colour, harsh light, poor cameras, inexact boxes, bags, bicycles,
            umbrellas and passers-by. Use street for a generator that copies colours and will see
            photographs
        backgrounds: folder or URI of photographs without people, used as backgrounds; if empty,
            backgrounds are painted
        body: npz file, or its URI, with another body and atlas, as described in
            san_core/synthesis/person/body_file.py; if empty, the package's own
        source: folder, URI, .zip, .tar or table of existing pairs, imported instead of
            synthesizing: with an index.csv of columns image and texture, or images/0012_03.png
            beside textures/0012.png
        atlas: name of the UV layout of the source's textures; one set cannot mix layouts
        seed: seed of every random choice; the same seed gives the same bytes
    """
    from components.storage.transfer import local_file, local_source
    from san_core.synthesis.place.photographs import open_photographs
    from san_core.synthesis.spec import PitSpec

    if source:
        _check_defaults(
            "with --source, pairs are imported unchanged",
            textures=textures,
            meshes=meshes,
            image_height=image_height,
            image_width=image_width,
            texture_size=texture_size,
            dense=dense,
            world=world,
            backgrounds=backgrounds,
            body=body,
        )
        with local_source(source) as place:
            _import_pairs(pit, place, atlas=atlas, seed=seed)
        return
    _check_defaults("without --source, the layout is that of the body", atlas=atlas)
    if textures < 2:
        raise ValueError(f"textures is {textures}; it must be at least 2, as one is held out")
    with ExitStack() as places:
        behind = places.enter_context(local_source(backgrounds))
        other = places.enter_context(local_file(body)) if body else None
        spec = PitSpec(
            seed=seed,
            identities=textures,
            meshes=meshes,
            image_size=(image_height, image_width or image_height // 2),
            texture_size=texture_size,
            dense=dense,
            world=world,
            backgrounds=open_photographs(behind) if backgrounds else None,
            body_file=other,
        )
        _synthesize(pit, spec)


def _check_defaults(why: str, **given: object) -> None:
    """Raise ValueError for a flag that has no effect."""
    declared = inspect.signature(make_pit).parameters
    for name, value in given.items():
        if value != declared[name].default:
            raise ValueError(f"{why}, so --{name.replace('_', '-')} {value} has no effect")


def _synthesize(pit: Path, spec: "PitSpec") -> None:
    """Write the pairs of a spec, with its dense maps."""
    from components.process.machine import worker_count
    from components.process.progress import track_progress
    from san_core.images.imageset import write_imageset
    from san_core.images.shard import Item
    from san_core.synthesis.dataset import make_pit_identity
    from san_core.synthesis.workers import map_identities, worker_memory

    memory = worker_memory(spec.image_size)
    processes = worker_count(bytes_each=memory.each, bytes_beside=memory.beside)
    total, provenance = spec.identities * spec.meshes, {"made_by": "make_pit", **spec.provenance()}
    with scratch_folder(pit) as aside, atomic_folder(pit) as folder:
        textures, maps = _SpooledItems(aside / "textures"), _SpooledItems(aside / "dense")

        def pictures() -> Iterator[Item]:
            made = map_identities(make_pit_identity, spec, processes=processes)
            people = track_progress(made, total=spec.identities, unit="identities")
            for pid, person in enumerate(people):
                for kept, shots in ((textures, [person.texture]), (maps, person.dense)):
                    for shot in shots:
                        kept.add(Item(shot.name, shot.data, pid, None, shot.split, shot.fields))
                for shot in person.images:
                    yield Item(shot.name, shot.data, pid, None, shot.split, shot.fields)

        write_imageset(folder / "images", pictures(), total=total, provenance=provenance)
        _write_textures(folder, textures.items(), provenance, total=spec.identities)
        if spec.dense:
            write_imageset(folder / "dense", maps.items(), total=total, provenance=provenance)
        _write_pairs_sheet(folder)
    log.info("%d pictures of %d identities", total, spec.identities)


class _SpooledItems:
    """Items that are made early: their bytes wait in files, not in memory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._items: list[Item] = []

    def add(self, item: "Item") -> None:
        path = self._folder / item.name
        with add_path_to_errors(path):
            path.write_bytes(item.data)
        self._items.append(item._replace(data=b""))

    def items(self) -> "Iterator[Item]":
        for item in self._items:
            yield item._replace(data=(self._folder / item.name).read_bytes())


def _write_textures(
    folder: Path, items: "Iterator[Item]", provenance: dict[str, Any], *, total: int
) -> None:
    from san_core.images.imageset import write_imageset

    write_imageset(
        folder / "textures",
        items,
        total=total,
        provenance=provenance,
        preview=TEXTURE_PREVIEW,
    )


def _write_pairs_sheet(folder: Path) -> None:
    """Draw some images beside their textures: images/preview/pairs.png."""
    from san_core.images.imageset import ImageSet
    from san_core.images.pixels import decode, encode_png
    from san_core.images.sheet import contact_sheet, preview_indices
    from san_core.synthesis.mannequin import STRIP_HEIGHT, strip_width, texture_strip

    def strip(record: "Record") -> "Pixels":
        texture = decode(textures.read(by_name[record.named("texture")]))
        return texture_strip(decode(images.read(record)), texture, atlas=atlas)

    with ImageSet.open(folder / "images") as images, ImageSet.open(folder / "textures") as textures:
        atlas = textures.manifest["provenance"].get("atlas")
        by_name = {record.name: record for record in textures.records}
        shown = [images.records[i] for i in preview_indices(len(images.records), most=PAIRS_SHOWN)]
        sheet = contact_sheet(
            map(strip, shown),
            columns=4,
            cell=(STRIP_HEIGHT, strip_width(atlas)),
            labels=[PurePosixPath(record.name).stem for record in shown],
        )
    (folder / "images" / "preview" / "pairs.png").write_bytes(encode_png(sheet))


def _import_pairs(pit: Path, place: Path, *, atlas: str, seed: int) -> None:
    """Import existing pairs in the same format; JPEG and PNG files are kept unchanged."""
    from san_core.data.pairs import find_pairs
    from san_core.data.tree import open_tree
    from san_core.images.imageset import write_imageset
    from san_core.seeds import check_seed

    check_seed(seed)
    with open_tree(place) as tree:
        listed = find_pairs(tree)
        splits = _texture_splits(listed, seed)
        provenance = {"made_by": "make_pit", "source": "pairs", "atlas": atlas, "seed": seed}
        with atomic_folder(pit) as folder:
            called: dict[str, str] = {}
            laid_on_white: Counter[str] = Counter()
            worn, total = _texture_items(listed, splits, called, laid_on_white), len(splits)
            _write_textures(folder, worn, provenance, total=total)
            pictures = _image_items(listed, splits, called, laid_on_white)
            write_imageset(
                folder / "images", pictures, total=len(listed.pairs), provenance=provenance
            )
            _write_pairs_sheet(folder)
    for what, count in (+laid_on_white).items():  # + drops counts of zero
        log.info("transparent, so put on a white background: %s %s", f"{count:,}", what)
    if listed.duplicate_textures:
        log.info(
            "%d textures are copies of others; images with equal textures count as one identity",
            listed.duplicate_textures,
        )
    for split in ("train", "val"):
        if split not in splits.values():
            log.warning("split %s has no texture, and train_san_pg needs some", split)
    log.info("%d pictures of %d identities", len(listed.pairs), total)


def _texture_splits(listed: "Pairs", seed: int) -> dict[str, str]:
    """The split of every texture, in order: that of the table; without one, a tenth is held out."""
    from san_core.synthesis.spec import PIT_HELD_OUT, held_out_identities

    told = {pair.texture_name: pair.split for pair in listed.pairs}
    unseen = held_out_identities(seed, len(told), PIT_HELD_OUT) if len(told) > 1 else frozenset()
    return {
        name: split or ("val" if number in unseen else "train")
        for number, (name, split) in enumerate(told.items())
    }


def _texture_items(
    listed: "Pairs", splits: dict[str, str], called: dict[str, str], laid_on_white: Counter[str]
) -> "Iterator[Item]":
    """Every texture once, checked; identities are numbered in the order of the textures.

    Adds the stored name of each to `called`, and the number of transparent ones to `laid_on_white`.
    """
    from san_core.data.pairs import SizeChecker
    from san_core.images.pixels import file_to_keep
    from san_core.images.shard import Item

    sizes, paths = SizeChecker(), {pair.texture_name: pair.texture for pair in listed.pairs}
    for pid, (name, split) in enumerate(splits.items()):
        kept = file_to_keep(name, listed.tree.read(paths[name]))
        sizes.check_texture(kept.name, kept.data)
        called[name] = kept.name
        laid_on_white["textures"] += kept.is_transparent
        yield Item(kept.name, kept.data, pid, None, split, {"identity": pid})


def _image_items(
    listed: "Pairs", splits: dict[str, str], called: dict[str, str], laid_on_white: Counter[str]
) -> "Iterator[Item]":
    """Every image, checked; `called` maps to the stored names of their textures.

    Adds the number of transparent ones to `laid_on_white`.
    """
    from components.process.progress import track_progress
    from san_core.data.pairs import SizeChecker
    from san_core.images.pixels import file_to_keep
    from san_core.images.shard import Item

    sizes, pids = SizeChecker(), {name: pid for pid, name in enumerate(splits)}
    for pair in track_progress(listed.pairs, total=len(listed.pairs), unit="pairs"):
        kept = file_to_keep(pair.image_name, listed.tree.read(pair.image))
        sizes.check_image(kept.name, kept.data)
        laid_on_white["pictures"] += kept.is_transparent
        texture = pair.texture_name
        fields = {**pair.fields, "texture": called[texture]}
        yield Item(kept.name, kept.data, pids[texture], None, splits[texture], fields)
