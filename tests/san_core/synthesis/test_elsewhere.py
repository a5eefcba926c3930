"""People elsewhere: nothing of theirs is in town, and the town stays as it is."""

from dataclasses import replace

import numpy as np
import pytest

from san_core.images.lab import rgb_to_lab
from san_core.synthesis.camera.camera import make_camera
from san_core.synthesis.dataset import make_reid_identity, reid_texture
from san_core.synthesis.difficulty import DIFFICULTIES
from san_core.synthesis.elsewhere.camera import (
    DISTANCES,
    ELEVATIONS,
    LAMP_HEIGHTS,
    make_elsewhere_camera,
    make_elsewhere_scene,
)
from san_core.synthesis.elsewhere.clothes import (
    ELSEWHERE_PALETTE,
    ELSEWHERE_PATTERNS,
    sample_elsewhere_identity,
)
from san_core.synthesis.elsewhere.places import PLACES
from san_core.synthesis.person.identity import PALETTE, PATTERNS
from san_core.synthesis.place.background import (
    BACKDROP_BUILDERS,
    SCENE_COLUMNS,
    SCENE_ROWS,
    Viewpoint,
)
from san_core.synthesis.spec import ReidSpec
from san_core.synthesis.world import ELSEWHERE, TOWN

NORMAL = DIFFICULTIES["normal"]
TOWNSPEOPLE = ReidSpec(
    seed=5, train_identities=1, test_identities=1, cameras=2, shots=1, image_size=(64, 32)
)
STRANGERS = replace(TOWNSPEOPLE, world=ELSEWHERE)


def test_no_colour_and_no_pattern_is_worn_in_town():
    town = rgb_to_lab([colour for colour, _, _ in PALETTE.values()])
    for name, colour in ELSEWHERE_PALETTE.items():
        nearest = np.linalg.norm(town - rgb_to_lab(colour), axis=-1).min()
        assert nearest > 12, name  # 2.3 is just seen
    assert not set(ELSEWHERE_PATTERNS) & set(PATTERNS)
    assert not set(PLACES) & set(BACKDROP_BUILDERS)


def test_clothes_are_of_that_palette_and_those_patterns():
    level = replace(NORMAL, colour_jitter=0.0)
    patterns = set()
    for seed in range(40):
        looks = sample_elsewhere_identity(np.random.default_rng(seed), level)
        worn = {*looks.upper_colours, *looks.lower_colours, looks.shoe_colour, looks.carried_colour}
        assert worn <= set(ELSEWHERE_PALETTE.values())
        patterns.add(looks.upper_pattern)
    assert patterns == {"plain", *ELSEWHERE_PATTERNS}


@pytest.mark.parametrize("index", range(3))
def test_cameras_hang_higher_further_away_and_in_lower_light(index):
    town, camera = make_camera(1, index, NORMAL), make_elsewhere_camera(1, index, NORMAL)
    assert ELEVATIONS[0] <= camera.elevation <= ELEVATIONS[1]
    assert DISTANCES[0] <= camera.distance <= DISTANCES[1]
    assert town.elevation < ELEVATIONS[0]
    assert town.distance < DISTANCES[0]
    assert camera.sensor != town.sensor
    for light in camera.lights:
        height = np.rad2deg(np.arcsin(light.direction[2]))
        assert LAMP_HEIGHTS[0] <= height <= LAMP_HEIGHTS[1]
        assert abs(light.lamp[0] / light.lamp[2] - 1) > 0.2  # its tint


@pytest.mark.parametrize("place", PLACES)
def test_every_place_fills_the_picture(place):
    for seed in range(4):
        built = place(np.random.default_rng(seed), Viewpoint(100, 3.0, 250.0))
        assert built.image.shape == (SCENE_ROWS, SCENE_COLUMNS, 3)
        assert np.isfinite(built.image).all()
        assert 30 < built.image.mean() < 235
        assert built.end > 4


def test_scenes_are_always_the_same_and_unlike_each_other():
    first = make_elsewhere_scene(1, 0, 0)
    make_elsewhere_scene.cache_clear()
    assert np.array_equal(first.image, make_elsewhere_scene(1, 0, 0).image)
    assert not np.array_equal(first.image, make_elsewhere_scene(1, 1, 0).image)


def test_a_stranger_is_nobody_in_town_and_keeps_to_the_structure_of_a_set():
    town, strange = (make_reid_identity(spec, 0) for spec in (TOWNSPEOPLE, STRANGERS))
    assert [(s.pid, s.camid, s.split) for s in strange.shots] == [
        (s.pid, s.camid, s.split) for s in town.shots
    ]
    assert all(a.data != b.data for a, b in zip(town.shots, strange.shots, strict=True))
    assert not np.array_equal(reid_texture(TOWNSPEOPLE, 0), reid_texture(STRANGERS, 0))
    assert [shot.data for shot in make_reid_identity(STRANGERS, 0).shots] == [
        shot.data for shot in strange.shots
    ]


def test_sets_in_town_say_what_they_did_before_there_was_another_world():
    assert "world" not in TOWNSPEOPLE.provenance()["spec"]
    assert STRANGERS.provenance()["spec"]["world"] == ELSEWHERE
    assert TOWNSPEOPLE.world == TOWN


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"world": "moon"}, "no world 'moon'; there are: town, elsewhere"),
        ({"world": ELSEWHERE, "backgrounds": object()}, "it takes no backgrounds"),
    ],
)
def test_worlds_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(TOWNSPEOPLE, **fields)
