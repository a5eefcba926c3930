"""The rendered people that arms are trained and judged on, and every kind of texture target.

A set has people to train on, to choose by and to report on, all apart, seen by six
cameras. Sets and SAN-PG are made once into a cache folder.
Legend: N images, H W rows and columns, T texels a side.
"""

import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from san_core.images.pixels import Pixels, area_average, decode, resize
from san_core.inference.textures import predict_textures, psnr
from san_core.model import weights
from san_core.model.san import build_network
from san_core.recipe import Recipe
from san_core.synthesis.dataset import Shot, make_pit_identity, make_reid_identity, reid_texture
from san_core.synthesis.person.atlas import mirror_matrix
from san_core.synthesis.spec import PitSpec, ReidSpec
from san_core.training.loop import TrainingData, fit
from tests.benchmarks.evidence.code import RENDERING_MODULES, TRAINING_MODULES, code_fingerprint

TRAIN_PEOPLE, VAL_PEOPLE, TEST_PEOPLE = 100, 60, 100  # people
SET_SHAPE: dict[str, Any] = {"cameras": 6, "shots": 3, "image_size": (64, 32)}
TEXTURE_SIZE = 64  # texels a side of the true textures that are kept
PIT = PitSpec(seed=0, identities=600, meshes=8, image_size=(64, 32), texture_size=TEXTURE_SIZE)
TARGETS = ("none", "pseudo", "true", "shuffled", "input")


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


def set_spec(difficulty: str, seed: int) -> ReidSpec:
    """What a set is rendered from."""
    return ReidSpec(
        seed=seed,
        train_identities=TRAIN_PEOPLE + VAL_PEOPLE,
        test_identities=TEST_PEOPLE,
        difficulty=difficulty,
        **SET_SHAPE,
    )


def rendered_set(cache: Path, difficulty: str, seed: int) -> RenderedSet:
    """The set of a difficulty and seed, rendered if the cache has none of today's code."""
    asked = set_spec(difficulty, seed)
    file = cache / f"people-{difficulty}-{seed}-{_cache_key(RENDERING_MODULES, asked)}.npz"
    if not file.is_file():
        _save_npz(file, render_set(asked)._asdict())
    with np.load(file) as kept:
        return RenderedSet(**{name: kept[name] for name in RenderedSet._fields})


def render_set(asked: ReidSpec) -> RenderedSet:
    """All people of a spec, whose training people's textures are kept too."""
    shots = [shot for i in range(asked.identities) for shot in make_reid_identity(asked, i).shots]
    fields = [shot.fields for shot in shots]
    worn = (reid_texture(asked, i) for i in range(min(TRAIN_PEOPLE, asked.identities)))
    return RenderedSet(
        images=np.stack([decode(shot.data) for shot in shots]),
        identity=np.array([shot.pid - 1 for shot in shots if shot.pid is not None]),
        camid=np.array([shot.camid for shot in shots]),
        is_query=np.array([_is_query(shot, i % asked.shots) for i, shot in enumerate(shots)]),
        azimuth=np.array([each["azimuth"] for each in fields]),
        pose=np.array([each["pose"] for each in fields]),
        is_occluded=np.array([each["occluded"] for each in fields]),
        textures=np.stack([area_average(texture, TEXTURE_SIZE) for texture in worn]),
    )


def _is_query(shot: Shot, number: int) -> bool:
    """Whether a shot is a query; number: of the shot on its camera."""
    return shot.split == "query" or (shot.split == "train" and number == 0)


class Generator(NamedTuple):
    """SAN-PG and what it took and reached."""

    path: Path
    cpu_seconds: float  # rendering aside
    psnr: float  # dB on held-out people of PIT
    psnr_of_mean: float  # dB of the mean training texture there


def trained_generator(cache: Path, recipe: Recipe) -> Generator:
    """SAN-PG trained on PIT by `recipe`, if the cache has none of today's code."""
    path = cache / f"generator-{_cache_key((*RENDERING_MODULES, *TRAINING_MODULES), (recipe, PIT))}"
    if not (path / "told.npz").is_file():
        told = _train_generator(cache, path, recipe)
        _save_npz(path / "told.npz", {name: np.array(value) for name, value in told.items()})
    with np.load(path / "told.npz") as kept:
        return Generator(path, **{name: float(kept[name]) for name in Generator._fields[1:]})


def _train_generator(cache: Path, path: Path, recipe: Recipe) -> dict[str, float]:
    images, textures, index, unseen = _pit_arrays(cache)
    textures = average_textures(textures, recipe.texture_size)
    data = TrainingData(
        images=images[~unseen],
        textures=textures,
        texture_index=index[~unseen],
        mirror=mirror_matrix(recipe.texture_size),
    )
    model = build_network(recipe, num_classes=0, seed=PIT.seed)
    started = time.process_time()
    for _ in fit(model, data, recipe, seed=PIT.seed, device="cpu"):
        pass
    seconds = time.process_time() - started
    weights.save_network(path, model, recipe, facts={})
    truth = textures[index[unseen]]
    mean = np.rint(textures[index[~unseen]].mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return {
        "cpu_seconds": seconds,
        "psnr": psnr(predict_textures(model, images[unseen], device="cpu"), truth),
        "psnr_of_mean": psnr(np.broadcast_to(mean, truth.shape), truth),
    }


def _pit_arrays(cache: Path) -> tuple[Any, ...]:
    """PIT's images, textures, the texture of every image, and whether it is held out."""
    file = cache / f"pit-{_cache_key(RENDERING_MODULES, PIT)}.npz"
    if not file.is_file():
        made = [make_pit_identity(PIT, identity) for identity in range(PIT.identities)]
        shots = [(i, shot) for i, each in enumerate(made) for shot in each.images]
        arrays = {
            "images": np.stack([decode(shot.data) for _, shot in shots]),
            "textures": np.stack([decode(each.texture.data) for each in made]),
            "index": np.array([i for i, _ in shots]),
            "unseen": np.array([shot.split == "val" for _, shot in shots]),
        }
        _save_npz(file, arrays)
    with np.load(file) as kept:
        return tuple(kept[name] for name in ("images", "textures", "index", "unseen"))


def training_data(
    them: RenderedSet, targets: str, recipe: Recipe, made_by: Path | None
) -> TrainingData:
    """What an arm trains on.

    Args:
        them: whose training people they are.
        targets: one of TARGETS.
        recipe: of the arm; its texture_size is that of the targets.
        made_by: the folder of SAN-PG, for pseudo textures; None where an arm has none of it.

    Raises:
        ValueError: no such targets.
    """
    images, labels = them.images[them.train_rows], them.identity[them.train_rows]
    data = TrainingData(images=images, labels=labels)
    size = recipe.texture_size
    if targets == "none":
        return data
    if targets == "input":
        return _with_textures(
            data, square_images(images, size), np.arange(len(images)), left_right_mirror(size)
        )
    mirror = mirror_matrix(size)
    if targets == "true":
        return _with_textures(data, average_textures(them.textures, size), labels, mirror)
    if targets not in TARGETS:
        raise ValueError(f"no targets {targets!r}; there are {', '.join(TARGETS)}")
    assert made_by is not None  # see `Arm.uses_generator`
    pseudo = average_textures(
        predict_textures(weights.load_network(made_by).model, images, device="cpu"), size
    )
    index = np.arange(len(images)) if targets == "pseudo" else rows_of_other_people(labels)
    return _with_textures(data, pseudo, index, mirror)


def _with_textures(
    data: TrainingData, textures: Pixels, index: NDArray[Any], mirror: csr_array
) -> TrainingData:
    return dataclasses.replace(data, textures=textures, texture_index=index, mirror=mirror)


def average_textures(textures: Pixels, size: int) -> Pixels:
    """Textures (M, T, T, 3) at `size` texels a side."""
    return np.stack([area_average(texture, size) for texture in textures])


def square_images(images: Pixels, size: int) -> Pixels:
    """Images (N, H, W, 3) as squares: what an arm reconstructs that is given no texture."""
    return np.stack([resize(image, (size, size)) for image in images])


def left_right_mirror(size: int) -> csr_array:
    """How a square picture looks in the mirror, in the form of `mirror_matrix`."""
    columns = np.arange(size * size).reshape(size, size)[:, ::-1].ravel()
    return csr_array((np.ones(size * size, np.float32), columns, np.arange(size * size + 1)))


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


def _cache_key(code: tuple[str, ...], settings: object) -> str:
    """What the cache calls something made by that code from these settings."""
    text = f"{code_fingerprint(code, benchmarks=())} {settings!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _save_npz(file: Path, arrays: dict[str, Any]) -> None:
    """An .npz, there at once or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"unfinished-{file.name}")
    np.savez(unfinished, **arrays)
    unfinished.replace(file)
