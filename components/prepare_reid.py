"""Bring a person re-identification data set into the one image format."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from components.outputs import finished
from components.step import Output

if TYPE_CHECKING:
    from san_core.data.records import Listed
    from san_core.shard import Item
    from san_core.synthesis.spec import ReidSpec

log = logging.getLogger(__name__)


def prepare_reid(
    reid: Annotated[Path, Output("Dataset")],
    dataset: str = "synthetic",
    source: str = "",
    difficulty: str = "normal",
    identities: int = 300,
    cameras: int = 6,
    shots: int = 3,
    image_height: int = 256,
    backgrounds: str = "",
    seed: int = 0,
) -> None:
    """Bring a person re-identification data set into the one image format.

    Args:
        reid: the data set, as an image set with splits train, query and gallery, or images alone
        dataset: what to prepare: synthetic, market1501 for a folder in that layout, or images for
            a folder of photographs without identities, to generate textures of
        source: folder or URI of the data set; not used for synthetic
        difficulty: how hard synthetic people are to tell apart: easy, normal or hard
        identities: number of synthetic people; a third of them is held out for testing
        cameras: number of synthetic cameras
        shots: pictures of a synthetic person by each camera
        image_height: rows of a synthetic picture; it is half as wide
        backgrounds: folder or URI of photographs without people to put synthetic people before;
            without it places are painted
        seed: seed of every random choice in synthetic pictures
    """
    from components.artifacts import local_source
    from san_core.data.records import summary, summary_text
    from san_core.imageset import ImageSet, write
    from san_core.synthesis.photographs import photographs
    from san_core.synthesis.spec import ReidSpec

    if dataset not in ("synthetic", "market1501", "images"):
        raise ValueError(f"no data set {dataset!r}; there are synthetic, market1501, images")
    provenance: dict[str, object] = {"made_by": "prepare_reid", "dataset": dataset}
    if dataset == "synthetic":
        if source:
            log.warning("the source %s is not used: the data set is synthetic", source)
        if identities < 3:
            raise ValueError(f"identities is {identities}: at least 3, of which 1 is for testing")
        with local_source(backgrounds) as place:
            spec = ReidSpec(
                seed=seed,
                train_identities=identities - identities // 3,
                test_identities=identities // 3,
                cameras=cameras,
                shots=shots,
                image_size=(image_height, image_height // 2),
                difficulty=difficulty,
                backgrounds=photographs(place) if backgrounds else None,
            )
            provenance |= spec.provenance()
            total = identities * cameras * shots
            with finished(reid) as folder:
                write(folder, _synthetic(spec), total=total, provenance=provenance)
    else:
        if not source:
            raise ValueError(f"dataset {dataset} needs --source, the folder it is in")
        with local_source(source) as place, finished(reid) as folder:
            listed = _listed(dataset, place)
            write(folder, _read(listed), total=len(listed), provenance=provenance)
    for line in summary_text(summary(ImageSet.open(reid).records)).splitlines():
        log.info("%s", line)


def _synthetic(spec: "ReidSpec") -> "Iterator[Item]":
    """Pictures of people who do not exist, by cameras that do not either."""
    from components.machine import cores
    from components.progress import progress
    from san_core.shard import Item
    from san_core.synthesis.dataset import reid_identity
    from san_core.synthesis.workers import over_identities

    people = over_identities(reid_identity, spec, processes=cores())
    total = spec.train_identities + spec.test_identities
    for person in progress(people, total=total, unit="identities"):
        for shot in person.shots:
            yield Item(shot.name, shot.data, shot.pid, shot.camid, shot.split, shot.fields)


def _listed(dataset: str, folder: Path) -> "list[Listed]":
    """What the data set in a folder consists of."""
    from san_core.data import images, market1501

    if dataset == "market1501":
        return market1501.listing(folder)
    return images.listing(folder)


def _read(listed: "Sequence[Listed]") -> "Iterator[Item]":
    """The images of a listing, each decoded once so that no damaged one goes further."""
    from components.progress import progress
    from san_core.pixels import decode
    from san_core.shard import Item

    for image in progress(listed, total=len(listed), unit="images"):
        data = image.read()
        decode(data, name=image.name)
        yield Item(image.name, data, image.pid, image.camid, image.split)
