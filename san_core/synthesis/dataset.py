"""Synthetic data sets: image-texture pairs (PIT) and people on several cameras (ReID).

PIT follows SAN (Jin et al., AAAI 2020): a texture is put on ten meshes, each seen from
a random side in a random place, and the generator learns to tell the texture from the image. The
ReID set has the structure of Market-1501. Every sample derives from (seed, identity, index) alone:
the same bytes in any order and in any number of processes.
"""

import functools
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from san_core.pixels import area_average, encode_jpeg, encode_png
from san_core.synthesis.atlas import check_texture_size
from san_core.synthesis.background import crop
from san_core.synthesis.body import Floats, joints_of, posed, sample_shape
from san_core.synthesis.camera import (
    PIT_SCENES,
    SCENES,
    camera,
    photograph_sensor,
    photograph_view,
    scene,
)
from san_core.synthesis.difficulty import DIFFICULTIES, Difficulty, difficulty
from san_core.synthesis.identity import Identity, sample_identity
from san_core.synthesis.light import Light, sample_light
from san_core.synthesis.occluder import occlude
from san_core.synthesis.pose import sample_pose
from san_core.synthesis.render import View, draw, frame
from san_core.synthesis.skirt import clothed_mesh
from san_core.synthesis.wardrobe import Outfit, dress

PIT_QUALITY = 95  # of PIT's JPEGs
SMALLEST_IMAGE = (32, 16)
MOST_CAMERAS = 9  # a Market-1501 name has one digit for the camera
# Streams of random numbers of one seed. PIT and ReID have their own, or a generator trained on PIT
# would have seen the very people that a ReID set of the same seed is tested on.
_PIT_LOOKS, _PIT_SHOT, _PIT_SPLIT, _REID_LOOKS, _REID_SHAPE, _REID_SHOT = range(1, 7)
S = TypeVar("S", bound="Spec")
T = TypeVar("T")


class Spec(Protocol):
    """What a data set is made from."""

    @property
    def identities(self) -> int:
        """How many people there are, numbered from 0."""
        ...


@dataclass(frozen=True)
class PitSpec:
    """Paired images and textures. Raises ValueError where a field makes no sense.

    Attributes:
        identities: textures; SAN uses 929 of SURREAL.
        meshes: images a texture, each with its own body shape, pose and view.
        image_size: rows and columns.
        texture_size: texels on a side; divides 256.
        held_out: share of identities in split val, at least one if above 0.
    """

    seed: int
    identities: int = 929
    meshes: int = 10
    image_size: tuple[int, int] = (256, 128)
    texture_size: int = 256
    held_out: float = 0.1

    def __post_init__(self) -> None:
        _check_count("seed", self.seed, least=0)
        _check_count("identities", self.identities, least=1)
        _check_count("meshes", self.meshes, least=1)
        _check_image_size(self.image_size)
        check_texture_size(self.texture_size)
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}: a share from 0 to below 1 is wanted")
        if self.held_out and self.identities < 2:
            raise ValueError("identities is 1: holding some out for validation takes at least 2")


@dataclass(frozen=True)
class ReidSpec:
    """People on several cameras. Raises ValueError where a field makes no sense.

    Attributes:
        train_identities: people in split train, numbered first.
        test_identities: other people, in splits query and gallery.
        cameras: 2 to 9.
        shots: images of every person on every camera.
        image_size: rows and columns.
        difficulty: a key of DIFFICULTIES.
    """

    seed: int
    train_identities: int
    test_identities: int
    cameras: int = 6
    shots: int = 3
    image_size: tuple[int, int] = (256, 128)
    difficulty: str = "normal"

    def __post_init__(self) -> None:
        _check_count("seed", self.seed, least=0)
        _check_count("train_identities", self.train_identities, least=0)
        _check_count("test_identities", self.test_identities, least=0)
        _check_count("train_identities + test_identities", self.identities, least=1)
        _check_count("shots", self.shots, least=1)
        _check_image_size(self.image_size)
        if not 2 <= self.cameras <= MOST_CAMERAS:
            raise ValueError(
                f"cameras is {self.cameras}: people are found again on another camera, so at "
                f"least 2, and file names have one digit for it, so at most {MOST_CAMERAS}"
            )
        difficulty(self.difficulty)

    @property
    def identities(self) -> int:
        """How many people there are: those to train on come first."""
        return self.train_identities + self.test_identities


def _check_count(name: str, value: int, *, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is {value}: at least {least} is wanted")


def _check_image_size(size: tuple[int, int]) -> None:
    rows, columns = size
    if rows < SMALLEST_IMAGE[0] or columns < SMALLEST_IMAGE[1]:
        raise ValueError(
            f"image size {rows}x{columns} is too small: at least "
            f"{SMALLEST_IMAGE[0]}x{SMALLEST_IMAGE[1]} (rows x columns) is wanted"
        )


class Shot(NamedTuple):
    """One encoded file and what is known about it."""

    name: str
    data: bytes
    fields: dict[str, Any]  # JSON values; angles in degrees
    split: str
    pid: int | None = None
    camid: int | None = None  # from 0


class PitIdentity(NamedTuple):
    """A texture and the images of people who wear it, all of one split."""

    texture: Shot  # PNG
    images: list[Shot]  # JPEG


class ReidIdentity(NamedTuple):
    """All images of one person, camera by camera."""

    pid: int  # identity + 1: 0 is for distractors
    shots: list[Shot]  # JPEG


def pit_identity(spec: PitSpec, identity: int) -> PitIdentity:
    """Texture number `identity`, from 0, and its images.

    Raises:
        ValueError: the spec has no such identity.
    """
    _check_identity(spec, identity)
    looks, outfit = _person([spec.seed, _PIT_LOOKS, identity], DIFFICULTIES["easy"])
    held_out = _held_out(spec.seed, spec.identities, spec.held_out)
    split = "val" if identity in held_out else "train"
    name = f"{identity:04d}.png"
    texture = encode_png(area_average(outfit.texture, spec.texture_size))
    images = [
        _pit_image(spec, identity, mesh, looks=looks, outfit=outfit, split=split)
        for mesh in range(spec.meshes)
    ]
    return PitIdentity(Shot(name, texture, {"identity": identity}, split), images)


@functools.lru_cache(maxsize=4)
def _held_out(seed: int, identities: int, share: float) -> frozenset[int]:
    """The identities of split val: at least one if any, and never all."""
    count = min(max(1, round(share * identities)), identities - 1) if share else 0
    order = np.random.default_rng([seed, _PIT_SPLIT]).permutation(identities)
    return frozenset(order[:count].tolist())


def _pit_image(
    spec: PitSpec, identity: int, mesh: int, *, looks: Identity, outfit: Outfit, split: str
) -> Shot:
    rng = np.random.default_rng([spec.seed, _PIT_SHOT, identity, mesh])
    view, number = photograph_view(rng), int(rng.integers(PIT_SCENES))
    shape = sample_shape(rng, female=looks.female)
    picture = _picture(
        rng,
        outfit,
        shape=shape,
        view=view,
        light=sample_light(rng),
        place=(spec.seed, -1, number),
        size=spec.image_size,
    )
    fields = {"texture": f"{identity:04d}.png", **_angles(view), "pose": picture.pose}
    fields |= {"background": number}
    image = photograph_sensor(rng).develop(rng, picture.image)
    name = f"{identity:04d}_{mesh:02d}.jpg"
    return Shot(name, encode_jpeg(image, quality=PIT_QUALITY), fields, split)


def reid_identity(spec: ReidSpec, identity: int) -> ReidIdentity:
    """Person number `identity`, from 0, on all cameras.

    Of a test identity's shots on a camera, one is its query, which one turning with identity and
    camera, and the others are gallery. With one shot a camera, identity and camera together
    decide: where their sum is even the shot is query, else gallery.

    Raises:
        ValueError: the spec has no such identity.
    """
    _check_identity(spec, identity)
    level = difficulty(spec.difficulty)
    looks, outfit = _person([spec.seed, _REID_LOOKS, identity], level)
    rng = np.random.default_rng([spec.seed, _REID_SHAPE, identity])
    shape = sample_shape(rng, female=looks.female)
    shots = [
        _reid_shot(spec, identity, (camid, shot), level=level, outfit=outfit, shape=shape)
        for camid in range(spec.cameras)
        for shot in range(spec.shots)
    ]
    return ReidIdentity(identity + 1, shots)


def _reid_shot(
    spec: ReidSpec,
    identity: int,
    index: tuple[int, int],
    *,
    level: Difficulty,
    outfit: Outfit,
    shape: Floats,
) -> Shot:
    camid, shot = index
    rng = np.random.default_rng([spec.seed, _REID_SHOT, identity, camid, shot])
    source = camera(spec.seed, camid, level)
    view, number = source.view(rng), int(rng.integers(SCENES))
    picture = _picture(
        rng,
        outfit,
        shape=shape,
        view=view,
        light=source.lights[number],
        place=(spec.seed, camid, number),
        size=spec.image_size,
    )
    occluded = bool(rng.random() < source.occlusion)
    if occluded:
        occlude(rng, picture.image)
    exposure = np.float32(np.exp(rng.normal(0, 0.07)))
    image = source.sensor.develop(rng, picture.image * exposure)
    frame_number = identity * spec.shots + shot + 1
    name = f"{identity + 1:04d}_c{camid + 1}s{number + 1}_{frame_number:06d}_00.jpg"
    fields = {**_angles(view), "pose": picture.pose, "scene": number, "occluded": occluded}
    data = encode_jpeg(image, quality=source.quality)
    return Shot(name, data, fields, _reid_split(spec, identity, index), identity + 1, camid)


def _reid_split(spec: ReidSpec, identity: int, index: tuple[int, int]) -> str:
    camid, shot = index
    if identity < spec.train_identities:
        return "train"
    chosen = (identity + camid) % max(2, spec.shots)
    return "query" if shot == chosen else "gallery"


def _check_identity(spec: Spec, identity: int) -> None:
    if not 0 <= identity < spec.identities:
        raise ValueError(f"no identity {identity}: the set has 0 to {spec.identities - 1}")


def _person(stream: list[int], level: Difficulty) -> tuple[Identity, Outfit]:
    looks = sample_identity(np.random.default_rng(stream), level)
    return looks, dress(looks)


def _angles(view: View) -> dict[str, float]:
    azimuth, elevation = np.rad2deg(view.azimuth) % 360, np.rad2deg(view.elevation)
    return {"azimuth": round(float(azimuth), 1), "elevation": round(float(elevation), 1)}


class _Picture(NamedTuple):
    image: Floats  # (H, W, 3)
    pose: str


def _picture(
    rng: np.random.Generator,
    outfit: Outfit,
    *,
    shape: Floats,
    view: View,
    light: Light,
    place: tuple[int, int, int],
    size: tuple[int, int],
) -> _Picture:
    """A dressed person of a shape, in a random pose, seen in a place: seed, camera or -1, scene."""
    pose = sample_pose(rng, joints_of(shape))
    vertices = posed(shape, pose.rotations, thickness=outfit.thickness)
    framed = frame(clothed_mesh(vertices, outfit.skirt), view, size)
    background = crop(scene(*place), rng, size=size, horizon=framed.horizon)
    background *= np.float32(rng.uniform(0.75, 1.25))
    drawing = draw(framed, outfit.texture, light=light, background=background)
    return _Picture(drawing.image, pose.kind)


def over_identities(make: Callable[[S, int], T], spec: S, *, processes: int) -> Iterator[T]:
    """What `make(spec, identity)` returns for every identity, in order.

    Args:
        make: pit_identity or reid_identity; with several processes a module's function.
        spec: what to make.
        processes: how many to work in; 1 works in this one. At most two results a process are
            made ahead, so memory does not grow with the number of identities.

    Raises:
        ValueError: processes is below 1.
        Exception: whatever `make` raises, in any process.
    """
    _check_count("processes", processes, least=1)
    if processes == 1:
        return (make(spec, identity) for identity in range(spec.identities))
    return _in_processes(make, spec, processes)


def _in_processes(make: Callable[[S, int], T], spec: S, processes: int) -> Iterator[T]:
    # Started afresh, not forked: a fork of a process with threads (BLAS, torch) may deadlock.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare_worker)
    waiting: deque[Future[T]] = deque()
    try:
        for identity in range(spec.identities):
            waiting.append(pool.submit(make, spec, identity))
            if len(waiting) >= 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
    """One BLAS thread a process: the matrices are small and the processes fill the machine.

    A worker waits for work on a pipe that it holds open itself, so it would never learn that its
    parent was killed; a thread watches for that.
    """
    threadpool_limits(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # from a thread, and with nobody left to clean up for
