"""Synthesize paired image-texture data (PIT), or take pairs that somebody has."""

import inspect
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from components.outputs import finished, scratch
from components.step import Output

if TYPE_CHECKING:
    from san_core.pairs import Pair
    from san_core.pixels import Pixels
    from san_core.shard import Item, Record
    from san_core.synthesis.spec import PitSpec

log = logging.getLogger(__name__)

# Rows and columns in the contact sheets
IMAGE_PREVIEW = (128, 64)
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
    backgrounds: str = "",
    body: str = "",
    source: str = "",
    atlas: str = "unknown",
    seed: int = 0,
) -> None:
    """Synthesize paired image-texture data (PIT): pictures of people with their whole UV texture.

    Args:
        pit: the pairs, as two image sets: images/ and textures/ (one texture per identity)
        textures: number of identities, each with a texture of its own; a tenth is held out
        meshes: pictures per identity, each with another body shape, pose, camera and light
        image_height: rows of a picture
        image_width: columns of a picture; 0 for half the rows
        texture_size: side of a texture in texels; a divisor of 256
        dense: also make dense/, which tells of every pixel the texel it shows (red the column,
            green the row) and the share of it that the person covers (blue)
        backgrounds: folder or URI of photographs without people to put people before; without it
            places are painted
        body: npz file of another body and atlas, as san_core/synthesis/body_file.py describes
        source: folder, URI or archive (tar, zip) of pairs that exist, to be taken instead: with an
            index.csv of columns image and texture, or images/0012_03.png beside textures/0012.png
        atlas: name of the layout of a source's textures; layouts cannot be mixed
        seed: seed of every random choice; the same seed gives the same bytes
    """
    from components.artifacts import local_source
    from components.storage import local_path
    from san_core.synthesis.photographs import photographs
    from san_core.synthesis.spec import PitSpec

    if source:
        _refuse_unless_default(
            "with --source pairs are taken as they are",
            textures=textures,
            meshes=meshes,
            image_height=image_height,
            image_width=image_width,
            texture_size=texture_size,
            dense=dense,
            backgrounds=backgrounds,
            body=body,
        )
        with local_source(source) as place:
            _take(pit, place, atlas=atlas, seed=seed)
        return
    _refuse_unless_default("without --source the layout is the body's own", atlas=atlas)
    with local_source(backgrounds) as place:
        spec = PitSpec(
            seed=seed,
            identities=textures,
            meshes=meshes,
            image_size=(image_height, image_width or image_height // 2),
            texture_size=texture_size,
            dense=dense,
            backgrounds=photographs(place) if backgrounds else None,
            body_file=local_path(body) if body else None,
        )
        _synthesize(pit, spec)


def _refuse_unless_default(why: str, **given: object) -> None:
    """Raise ValueError for a flag that would have no effect."""
    declared = inspect.signature(make_pit).parameters
    for name, value in given.items():
        if value != declared[name].default:
            raise ValueError(f"{why}, so --{name.replace('_', '-')} {value} has no effect")


def _synthesize(pit: Path, spec: "PitSpec") -> None:
    """Write the pairs that a spec describes, and its dense maps."""
    from components.machine import cores
    from components.progress import progress
    from san_core.imageset import write
    from san_core.shard import Item
    from san_core.synthesis.dataset import pit_identity
    from san_core.synthesis.workers import over_identities

    painted: list[Item] = []
    maps: list[Item] = []  # without their bytes, which would fill the memory

    def pictures(aside: Path) -> Iterator[Item]:
        people = over_identities(pit_identity, spec, processes=cores())
        for pid, person in enumerate(progress(people, total=spec.identities, unit="identities")):
            texture = person.texture
            painted.append(
                Item(texture.name, texture.data, pid, None, texture.split, texture.fields)
            )
            for shot in person.dense:
                (aside / shot.name).write_bytes(shot.data)
                maps.append(Item(shot.name, b"", pid, None, shot.split, shot.fields))
            for shot in person.images:
                yield Item(shot.name, shot.data, pid, None, shot.split, shot.fields)

    total, provenance = spec.identities * spec.meshes, {"made_by": "make_pit", **spec.provenance()}
    with finished(pit) as folder, scratch(pit) as aside:
        write(folder / "images", pictures(aside), total=total, provenance=provenance)
        _write_textures(folder, painted, provenance)
        if maps:
            filled = (item._replace(data=(aside / item.name).read_bytes()) for item in maps)
            write(folder / "dense", filled, total=total, provenance=provenance)
        _show_pairs(folder)
    log.info("%d pictures of %d identities", total, spec.identities)


def _write_textures(folder: Path, items: "list[Item]", provenance: dict[str, Any]) -> None:
    from san_core.imageset import write

    write(
        folder / "textures",
        items,
        total=len(items),
        provenance=provenance,
        preview=TEXTURE_PREVIEW,
    )


def _show_pairs(folder: Path) -> None:
    """Draw some images with their textures at their side: images/preview/pairs.png."""
    import numpy as np

    from san_core.imageset import ImageSet, previewed
    from san_core.pixels import contact_sheet, decode, encode_png, resize

    def beside(record: "Record") -> "Pixels":
        texture = decode(textures.read(by_name[record.fields["texture"]]))
        picture = resize(decode(images.read(record)), IMAGE_PREVIEW)
        return np.hstack([picture, resize(texture, TEXTURE_PREVIEW)])

    with ImageSet.open(folder / "images") as images, ImageSet.open(folder / "textures") as textures:
        by_name = {record.name: record for record in textures.records}
        shown = [images.records[i] for i in previewed(len(images.records), most=PAIRS_SHOWN)]
        cell = IMAGE_PREVIEW[0], IMAGE_PREVIEW[1] + TEXTURE_PREVIEW[1]
        sheet = contact_sheet([beside(record) for record in shown], columns=6, cell=cell)
    (folder / "images" / "preview" / "pairs.png").write_bytes(encode_png(sheet))


def _take(pit: Path, place: Path, *, atlas: str, seed: int) -> None:
    """Bring pairs that exist into the same format, their files unchanged."""
    from san_core.imageset import write
    from san_core.pairs import pairs, unpack

    if not place.exists():
        raise FileNotFoundError(f"there is no folder or archive {place} of images and textures")
    with scratch(pit) as aside:
        if place.is_file():
            unpack(place, aside)
        listed = pairs(aside if place.is_file() else place)
        provenance = {"made_by": "make_pit", "source": "pairs", "atlas": atlas, "seed": seed}
        splits = _splits(listed, seed)
        with finished(pit) as folder:
            worn, pictures = _read(listed, splits)
            write(folder / "images", pictures, total=len(listed), provenance=provenance)
            _write_textures(folder, worn, provenance)
            _show_pairs(folder)
    log.info("%d pictures of %d identities", len(listed), len(splits))


def _splits(listed: "list[Pair]", seed: int) -> dict[str, str]:
    """The split of every texture, in order: as the index says, else a tenth is held out."""
    from san_core.synthesis.spec import PIT_HELD_OUT, held_out

    told = {pair.texture_name: pair.split for pair in listed}
    unseen = held_out(seed, len(told), PIT_HELD_OUT) if len(told) > 1 else frozenset()
    return {
        name: split or ("val" if number in unseen else "train")
        for number, (name, split) in enumerate(told.items())
    }


def _read(listed: "list[Pair]", splits: dict[str, str]) -> "tuple[list[Item], Iterator[Item]]":
    """The textures, which fill as the images are read, and the images; both are checked."""
    from components.progress import progress
    from san_core.pairs import Sizes
    from san_core.shard import Item

    sizes, textures = Sizes(), list[Item]()
    pids = {name: pid for pid, name in enumerate(splits)}

    def images() -> Iterator[Item]:
        for pair in progress(listed, total=len(listed), unit="pairs"):
            pid, split = pids[pair.texture_name], splits[pair.texture_name]
            if pid == len(textures):  # the first of its images
                data = pair.texture.read_bytes()
                sizes.check_texture(pair.texture_name, data)
                textures.append(Item(pair.texture_name, data, pid, None, split, {"identity": pid}))
            data = pair.image.read_bytes()
            sizes.check_image(pair.image_name, data)
            fields = {**pair.fields, "texture": pair.texture_name}
            yield Item(pair.image_name, data, pid, None, split, fields)

    return textures, images()
