"""Pictures of the world "street": other people, bags, occlusion and poor light."""

import functools
from typing import NamedTuple

import numpy as np

from san_core.images.pixels import Pixels
from san_core.synthesis.camera.light import Light
from san_core.synthesis.camera.posing import frame_person
from san_core.synthesis.camera.render import (
    NO_UV,
    FramedMesh,
    View,
    dense_map,
    draw_mesh,
    empty_uv,
)
from san_core.synthesis.person.body import Floats, sample_shape
from san_core.synthesis.place.background import Scene, crop_scene
from san_core.synthesis.place.occluder import draw_occluder
from san_core.synthesis.street.camera import (
    GREY_WEIGHTS,
    cast_shade,
    photograph,
    sample_street_light,
    sample_street_view,
)
from san_core.synthesis.street.carried import Thing, sample_thing
from san_core.synthesis.street.colours import sample_street_identity
from san_core.synthesis.wardrobe.painter import Outfit, paint_outfit

THING_SHARE, OCCLUDER_SHARE = 0.35, 0.1  # of pictures with something carried, something in the way
NEIGHBOUR_SHARE, NEARER_SHARE = 0.3, 0.4  # with somebody else in them; of these, in front
VIVID_SHARE = 0.3  # of places in other colours than streets have on the whole
NEIGHBOURS = 32  # how many there are; they pass by many times
_NEIGHBOUR_STREAM = 103


class StreetPicture(NamedTuple):
    """A picture and its metadata."""

    image: Pixels  # (H, W, 3)
    dense: Pixels | None  # (H, W, 3), as `dense_map` gives it, of the person alone
    view: View
    pose: str
    beside: list[str]  # what else is in the picture, in the order in which it was drawn


def take_street_picture(
    rng: np.random.Generator,
    outfit: Outfit,
    *,
    shape: Floats,
    place: Scene,
    size: tuple[int, int],
    dense: bool,
    seed: int,
) -> StreetPicture:
    """Render a dressed person of a shape in a place; `seed` is the set's, for its passers-by."""
    view, light = sample_street_view(rng), sample_street_light(rng)
    framed, pose = frame_person(rng, outfit, shape=shape, view=view, size=size)
    others = _sample_others(rng, framed, light=light, seed=seed)
    image = _sample_background(rng, place, framed)
    for thing in others:
        if not thing.in_front:
            thing.lay_over(image)
    uv = empty_uv(size) if dense else NO_UV
    image, alpha = draw_mesh(framed, outfit.texture, light=light, background=image, uv=uv)
    for thing in others:
        if thing.in_front:
            thing.lay_over(image)
            alpha *= 1 - thing.cover
    beside = [thing.kind for thing in others]
    if rng.random() < OCCLUDER_SHARE:
        alpha *= 1 - draw_occluder(rng, image)
        beside.append("obstacle")
    cast_shade(rng, image)
    texels = dense_map(uv, alpha) if dense else None
    return StreetPicture(photograph(rng, image), texels, view, pose, beside)


def _sample_background(rng: np.random.Generator, place: Scene, framed: FramedMesh) -> Floats:
    """A crop of a place (H, W, 3), sometimes in colours that streets do not have."""
    background = crop_scene(place, rng, size=framed.size, horizon=framed.horizon)
    background *= np.float32(rng.uniform(0.55, 1.3))
    if rng.random() < VIVID_SHARE:
        background = np.maximum(background @ _hue_turn(rng).T, 0)
    return background


def _hue_turn(rng: np.random.Generator) -> Floats:
    """A matrix on RGB that rotates hues by a random angle and raises saturation."""
    turn, vivid = rng.uniform(0, 2 * np.pi), rng.uniform(1, 2.5)
    cos, sin, third = np.cos(turn), np.sin(turn), 1 / 3
    grey, axis = np.full((3, 3), third), np.sqrt(third)
    cross = np.array([[0, -axis, axis], [axis, 0, -axis], [-axis, axis, 0]])
    turned = cos * np.eye(3) + sin * cross + (1 - cos) * grey
    mixing: Floats = ((vivid * np.eye(3) + (1 - vivid) * GREY_WEIGHTS) @ turned).astype(np.float32)
    return mixing


def _sample_others(
    rng: np.random.Generator, framed: FramedMesh, *, light: Light, seed: int
) -> list[Thing]:
    """Another person and a carried thing, each with its probability, in drawing order."""
    others = []
    if rng.random() < NEIGHBOUR_SHARE:
        others.append(_draw_neighbour(rng, framed.size, light=light, seed=seed))
    if rng.random() < THING_SHARE:
        others.append(sample_thing(rng, framed))
    return others


def _draw_neighbour(
    rng: np.random.Generator, size: tuple[int, int], *, light: Light, seed: int
) -> Thing:
    """Draw another person, partly in the picture: beside, behind, or nearer the camera."""
    in_front = bool(rng.random() < NEARER_SHARE)
    aside = (rng.uniform(0.4, 0.75) if in_front else rng.uniform(0.15, 0.6)) * rng.choice([-1, 1])
    view = View(
        azimuth=rng.uniform(0, 2 * np.pi),
        elevation=float(np.clip(rng.normal(0.2, 0.2), -0.1, 0.7)),
        distance=rng.uniform(3, 12),
        fill=rng.uniform(1.01, 1.4) if in_front else rng.uniform(0.45, 1.0),
        shift=(float(aside), rng.uniform(-0.02, 0.2) if in_front else rng.uniform(-0.12, 0.06)),
    )
    outfit, shape = _neighbour(seed, int(rng.integers(NEIGHBOURS)))
    framed = frame_person(rng, outfit, shape=shape, view=view, size=size).framed
    black = np.zeros((*size, 3), np.float32)
    drawn, alpha = draw_mesh(framed, outfit.texture, light=light, background=black)
    colour: Floats = (drawn / np.maximum(alpha, 1e-3)[..., None]).astype(np.float32)
    return Thing("neighbour", colour, alpha, in_front)


@functools.lru_cache(maxsize=NEIGHBOURS)
def _neighbour(seed: int, number: int) -> tuple[Outfit, Floats]:
    """A person outside the set, and the person's shape."""
    rng = np.random.default_rng([seed, _NEIGHBOUR_STREAM, number])
    looks = sample_street_identity(rng)
    return paint_outfit(looks), sample_shape(rng, female=looks.female)
