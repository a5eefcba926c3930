"""Rendered people whom no generator has seen, with their true textures and dense maps.

Legend: N pictures, P people.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation.labels import Labels
from san_core.images.lab import colour_of
from san_core.images.pixels import Pixels, decode
from san_core.synthesis import dataset
from san_core.synthesis.camera.camera import make_scene, sample_pit_sensor, sample_pit_view
from san_core.synthesis.camera.light import Light
from san_core.synthesis.camera.posing import frame_person
from san_core.synthesis.camera.render import dense_map, draw_mesh, empty_uv
from san_core.synthesis.dataset import make_pit_identity, reid_texture
from san_core.synthesis.difficulty import DIFFICULTIES
from san_core.synthesis.person.body import sample_shape
from san_core.synthesis.person.identity import SKIN_TONES, Colour, Identity, sample_identity
from san_core.synthesis.place.background import crop_scene
from san_core.synthesis.spec import PitSpec, ReidSpec
from san_core.synthesis.street.colours import sample_street_identity
from san_core.synthesis.wardrobe.painter import paint_outfit
from tests.benchmarks.groups.synthesis import CAMERA_COUNT, PEOPLE_COUNT, SEED

HELD_OUT_SEED = 1_000_003  # no generator may be trained on PIT of this seed
SIZE = (256, 128)  # rows and columns of every picture
HUES, LIGHTNESSES, SKINS = 24, (32, 46, 60, 74), 5
VIVIDNESS = 0.8  # of what sRGB has at a lightness and a hue
VIEWS = 4  # pictures of a person of the hues, evenly around
WARDROBE_PEOPLE, WARDROBE_VIEWS = 100, 4


class HeldOut(NamedTuple):
    """Pictures of people."""

    images: Pixels  # (N, *SIZE, 3)
    dense: Pixels  # (N, *SIZE, 3), as `dense_map` gives it
    person: NDArray[np.intp]  # (N,)
    textures: Pixels  # (P, 256, 256, 3), the true ones

    @property
    def truth(self) -> Pixels:
        """The true texture of every picture (N, 256, 256, 3)."""
        return self.textures[self.person]


def people_of_hues() -> HeldOut:
    """A person for every hue and lightness, in plain clothes, under twelve lights in turn."""
    images, dense, person, textures = [], [], [], []
    for number in range(HUES * len(LIGHTNESSES)):
        looks = _plain_person(number)
        outfit = paint_outfit(looks)
        textures.append(outfit.texture)
        for turn in range(VIEWS):
            rng = np.random.default_rng([HELD_OUT_SEED, 1, number, turn])
            view = sample_pit_view(rng)
            view = dataclasses.replace(view, azimuth=(turn + rng.random()) * 2 * np.pi / VIEWS)
            shape = sample_shape(rng, female=looks.female)
            framed = frame_person(rng, outfit, shape=shape, view=view, size=SIZE).framed
            place = make_scene(HELD_OUT_SEED, -1, int(rng.integers(40)))
            light = LIGHTS[(number * VIEWS + turn * 5 + number // HUES) % len(LIGHTS)]
            uv = empty_uv(SIZE)
            drawn, alpha = draw_mesh(
                framed,
                outfit.texture,
                light=light,
                background=crop_scene(place, rng, size=SIZE, horizon=framed.horizon),
                uv=uv,
            )
            images.append(sample_pit_sensor(rng).develop(rng, drawn))
            dense.append(dense_map(uv, alpha))
            person.append(number)
    return HeldOut(np.stack(images), np.stack(dense), np.array(person), np.stack(textures))


def _lights() -> Iterator[Light]:
    """From four sides: an overcast day, a low sun, and a dim lamp."""
    for side in range(4):
        around = np.pi / 4 + side * np.pi / 2
        for height, lamp, sky, tint, exposure in (
            (70, 0.25, 0.75, -0.03, 1.25),
            (30, 0.68, 0.5, 0.07, 1.2),
            (50, 0.45, 0.45, 0.12, 1.2),
        ):
            up = np.deg2rad(height)
            flat = np.cos(up)
            yield Light(
                direction=(np.cos(around) * flat, np.sin(around) * flat, np.sin(up)),
                lamp=(lamp * (1 + tint), lamp, lamp * (1 - tint)),
                sky=(sky * (1 - 0.5 * tint), sky, sky * (1 + 0.5 * tint)),
                exposure=exposure,
            )


LIGHTS = tuple(_lights())


def _plain_person(number: int) -> Identity:
    """Person `number` of the hues: other hue and lightness above than below, skin by turns."""
    rng = np.random.default_rng([HELD_OUT_SEED, 0, number])
    lightness, hue = divmod(number, HUES)
    tone = (len(SKIN_TONES) - 1) * (number % SKINS + 0.5) / SKINS
    low = int(tone)
    skin = SKIN_TONES[low] + (SKIN_TONES[low + 1] - SKIN_TONES[low]) * (tone - low)
    upper, lower = _garment(hue, lightness), _garment(hue + 7 + 5 * lightness, lightness + 2)
    return dataclasses.replace(
        sample_identity(rng, DIFFICULTIES["easy"]),
        skin=tuple(map(float, skin)),
        hair="short",
        face="plain",
        upper=("tee", "long")[number % 2],
        upper_pattern="plain",
        upper_colours=(upper, upper, upper),
        logo="none",
        lower=("trousers", "leggings")[hue % 2],
        lower_colours=(lower, lower),
        carried="nothing",
    )


def _garment(hue: int, lightness: int) -> Colour:
    place = LIGHTNESSES[lightness % len(LIGHTNESSES)]
    return colour_of(place, 2 * np.pi * (hue % HUES) / HUES, vividness=VIVIDNESS)


def people_of_a_wardrobe(world: str) -> HeldOut:
    """People of PIT as `make_pit` makes them of a world, and four pictures of each."""
    asked = PitSpec(
        seed=HELD_OUT_SEED,
        identities=WARDROBE_PEOPLE,
        meshes=WARDROBE_VIEWS,
        image_size=SIZE,
        dense=True,
        world=world,
    )
    made = [make_pit_identity(asked, number) for number in range(asked.identities)]
    return HeldOut(
        np.stack([decode(shot.data) for each in made for shot in each.images]),
        np.stack([decode(shot.data) for each in made for shot in each.dense]),
        np.repeat(np.arange(WARDROBE_PEOPLE), WARDROBE_VIEWS),
        np.stack([decode(each.texture.data) for each in made]),
    )


def mean_texture(world: str, *, count: int = 200) -> Pixels:
    """The mean (256, 256, 3) of other people's textures of a world, to fill up with."""
    total = np.zeros((256, 256, 3))
    for number in range(count):
        rng = np.random.default_rng([HELD_OUT_SEED, 2, number])
        is_street = world == "street"
        looks = (
            sample_street_identity(rng) if is_street else sample_identity(rng, DIFFICULTIES["easy"])
        )
        total += paint_outfit(looks).texture
    mean: Pixels = np.rint(total / count).astype(np.uint8)
    return mean


class HardPeople(NamedTuple):
    """The people at `hard` that matchers are asked to tell apart, one shot a camera."""

    shown: HeldOut
    labels: Labels


def hard_people() -> HardPeople:
    """Those of the group synthesis, with dense maps that leave out what stands before them."""
    asked = ReidSpec(
        seed=SEED,
        train_identities=0,
        test_identities=PEOPLE_COUNT,
        cameras=CAMERA_COUNT,
        shots=1,
        image_size=SIZE,
        difficulty="hard",
    )
    maps: list[Pixels] = []
    render, hide = dataset._render_picture, dataset.draw_occluder

    def with_map(*words, **flags):
        picture = render(*words, **flags, dense=True)
        maps.append(picture.dense)
        return picture

    def hidden(rng, image):
        cover = hide(rng, image)
        maps[-1][..., 2] = maps[-1][..., 2] * (1 - cover)
        return cover

    with (
        patch.object(dataset, "_render_picture", with_map),
        patch.object(dataset, "draw_occluder", hidden),
    ):
        shots = [
            shot
            for number in range(PEOPLE_COUNT)
            for shot in dataset.make_reid_identity(asked, number).shots
        ]
    labels = Labels(np.array([s.pid for s in shots]), np.array([s.camid for s in shots]))
    shown = HeldOut(
        np.stack([decode(shot.data) for shot in shots]),
        np.stack(maps),
        np.repeat(np.arange(PEOPLE_COUNT), CAMERA_COUNT),
        np.stack([reid_texture(asked, number) for number in range(PEOPLE_COUNT)]),
    )
    return HardPeople(shown, labels)
