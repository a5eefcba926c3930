"""Synthesize paired image-texture data (PIT)."""

import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from components.outputs import finished
from components.step import Output

log = logging.getLogger(__name__)


def make_pit(
    pit: Annotated[Path, Output("Dataset")],
    textures: int = 929,
    meshes: int = 10,
    image_height: int = 256,
    texture_size: int = 256,
    seed: int = 0,
) -> None:
    """Synthesize paired image-texture data (PIT): pictures of people with their whole UV texture.

    Args:
        pit: the pairs, as two image sets: images/ and textures/ (one texture per identity)
        textures: number of identities, each with a texture of its own; a tenth is held out
        meshes: pictures per identity, each with another body shape, pose, camera and light
        image_height: rows of a picture; it is half as wide
        texture_size: side of a texture in texels; a divisor of 256
        seed: seed of every random choice; the same seed gives the same bytes
    """
    from components.machine import cores
    from components.progress import progress
    from san_core.imageset import write
    from san_core.shard import Item
    from san_core.synthesis.atlas import ATLAS
    from san_core.synthesis.dataset import PitSpec, over_identities, pit_identity

    spec = PitSpec(
        seed=seed,
        identities=textures,
        meshes=meshes,
        image_size=(image_height, image_height // 2),
        texture_size=texture_size,
    )
    provenance = {"made_by": "make_pit", "atlas": ATLAS, "spec": asdict(spec)}
    painted: list[Item] = []

    def pictures() -> Iterator[Item]:
        people = over_identities(pit_identity, spec, processes=cores())
        for pid, person in enumerate(progress(people, total=textures, unit="identities")):
            texture = person.texture
            painted.append(
                Item(texture.name, texture.data, pid, None, texture.split, texture.fields)
            )
            for shot in person.images:
                yield Item(shot.name, shot.data, pid, None, shot.split, shot.fields)

    with finished(pit) as folder:
        write(folder / "images", pictures(), total=textures * meshes, provenance=provenance)
        write(
            folder / "textures", painted, total=textures, provenance=provenance, preview=(128, 128)
        )
    log.info("%d pictures of %d identities", textures * meshes, textures)
