"""Synthetic data sets: paired images and textures (PIT), and people on several cameras (ReID).

PIT follows SAN (Jin et al., AAAI 2020): each texture is put on ten meshes, each rendered from a
random view before a random background. The generator learns to regress the texture from an image.
The ReID set has the structure of Market-1501. Every sample depends on (seed, identity, index)
alone, so any order and any number of processes give equal bytes.
"""

from typing import Any, NamedTuple

import numpy as np

from san_core.images.pixels import Pixels, area_average, encode_jpeg, encode_png
from san_core.synthesis.camera.camera import (
    PIT_SCENES,
    SCENES_PER_CAMERA,
    Camera,
    make_camera,
    make_scene,
    sample_pit_sensor,
    sample_pit_view,
)
from san_core.synthesis.camera.light import Light, sample_light
from san_core.synthesis.camera.posing import frame_person
from san_core.synthesis.camera.render import NO_UV, View, dense_map, draw_mesh, empty_uv
from san_core.synthesis.difficulty import DIFFICULTIES, Difficulty, difficulty_by_name
from san_core.synthesis.elsewhere.camera import make_elsewhere_camera, make_elsewhere_scene
from san_core.synthesis.elsewhere.clothes import sample_elsewhere_identity
from san_core.synthesis.person.body import Floats, sample_shape
from san_core.synthesis.person.identity import Identity, sample_identity
from san_core.synthesis.place.background import Scene, crop_scene
from san_core.synthesis.place.occluder import draw_occluder
from san_core.synthesis.place.photographs import HORIZON_RANGE
from san_core.synthesis.spec import (
    PIT_LOOKS,
    PIT_SHOT,
    REID_LOOKS,
    REID_SHAPE,
    REID_SHOT,
    PitSpec,
    ReidSpec,
    check_identity,
    held_out_identities,
)
from san_core.synthesis.street.colours import sample_street_identity
from san_core.synthesis.street.picture import take_street_picture
from san_core.synthesis.wardrobe.painter import Outfit, paint_outfit
from san_core.synthesis.world import ELSEWHERE

PIT_QUALITY = 95  # of PIT's JPEGs
_ELSEWHERE_STREAM = 1  # ends the streams of random numbers of that world


class Shot(NamedTuple):
    """One encoded file and its metadata."""

    name: str
    data: bytes
    fields: dict[str, Any]  # JSON values; angles in degrees, as `View` counts them
    split: str
    pid: int | None = None
    camid: int | None = None  # from 0


class PitIdentity(NamedTuple):
    """A texture and the images of people who wear it, all in one split."""

    texture: Shot  # PNG
    images: list[Shot]  # JPEG
    dense: list[Shot]  # PNG, one an image under its name; empty unless asked for


class ReidIdentity(NamedTuple):
    """All images of one person, sorted by camera."""

    pid: int  # identity + 1: 0 is for distractors
    shots: list[Shot]  # JPEG


def make_pit_identity(spec: PitSpec, identity: int) -> PitIdentity:
    """Texture number `identity`, from 0, and its images.

    Raises:
        ValueError: the spec has no such identity, or a background is not a whole image.
    """
    check_identity(spec, identity)
    rng = np.random.default_rng([spec.seed, PIT_LOOKS, identity])
    if spec.world == "street":
        looks = sample_street_identity(rng)
    else:
        looks = sample_identity(rng, DIFFICULTIES["easy"])
    outfit = paint_outfit(looks)
    unseen = held_out_identities(spec.seed, spec.identities, spec.held_out)
    split = "val" if identity in unseen else "train"
    name = f"{identity:04d}.png"
    texture = encode_png(area_average(outfit.texture, spec.texture_size))
    made = [
        _make_pit_shots(spec, identity, mesh, looks=looks, outfit=outfit, split=split)
        for mesh in range(spec.meshes)
    ]
    images = [image for image, _ in made]
    dense = [dense for _, dense in made if dense]
    return PitIdentity(Shot(name, texture, {"identity": identity}, split), images, dense)


def _make_pit_shots(
    spec: PitSpec, identity: int, mesh: int, *, looks: Identity, outfit: Outfit, split: str
) -> tuple[Shot, Shot | None]:
    """An image and, if `spec.dense`, its dense map."""
    rng = np.random.default_rng([spec.seed, PIT_SHOT, identity, mesh])
    take = _take_in_street if spec.world == "street" else _take_in_studio
    image, dense, fields = take(spec, rng, looks, outfit)
    stem = f"{identity:04d}_{mesh:02d}"
    fields = {"texture": f"{identity:04d}.png", **fields}
    shot = Shot(f"{stem}.jpg", encode_jpeg(image, quality=PIT_QUALITY), fields, split)
    if dense is None:
        return shot, None
    return shot, Shot(f"{stem}.png", encode_png(dense), {"image": shot.name}, split)


class _PitPicture(NamedTuple):
    """An image (H, W, 3), its dense map if `spec.dense`, and its metadata."""

    image: Pixels
    dense: Pixels | None
    fields: dict[str, Any]


def _take_in_studio(
    spec: PitSpec, rng: np.random.Generator, looks: Identity, outfit: Outfit
) -> _PitPicture:
    view = sample_pit_view(rng)
    place, background = _pit_scene(spec, rng)
    shape = sample_shape(rng, female=looks.female)
    picture = _render_picture(
        rng,
        outfit,
        shape=shape,
        view=view,
        light=sample_light(rng),
        place=place,
        size=spec.image_size,
        dense=spec.dense,
    )
    fields = {**_view_angles(view), "pose": picture.pose}
    fields |= {"shape": _rounded(shape), "background": background}
    image = sample_pit_sensor(rng).develop(rng, picture.image)
    return _PitPicture(image, picture.dense, fields)


def _take_in_street(
    spec: PitSpec, rng: np.random.Generator, looks: Identity, outfit: Outfit
) -> _PitPicture:
    place, background = _pit_scene(spec, rng)
    shape = sample_shape(rng, female=looks.female)
    taken = take_street_picture(
        rng,
        outfit,
        shape=shape,
        place=place,
        size=spec.image_size,
        dense=spec.dense,
        seed=spec.seed,
    )
    fields = {**_view_angles(taken.view), "pose": taken.pose, "shape": _rounded(shape)}
    fields |= {"background": background, "beside": taken.beside}
    return _PitPicture(taken.image, taken.dense, fields)


def _rounded(shape: Floats) -> list[float]:
    return [round(float(c), 3) for c in shape]


def _pit_scene(spec: PitSpec, rng: np.random.Generator) -> tuple[Scene, int | str]:
    """The scene of a picture, and its name in the index: a number or a photograph's name."""
    if spec.backgrounds is None:
        number = int(rng.integers(PIT_SCENES))
        return make_scene(spec.seed, -1, number), number
    number = int(rng.integers(spec.backgrounds.count))
    place = spec.backgrounds.scene_at(number, horizon=rng.uniform(*HORIZON_RANGE))
    return place, spec.backgrounds.name(number)


def make_reid_identity(spec: ReidSpec, identity: int) -> ReidIdentity:
    """Person number `identity`, from 0, on all cameras.

    One of a test identity's shots on each camera is its query, and the others are gallery images.
    The number of this shot depends on identity and camera. With one shot a camera, the shot is a
    query where the sum of identity and camera is even, else a gallery image.

    Raises:
        ValueError: the spec has no such identity, or a background is not a whole image.
    """
    check_identity(spec, identity)
    level = difficulty_by_name(spec.difficulty)
    looks = _sample_reid_looks(spec, identity, level)
    outfit = paint_outfit(looks)
    rng = _reid_rng(spec, REID_SHAPE, identity)
    shape = sample_shape(rng, female=looks.female)
    shots = [
        _make_reid_shot(spec, identity, (camid, shot), level=level, outfit=outfit, shape=shape)
        for camid in range(spec.cameras)
        for shot in range(spec.shots)
    ]
    return ReidIdentity(identity + 1, shots)


def reid_texture(spec: ReidSpec, identity: int) -> Pixels:
    """The ground-truth texture (256, 256, 3) of person number `identity`.

    Raises:
        ValueError: the spec has no such identity.
    """
    check_identity(spec, identity)
    level = difficulty_by_name(spec.difficulty)
    return paint_outfit(_sample_reid_looks(spec, identity, level)).texture


def _sample_reid_looks(spec: ReidSpec, identity: int, level: Difficulty) -> Identity:
    sample = sample_elsewhere_identity if spec.world == ELSEWHERE else sample_identity
    return sample(_reid_rng(spec, REID_LOOKS, identity), level)


def _reid_rng(spec: ReidSpec, *stream: int) -> np.random.Generator:
    """The generator of a stream; the worlds "elsewhere" and "town" share no person of one seed."""
    apart = (_ELSEWHERE_STREAM,) if spec.world == ELSEWHERE else ()
    return np.random.default_rng([spec.seed, *stream, *apart])


def _make_reid_shot(
    spec: ReidSpec,
    identity: int,
    index: tuple[int, int],
    *,
    level: Difficulty,
    outfit: Outfit,
    shape: Floats,
) -> Shot:
    camid, shot = index
    rng = _reid_rng(spec, REID_SHOT, identity, camid, shot)
    source = _reid_camera(spec, camid, level)
    view, number = source.sample_view(rng), int(rng.integers(SCENES_PER_CAMERA))
    picture = _render_picture(
        rng,
        outfit,
        shape=shape,
        view=view,
        light=source.lights[number],
        place=_reid_scene(spec, camid, number),
        size=spec.image_size,
    )
    occluded = bool(rng.random() < source.occlusion)
    if occluded:
        draw_occluder(rng, picture.image)
    exposure = np.float32(np.exp(rng.normal(0, 0.07)))
    image = source.sensor.develop(rng, picture.image * exposure)
    frame_number = identity * spec.shots + shot + 1
    name = f"{identity + 1:04d}_c{camid + 1}s{number + 1}_{frame_number:06d}_00.jpg"
    fields = {**_view_angles(view), "pose": picture.pose, "scene": number, "occluded": occluded}
    data = encode_jpeg(image, quality=source.quality)
    return Shot(name, data, fields, _reid_split(spec, identity, index), identity + 1, camid)


def _reid_camera(spec: ReidSpec, camid: int, level: Difficulty) -> Camera:
    make = make_elsewhere_camera if spec.world == ELSEWHERE else make_camera
    return make(spec.seed, camid, level)


def _reid_scene(spec: ReidSpec, camid: int, number: int) -> Scene:
    if spec.world == ELSEWHERE:
        return make_elsewhere_scene(spec.seed, camid, number)
    return make_scene(spec.seed, camid, number, spec.backgrounds)


def _reid_split(spec: ReidSpec, identity: int, index: tuple[int, int]) -> str:
    camid, shot = index
    if identity < spec.train_identities:
        return "train"
    chosen = (identity + camid) % max(2, spec.shots)
    return "query" if shot == chosen else "gallery"


def _view_angles(view: View) -> dict[str, float]:
    azimuth, elevation = np.rad2deg(view.azimuth) % 360, np.rad2deg(view.elevation)
    return {"azimuth": round(float(azimuth), 1), "elevation": round(float(elevation), 1)}


class _Picture(NamedTuple):
    image: Floats  # (H, W, 3)
    pose: str
    dense: Pixels | None  # (H, W, 3), as `dense_map` gives it


def _render_picture(
    rng: np.random.Generator,
    outfit: Outfit,
    *,
    shape: Floats,
    view: View,
    light: Light,
    place: Scene,
    size: tuple[int, int],
    dense: bool = False,
) -> _Picture:
    """Render a dressed person of a shape, in a random pose, before a background."""
    framed, pose = frame_person(rng, outfit, shape=shape, view=view, size=size)
    background = crop_scene(place, rng, size=size, horizon=framed.horizon)
    background *= np.float32(rng.uniform(0.75, 1.25))
    uv = empty_uv(size) if dense else NO_UV
    drawing = draw_mesh(framed, outfit.texture, light=light, background=background, uv=uv)
    texels = dense_map(uv, drawing.alpha) if dense else None
    return _Picture(drawing.image, pose, texels)
