"""Specifications of synthetic data sets: sizes, seed, and the user's files."""

import functools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from san_core.images.shard import MAX_SHARD_SIZE
from san_core.seeds import check_seed
from san_core.synthesis.difficulty import difficulty_by_name
from san_core.synthesis.person.atlas import ATLAS_NAME, check_texture_size, is_same_atlas
from san_core.synthesis.person.body import shipped_body
from san_core.synthesis.person.body_file import read_body
from san_core.synthesis.place.photographs import Photographs
from san_core.synthesis.world import ELSEWHERE, REID_WORLDS, TOWN, check_world

MIN_IMAGE_SIZE = (32, 16)
MAX_IMAGE_SIDE = 4096  # as recipes take
MOST_PICTURES = 99_999 * MAX_SHARD_SIZE  # the names of shards count in five digits
PIT_HELD_OUT = 0.1  # share of PIT's identities that training does not see
# Streams of random numbers of one seed. PIT and ReID have their own, or a generator trained on PIT
# would have seen the very people that a ReID set of the same seed is tested on.
PIT_LOOKS, PIT_SHOT, PIT_SPLIT, REID_LOOKS, REID_SHAPE, REID_SHOT = range(1, 7)
MAX_CAMERAS = 9  # a Market-1501 name has one digit for the camera


class Spec(Protocol):
    """The specification of a data set."""

    @property
    def identities(self) -> int:
        """The number of people; they are numbered from 0."""
        ...


@dataclass(frozen=True)
class PitSpec:
    """Paired images and textures. Raises ValueError if a field is invalid.

    Raises FileNotFoundError if `body_file` does not exist.

    Attributes:
        identities: number of textures; SAN uses 929 of SURREAL.
        meshes: images per texture, each with its own body shape, pose and view.
        image_size: rows and columns.
        texture_size: texels per side; divides 256.
        held_out: share of the identities in split val; at least one identity if above 0.
        dense: whether to write dense maps, which give the texel of every pixel.
        world: one of WORLDS.
        backgrounds: photographs as backgrounds; None paints procedural ones.
        body_file: a body and atlas to use instead of the package's.
    """

    seed: int
    identities: int = 929
    meshes: int = 10
    image_size: tuple[int, int] = (256, 128)
    texture_size: int = 256
    held_out: float = PIT_HELD_OUT
    dense: bool = False
    world: str = "studio"
    backgrounds: Photographs | None = None
    body_file: Path | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        _check_count("identities", self.identities, least=1)
        _check_count("meshes", self.meshes, least=1)
        _check_pictures(self.identities * self.meshes)
        _check_image_size(self.image_size)
        check_texture_size(self.texture_size)
        check_world(self.world)
        if self.body_file is not None and not self.body_file.is_file():
            raise FileNotFoundError(f"there is no file {self.body_file} with a body")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}: it must be a share from 0 to below 1")
        if self.held_out and self.identities < 2:
            raise ValueError("identities is 1: holding some out for validation takes at least 2")

    def provenance(self) -> dict[str, Any]:
        """The fields as JSON, with hashes of files instead of paths, and the atlas.

        Raises:
            ValueError: the body file is invalid, or its atlas has the wrong name.
        """
        told = _provenance_fields(asdict(self), self.backgrounds)
        if self.body_file is None:
            return {"atlas": ATLAS_NAME, "spec": {**told, "body_file": None}}
        if not self.body_file.is_file():
            raise FileNotFoundError(f"there is no file {self.body_file} with a body")
        with self.body_file.open("rb") as file:
            other = read_body(file, name=str(self.body_file))
        if other.atlas == ATLAS_NAME and not is_same_atlas(shipped_body(), other):
            raise ValueError(
                f"{self.body_file} calls its atlas {ATLAS_NAME!r}, like the package's, but its "
                "charts are placed differently; give it its own name"
            )
        return {"atlas": other.atlas, "spec": {**told, "body_file": other.sha256}}


@dataclass(frozen=True)
class ReidSpec:
    """People on several cameras. Raises ValueError if a field is invalid.

    Attributes:
        train_identities: number of people in split train; they come first.
        test_identities: number of other people, in splits query and gallery.
        cameras: 2 to 9.
        shots: images per person and camera.
        image_size: rows and columns.
        difficulty: a key of DIFFICULTIES.
        backgrounds: photographs as backgrounds; None paints procedural ones.
        world: one of REID_WORLDS; "elsewhere" accepts no photographs.
    """

    seed: int
    train_identities: int
    test_identities: int
    cameras: int = 6
    shots: int = 3
    image_size: tuple[int, int] = (256, 128)
    difficulty: str = "normal"
    backgrounds: Photographs | None = None
    world: str = TOWN

    def __post_init__(self) -> None:
        check_seed(self.seed)
        _check_count("train_identities", self.train_identities, least=0)
        _check_count("test_identities", self.test_identities, least=0)
        _check_count("train_identities + test_identities", self.identities, least=1)
        _check_count("shots", self.shots, least=1)
        _check_image_size(self.image_size)
        if not 2 <= self.cameras <= MAX_CAMERAS:
            raise ValueError(
                f"cameras is {self.cameras}: it must be 2 to {MAX_CAMERAS}, because people are "
                "found again by another camera and file names have one digit for it"
            )
        _check_pictures(self.identities * self.cameras * self.shots)
        difficulty_by_name(self.difficulty)
        check_world(self.world, REID_WORLDS)
        if self.world == ELSEWHERE and self.backgrounds is not None:
            raise ValueError("the world elsewhere has places of its own: it takes no backgrounds")

    @property
    def identities(self) -> int:
        """The number of people; those of split train come first."""
        return self.train_identities + self.test_identities

    def provenance(self) -> dict[str, Any]:
        """The fields as JSON, with a hash of the photographs instead of their path."""
        told = _provenance_fields(asdict(self), self.backgrounds)
        if self.world == TOWN:  # as sets say that were made before there was another
            del told["world"]
        return {"spec": told}


def _provenance_fields(fields: dict[str, Any], backgrounds: Photographs | None) -> dict[str, Any]:
    return {**fields, "backgrounds": backgrounds.fingerprint if backgrounds else None}


def _check_count(name: str, value: int, *, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is {value}: it must be at least {least}")


def _check_image_size(size: tuple[int, int]) -> None:
    rows, columns = size
    if rows < MIN_IMAGE_SIZE[0] or columns < MIN_IMAGE_SIZE[1]:
        raise ValueError(
            f"image size {rows}x{columns} is too small: it must be at least "
            f"{MIN_IMAGE_SIZE[0]}x{MIN_IMAGE_SIZE[1]} (rows x columns)"
        )
    if max(size) > MAX_IMAGE_SIDE:
        raise ValueError(
            f"image size {rows}x{columns} is too large: at most {MAX_IMAGE_SIDE} rows and columns"
            " are rendered"
        )


def _check_pictures(count: int) -> None:
    if count > MOST_PICTURES:
        raise ValueError(f"{count:,} pictures are too many: a set holds at most {MOST_PICTURES:,}")


def check_identity(spec: Spec, identity: int) -> None:
    """Raise ValueError unless the spec has such an identity."""
    if not 0 <= identity < spec.identities:
        raise ValueError(f"no identity {identity}: the set has 0 to {spec.identities - 1}")


@functools.lru_cache(maxsize=4)
def held_out_identities(seed: int, identities: int, share: float) -> frozenset[int]:
    """The number of identities in split val: at least one if the share is above 0, never all."""
    count = min(max(1, round(share * identities)), identities - 1) if share else 0
    order = np.random.default_rng([seed, PIT_SPLIT]).permutation(identities)
    return frozenset(order[:count].tolist())
