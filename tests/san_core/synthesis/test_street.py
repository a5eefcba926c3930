"""People in the street: every hue and tone, and dense maps of the person alone."""

from dataclasses import replace

import numpy as np
import pytest

from san_core.images.lab import rgb_to_lab
from san_core.images.pixels import decode
from san_core.synthesis.camera.camera import make_scene
from san_core.synthesis.dataset import make_pit_identity
from san_core.synthesis.difficulty import DIFFICULTIES
from san_core.synthesis.person.body import sample_shape
from san_core.synthesis.person.identity import sample_identity
from san_core.synthesis.spec import PitSpec
from san_core.synthesis.street import camera, carried, picture
from san_core.synthesis.street.colours import sample_street_identity
from san_core.synthesis.wardrobe.painter import paint_outfit

STREET = PitSpec(
    seed=5,
    identities=4,
    meshes=2,
    image_size=(64, 32),
    texture_size=64,
    held_out=0.4,
    dense=True,
    world="street",
)


@pytest.fixture(scope="module")
def people():
    return [make_pit_identity(STREET, identity) for identity in range(STREET.identities)]


def hue_shares(sample):
    """How the hues of 400 coloured upper garments spread over six sectors."""
    rng = np.random.default_rng(1)
    _, a, b = rgb_to_lab([sample(rng).upper_colours[0] for _ in range(400)]).T
    coloured = np.hypot(a, b) > 12
    hues = np.rad2deg(np.arctan2(b, a)[coloured]) % 360
    return np.bincount((hues // 60).astype(int), minlength=6) / coloured.sum()


def test_garments_of_every_hue_are_about_as_frequent():
    studio = hue_shares(lambda rng: sample_identity(rng, DIFFICULTIES["easy"]))
    assert studio.min() < 0.06  # there the test would fail
    assert hue_shares(sample_street_identity).min() > 0.1


def test_skin_is_of_every_tone_and_of_no_other_colour():
    rng = np.random.default_rng(2)
    lightness, a, b = rgb_to_lab([sample_street_identity(rng).skin for _ in range(200)]).T
    tones = np.histogram(lightness, [20, 36, 52, 68, 95])[0] / 200
    assert tones.sum() == 1
    assert tones.min() > 0.1
    assert np.median(np.rad2deg(np.arctan2(b, a))) == pytest.approx(55, abs=15)
    assert np.quantile(np.hypot(a, b), 0.99) < 45


def test_a_street_is_the_same_bytes_whatever_was_made_before(people):
    assert make_pit_identity(STREET, 2) == people[2]
    studio = make_pit_identity(replace(STREET, world="studio"), 2)
    assert studio.images[0].data != people[2].images[0].data
    assert studio.texture.data != people[2].texture.data


def test_pictures_tell_who_and_what_else_is_in_them(people):
    known = {*carried._THINGS, "neighbour", "obstacle"}
    assert all(set(shot.fields["beside"]) <= known for made in people for shot in made.images)
    assert STREET.provenance()["spec"]["world"] == "street"


def taken(monkeypatch, count, **shares):
    """Pictures, before a camera spoils them, of people who are clad in pure magenta."""
    for name, share in shares.items():
        monkeypatch.setattr(picture, name, share)
    monkeypatch.setattr(picture, "photograph", lambda _, image: image)
    monkeypatch.setattr(picture, "cast_shade", lambda *_: None)
    rng = np.random.default_rng(3)
    outfit = paint_outfit(sample_street_identity(rng))
    outfit = outfit._replace(texture=np.full_like(outfit.texture, (255, 0, 255)))
    return [
        picture.take_street_picture(
            rng,
            outfit,
            shape=sample_shape(rng, female=True),
            place=make_scene(0, -1, 0),
            size=(128, 64),
            dense=True,
            seed=0,
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("what", ["THING_SHARE", "NEIGHBOUR_SHARE", "OCCLUDER_SHARE"])
def test_dense_maps_mark_the_person_and_nothing_before_or_behind(monkeypatch, what):
    nothing = {"THING_SHARE": 0, "NEIGHBOUR_SHARE": 0, "OCCLUDER_SHARE": 0}
    for each in taken(monkeypatch, 12, **{**nothing, what: 1}):
        assert each.beside
        marked = each.image[each.dense[..., 2] == 255]
        assert len(marked) > 100
        assert marked[:, 1].max() < 1.5  # magenta has no green, whatever the light


def test_some_boxes_cut_people_and_some_miss_the_middle(monkeypatch):
    nothing = {"THING_SHARE": 0, "NEIGHBOUR_SHARE": 0, "OCCLUDER_SHARE": 0}
    masks = [each.dense[..., 2] > 127 for each in taken(monkeypatch, 40, **nothing)]
    assert 0.05 < np.mean([mask[-1].any() for mask in masks]) < 0.4
    middles = [np.flatnonzero(mask.any(axis=0)).mean() / mask.shape[1] for mask in masks]
    assert np.std(middles) > 0.04


def test_a_camera_without_colours_gives_grey_and_others_do_not(monkeypatch):
    image = np.full((64, 32, 3), (200.0, 40.0, 90.0), np.float32)
    monkeypatch.setattr(camera, "GREY_SHARE", 1.0)
    grey = camera.photograph(np.random.default_rng(0), image)
    monkeypatch.setattr(camera, "GREY_SHARE", 0.0)
    coloured = camera.photograph(np.random.default_rng(0), image)
    assert np.ptp(grey.mean(axis=(0, 1))) < 3
    assert np.ptp(coloured.mean(axis=(0, 1))) > 40


def test_pictures_of_a_street_are_of_the_size_asked_for(people):
    assert decode(people[0].images[0].data).shape == (64, 32, 3)
    assert decode(people[0].dense[0].data).shape == (64, 32, 3)
