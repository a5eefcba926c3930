"""Identities and how they are dressed: every garment, colours of the palette, skin left bare."""

from dataclasses import replace

import numpy as np
import pytest

from san_core.synthesis.difficulty import DIFFICULTIES
from san_core.synthesis.person.atlas import TEXTURE_SIZE
from san_core.synthesis.person.body import current_body
from san_core.synthesis.person.identity import (
    CARRIED,
    FACES,
    HAIR_COLOURS,
    HAIRSTYLES,
    LOGOS,
    LOWERS,
    PALETTE,
    PATTERNS,
    SHOES,
    SKIN_SHARES,
    UPPERS,
    Identity,
    sample_identity,
)
from san_core.synthesis.person.surface import texel_surface, vertex_surface
from san_core.synthesis.wardrobe.canvas import Canvas, smoothstep
from san_core.synthesis.wardrobe.lower import LOWER_CUTS
from san_core.synthesis.wardrobe.painter import paint_outfit
from san_core.synthesis.wardrobe.upper import UPPER_CUTS

RED, GREEN, BLUE = (200.0, 20.0, 20.0), (20.0, 200.0, 20.0), (20.0, 20.0, 200.0)
PLAIN = Identity(
    female=True,
    skin=(220.0, 180.0, 150.0),
    hair="short",
    hair_colour=(60.0, 40.0, 30.0),
    headwear_colour=BLUE,
    face="plain",
    upper="tee",
    upper_pattern="plain",
    upper_colours=(RED, GREEN, BLUE),
    logo="none",
    lower="trousers",
    lower_colours=(BLUE, GREEN),
    shoes="sneaker",
    shoe_colour=(30.0, 30.0, 30.0),
    carried="nothing",
    carried_colour=GREEN,
    details=7,
)


def mean_colour(identity, where):
    return paint_outfit(identity).texture.reshape(-1, 3)[where].mean(axis=0)


def test_each_part_of_a_plain_outfit_has_its_colour():
    skin = texel_surface()
    chest = skin.torso_front & (skin.torso_height > 0.4) & (skin.torso_height < 0.7)
    np.testing.assert_allclose(mean_colour(PLAIN, chest), RED, atol=12)
    shin = skin.leg & (skin.along_leg > 0.6) & (skin.along_leg < 0.9)
    np.testing.assert_allclose(mean_colour(PLAIN, shin), BLUE, atol=12)
    np.testing.assert_allclose(mean_colour(PLAIN, skin.hand), PLAIN.skin, atol=12)


def test_short_sleeves_bare_the_forearm_and_long_ones_cover_it():
    skin = texel_surface()
    forearm = skin.arm & (skin.along_arm > 0.6) & (skin.along_arm < 0.9)
    np.testing.assert_allclose(mean_colour(PLAIN, forearm), PLAIN.skin, atol=12)
    np.testing.assert_allclose(mean_colour(replace(PLAIN, upper="long"), forearm), RED, atol=12)


def test_only_what_hangs_around_both_legs_is_a_skirt():
    assert paint_outfit(PLAIN).skirt == 0
    assert 0.25 <= paint_outfit(replace(PLAIN, upper="dress")).skirt <= 0.6
    assert 0.25 <= paint_outfit(replace(PLAIN, upper="coat")).skirt <= 0.55
    assert 0.3 <= paint_outfit(replace(PLAIN, lower="skirt")).skirt <= 0.6


def test_a_backpack_stands_off_the_back_and_a_coat_off_the_chest():
    skin = vertex_surface()
    back = skin.torso_back & (np.abs(skin.x) < 0.05) & (np.abs(skin.z - 0.33) < 0.08)
    bare, packed = (
        paint_outfit(PLAIN).thickness,
        paint_outfit(replace(PLAIN, carried="backpack")).thickness,
    )
    assert (packed[back] > bare[back] + 0.05).all()
    chest = skin.torso_front & (np.abs(skin.torso_height - 0.6) < 0.1)
    coat = paint_outfit(replace(PLAIN, upper="coat")).thickness
    assert coat[chest].mean() > bare[chest].mean() + 0.01


def test_hidden_skin_and_hands_get_no_thickness():
    assert paint_outfit(PLAIN).thickness[vertex_surface().hand].max() < 0.01
    assert paint_outfit(PLAIN).thickness.shape == (len(current_body().mean),)


CHOICES = [
    (field, name)
    for field, options in (
        ("hair", HAIRSTYLES),
        ("upper", UPPERS),
        ("upper_pattern", PATTERNS),
        ("lower", LOWERS),
        ("logo", LOGOS),
        ("face", FACES),
        ("carried", CARRIED),
        ("shoes", SHOES),
    )
    for name in options
    if getattr(PLAIN, field) != name
]


@pytest.mark.parametrize(("field", "name"), CHOICES)
def test_every_choice_is_seen_in_colour_or_shape(field, name):
    plain, outfit = paint_outfit(PLAIN), paint_outfit(replace(PLAIN, **{field: name}))
    assert outfit.texture.shape == (TEXTURE_SIZE, TEXTURE_SIZE, 3)
    coloured = (outfit.texture != plain.texture).any(axis=-1).mean()
    shaped = (np.abs(outfit.thickness - plain.thickness) > 0.001).mean()
    assert max(coloured, shaped) > 0.0005


def test_every_garment_on_offer_has_a_cut():
    assert set(UPPERS) == set(UPPER_CUTS)
    assert set(LOWERS) == set(LOWER_CUTS)


def test_dressing_twice_gives_the_same_texture():
    first, second = paint_outfit(PLAIN), paint_outfit(PLAIN)
    assert (first.texture == second.texture).all()
    assert (first.thickness == second.thickness).all()


def test_left_and_right_sleeves_are_alike():
    red = (paint_outfit(PLAIN).texture.reshape(-1, 3)[:, 0] > 150) & texel_surface().arm
    left, right = (red & (sign * texel_surface().x > 0) for sign in (1, -1))
    assert left.sum() == pytest.approx(right.sum(), rel=0.05)


def test_a_palette_of_ten_without_jitter_uses_the_ten_commonest_colours():
    level = replace(DIFFICULTIES["hard"], palette=10, colour_jitter=0.0)
    allowed = {tuple(map(float, entry[0])) for entry in list(PALETTE.values())[:10]}
    for seed in range(50):
        person = sample_identity(np.random.default_rng(seed), level)
        assert set(person.upper_colours) <= allowed


def test_colour_jitter_makes_two_black_shirts_differ():
    level = replace(DIFFICULTIES["easy"], palette=3)
    colours = {
        sample_identity(np.random.default_rng(seed), level).upper_colours[0] for seed in range(20)
    }
    assert len(colours) == 20


def test_patterns_are_as_common_as_asked():
    never, always = (replace(DIFFICULTIES["easy"], pattern_share=share) for share in (0.0, 1.0))
    for seed in range(40):
        plain = sample_identity(np.random.default_rng(seed), never)
        assert (plain.upper_pattern, plain.logo) == ("plain", "none")
        loud = sample_identity(np.random.default_rng(seed), always)
        assert loud.upper_pattern != "plain" or loud.upper in ("jacket", "coat")


def test_shares_add_up_and_the_palette_is_ordered():
    assert sum(SKIN_SHARES) == pytest.approx(1)
    assert sum(share for _, share in HAIR_COLOURS) == pytest.approx(1)
    weights = [upper + lower for _, upper, lower in PALETTE.values()]
    assert weights == sorted(weights, reverse=True)


def test_noise_on_a_part_is_noise_on_the_whole():
    canvas = Canvas(np.random.default_rng(0), (0, 0, 0))
    part = texel_surface().torso_front
    np.testing.assert_array_equal(canvas.noise(0.03, where=part), canvas.noise(0.03)[part])
    assert canvas.noise(0.01).std() == pytest.approx(0.55, abs=0.15)


def test_painting_touches_only_its_texels():
    canvas = Canvas(np.random.default_rng(0), (100, 100, 100))
    part = texel_surface().foot
    canvas.fill(part, (10, 20, 30))
    canvas.shade(part, 2)
    assert (canvas.colour[part] == [20, 40, 60]).all()
    assert (canvas.colour[~part] == 100).all()
    half = np.where(part, np.float32(0.5), np.float32(0))
    canvas.blend(half, (40, 40, 40))
    assert (canvas.colour[part] == [30, 40, 50]).all()


def test_wearing_something_marks_where_it_hangs_and_folds():
    canvas = Canvas(np.random.default_rng(0), (0, 0, 0))
    where = canvas.dress_region(lambda s: s.torso_front, RED, thickness=0.01, hang=0.7, folds=0.4)
    assert (where == texel_surface().torso_front).all()
    assert set(canvas.folds[where]) == {np.float32(0.4)}
    assert not canvas.folds[~where].any()
    assert canvas.hang[vertex_surface().torso_front] == pytest.approx(0.7)
    assert not canvas.hang[~vertex_surface().torso_front].any()


def test_what_juts_out_keeps_its_edge():
    cap, plain = (paint_outfit(replace(PLAIN, hair=hair)).thickness for hair in ("cap", "beanie"))
    forehead = vertex_surface().head_front & (vertex_surface().y < -0.09)
    assert (cap - plain)[forehead].max() > 0.04
    bun = paint_outfit(replace(PLAIN, hair="bun")).thickness
    short = paint_outfit(replace(PLAIN, hair="short")).thickness
    assert (bun - short)[vertex_surface().head & (vertex_surface().y > 0)].max() > 0.015


def test_folds_darken_and_brighten_cloth_but_not_skin():
    creased = replace(PLAIN, upper="jacket", lower="jeans")
    smooth = replace(PLAIN, upper="tank", lower="leggings")

    def unevenness(identity, where):
        return paint_outfit(identity).texture.reshape(-1, 3)[where].mean(axis=1).std()

    shin = (
        texel_surface().leg & (texel_surface().along_leg > 0.6) & (texel_surface().along_leg < 0.9)
    )
    assert unevenness(creased, shin) > 2 * unevenness(smooth, shin)
    assert unevenness(creased, texel_surface().hand) == pytest.approx(
        unevenness(smooth, texel_surface().hand), rel=0.5
    )


def test_two_faces_differ_in_their_features():
    face = texel_surface().head_front & (texel_surface().y < -0.08)
    first, second = (
        paint_outfit(replace(PLAIN, hair="bald", details=d))
        .texture.reshape(-1, 3)[face]
        .astype(int)
        for d in (1, 2)
    )
    assert np.abs(first - second).max() > 60


def test_smoothstep_rises_or_falls():
    np.testing.assert_allclose(smoothstep(0, 2, [-1, 0, 1, 2, 3]), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(smoothstep(2, 0, [-1, 0, 1, 2, 3]), [1, 1, 0.5, 0, 0])
