"""The rendered people that arms are trained and judged on, and every kind of texture target.

A set has people to train on, to choose by and to report on, all apart, seen by six
cameras. Sets are made once into a cache folder.
Legend: N images, H W rows and columns, T texels a side.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.images.pixels import Pixels, area_average, decode
from san_core.recipe import Recipe
from san_core.synthesis.dataset import Shot, make_pit_identity, make_reid_identity, reid_texture
from san_core.synthesis.person.atlas import mirror_matrix
from san_core.synthesis.spec import PitSpec, ReidSpec
from san_core.synthesis.world import ELSEWHERE as ELSEWHERE
from san_core.synthesis.world import TOWN
from san_core.training.loop import TrainingData
from tests.benchmarks.evidence.code import RENDERING_MODULES, code_fingerprint

TRAIN_PEOPLE, VAL_PEOPLE, TEST_PEOPLE = 100, 60, 100  # people
SET_SHAPE: dict[str, Any] = {"cameras": 6, "shots": 3}
TEXTURE_SIZE = 64  # texels a side of the textures that are kept
PIT = PitSpec(seed=0, identities=600, meshes=8, texture_size=TEXTURE_SIZE)
TARGETS = ("none", "pseudo", "true", "shuffled")

ImageSize = tuple[int, int]  # rows, columns


class RenderedSet(NamedTuple):
    """A rendered set; of N images, all but `textures`."""

    images: Pixels  # (N, H, W, 3)
    identity: NDArray[
        np.int64
    ]  # from 0: first those to train on, then VAL_PEOPLE, then TEST_PEOPLE
    camid: NDArray[np.int64]  # from 0
    is_query: NDArray[np.bool_]  # of the test people; of others the first shot of every camera
    azimuth: NDArray[np.float64]  # degrees, 0 from the front
    pose: NDArray[np.str_]
    is_occluded: NDArray[np.bool_]
    textures: Pixels  # (TRAIN_PEOPLE, TEXTURE_SIZE, TEXTURE_SIZE, 3), the true ones

    @property
    def fingerprint(self) -> str:
        """sha256 of all that is in it."""
        digest = hashlib.sha256()
        for name, array in self._asdict().items():
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def rows_of_people(self, first: int, count: int) -> NDArray[np.intp]:
        """The images of people `first` to `first + count`."""
        return np.flatnonzero((self.identity >= first) & (self.identity < first + count))

    @property
    def train_rows(self) -> NDArray[np.intp]:
        """The images to train on, person by person."""
        return self.rows_of_people(0, TRAIN_PEOPLE)


def set_spec(level: str, seed: int, image_size: ImageSize) -> ReidSpec:
    """What a set is rendered from; level: a difficulty, or ELSEWHERE, which is for tests alone."""
    is_elsewhere = level == ELSEWHERE
    return ReidSpec(
        seed=seed,
        train_identities=TRAIN_PEOPLE + VAL_PEOPLE,
        test_identities=TEST_PEOPLE,
        difficulty="normal" if is_elsewhere else level,
        world=ELSEWHERE if is_elsewhere else TOWN,
        image_size=image_size,
        **SET_SHAPE,
    )


def rendered_set(cache: Path, level: str, seed: int, image_size: ImageSize) -> RenderedSet:
    """The set of a level and seed, rendered if the cache has none of today's code."""
    asked = set_spec(level, seed, image_size)
    file = cache / f"people-{level}-{seed}-{cache_key(RENDERING_MODULES, asked)}.npz"
    if not file.is_file():
        first = TRAIN_PEOPLE + VAL_PEOPLE if level == ELSEWHERE else 0
        save_npz(file, render_set(asked, first)._asdict())
    with np.load(file) as kept:
        return RenderedSet(**{name: kept[name] for name in RenderedSet._fields})


def render_set(asked: ReidSpec, first: int = 0) -> RenderedSet:
    """All people of a spec from `first` on, and the textures of those to train on."""
    people = range(first, asked.identities)
    shots = [shot for i in people for shot in make_reid_identity(asked, i).shots]
    fields = [shot.fields for shot in shots]
    worn = [reid_texture(asked, i) for i in people if i < TRAIN_PEOPLE]
    return RenderedSet(
        images=np.stack([decode(shot.data) for shot in shots]),
        identity=np.array([shot.pid - 1 for shot in shots if shot.pid is not None]),
        camid=np.array([shot.camid for shot in shots]),
        is_query=np.array([_is_query(shot, i % asked.shots) for i, shot in enumerate(shots)]),
        azimuth=np.array([each["azimuth"] for each in fields]),
        pose=np.array([each["pose"] for each in fields]),
        is_occluded=np.array([each["occluded"] for each in fields]),
        textures=average_textures(np.array(worn, np.uint8), TEXTURE_SIZE),
    )


def _is_query(shot: Shot, number: int) -> bool:
    """Whether a shot is a query; number: of the shot on its camera."""
    return shot.split == "query" or (shot.split == "train" and number == 0)


class PitArrays(NamedTuple):
    """PIT; of N images and M textures."""

    images: Pixels  # (N, H, W, 3)
    textures: Pixels  # (M, TEXTURE_SIZE, TEXTURE_SIZE, 3)
    index: NDArray[np.int64]  # the texture of every image, which is its person too
    is_unseen: NDArray[np.bool_]  # whether it is held out


def pit_arrays(cache: Path, image_size: ImageSize) -> PitArrays:
    """PIT in that size, rendered if the cache has none of today's code."""
    asked = dataclasses.replace(PIT, image_size=image_size)
    file = cache / f"pit-{cache_key(RENDERING_MODULES, asked)}.npz"
    if not file.is_file():
        made = [make_pit_identity(asked, identity) for identity in range(asked.identities)]
        shots = [(i, shot) for i, each in enumerate(made) for shot in each.images]
        arrays = PitArrays(
            images=np.stack([decode(shot.data) for _, shot in shots]),
            textures=np.stack([decode(each.texture.data) for each in made]),
            index=np.array([i for i, _ in shots]),
            is_unseen=np.array([shot.split == "val" for _, shot in shots]),
        )
        save_npz(file, arrays._asdict())
    with np.load(file) as kept:
        return PitArrays(**{name: kept[name] for name in PitArrays._fields})


def training_data(
    them: RenderedSet,
    targets: str,
    recipe: Recipe,
    *,
    pseudo: Pixels | None = None,
    people: int = TRAIN_PEOPLE,
) -> TrainingData:
    """What an arm trains on.

    Args:
        them: whose training people they are.
        targets: one of TARGETS.
        recipe: of the arm; its texture_size is that of the targets.
        pseudo: the texture that a generator saw on each training image, where targets are these.
        people: how many of the training people, at most all.

    Raises:
        ValueError: no such targets.
    """
    people = min(people, TRAIN_PEOPLE)
    rows = them.rows_of_people(0, people)
    images, labels = them.images[rows], them.identity[rows]
    data = TrainingData(images=images, labels=labels)
    size = recipe.texture_size
    if targets == "none":
        return data
    mirror = mirror_matrix(size)
    if targets == "true":
        return dataclasses.replace(
            data,
            textures=average_textures(them.textures[:people], size),
            texture_index=labels,
            mirror=mirror,
        )
    if targets not in TARGETS:
        raise ValueError(f"no targets {targets!r}; there are {', '.join(TARGETS)}")
    assert pseudo is not None  # see `Arm.needs_pseudo`
    index = np.arange(len(images)) if targets == "pseudo" else rows_of_other_people(labels)
    seen = average_textures(pseudo[: len(images)], size)
    return dataclasses.replace(data, textures=seen, texture_index=index, mirror=mirror)


def average_textures(textures: Pixels, size: int) -> Pixels:
    """Textures (M, T, T, 3) at `size` texels a side; there may be none."""
    made = np.empty((len(textures), size, size, 3), np.uint8)
    for row, texture in zip(made, textures, strict=True):
        row[:] = area_average(texture, size)
    return made


def rows_of_other_people(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every image the row of the same shot of another person, always the same other one.

    labels: (N,) sorted, with equally many images of everybody.
    """
    count = labels.max() + 1
    order = np.random.default_rng(count).permutation(count)
    other = np.empty(count, np.int64)
    other[order] = np.roll(order, 1)
    each = len(labels) // count
    return (other[:, None] * each + np.arange(each)).ravel()


def cache_key(code: tuple[str, ...], settings: object) -> str:
    """What the cache calls something made by that code from these settings."""
    text = f"{code_fingerprint(code, benchmarks=())} {settings!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def save_npz(file: Path, arrays: dict[str, Any]) -> None:
    """An .npz, there at once or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"unfinished-{file.name}")
    np.savez(unfinished, **arrays)
    unfinished.replace(file)
