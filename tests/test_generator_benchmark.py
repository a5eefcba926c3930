"""How texture generators are judged: the oracle, and scores on hand-made textures."""

import numpy as np
import pytest

from san_core.model import weights
from san_core.shipped.generator import SHIPPED_FOLDER
from tests.benchmarks.generator.oracle import at_input_size, copy_seen, texels_shown
from tests.benchmarks.generator.people import HeldOut
from tests.benchmarks.generator.scores import (
    at_side,
    detail_correlation,
    hue_is_right,
    mean_gradient,
    psnr_where,
    region_colours,
    view_distance_share,
)
from tests.benchmarks.groups.generator import rival_textures
from tools.generator.figures import COLUMNS, ROWS, Row, figures_table, reachable_bar
from tools.readme import generator_table


def noise(count, side=64, *, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def test_the_oracle_copies_what_is_seen_and_fills_the_rest():
    dense = np.zeros((4, 2, 3), np.uint8)
    dense[0, 0] = (8, 4, 255)  # column 8, row 4 of 256: cell (2, 1) of 64
    dense[0, 1] = (10, 7, 255)  # the same cell
    dense[1, 0] = (255, 255, 128)
    dense[2, 0] = (0, 0, 127)  # mostly something else
    image = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    fill = np.full((256, 256, 3), 77, np.uint8)
    made = copy_seen(image, dense, fill, 64)
    assert made[1, 2].tolist() == [2, 2, 4]  # means 1.5, 2.5, 3.5, ties to even
    assert made[63, 63].tolist() == image[1, 0].tolist()
    assert (made == 77).all(axis=2).sum() == 64 * 64 - 2
    shown = texels_shown(dense, 64)
    assert np.argwhere(shown).tolist() == [[1, 2], [63, 63]]


def test_at_the_input_size_a_texel_is_seen_if_a_pixel_left_there_shows_it():
    dense = np.zeros((4, 4, 3), np.uint8)
    dense[..., :2] = 4 * np.arange(16).reshape(4, 4, 1)  # pixel n shows texel (n, n) of 64
    dense[..., 2] = 255
    dense[3, 3, 2] = 0
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2] = 90
    small, map_of_it = at_input_size(image, dense, (2, 2))
    assert small.shape == map_of_it.shape == (2, 2, 3)
    assert small[0].tolist() == [[77] * 3] * 2  # 1 3 3 1 weighs the rows, cut at the edge: 90 * 6/7
    assert small[1].tolist() == [[13] * 3] * 2  # 90 * 1/7
    assert np.argwhere(texels_shown(map_of_it, 64)).tolist() == [[5, 5], [7, 7], [13, 13]]
    assert (map_of_it[..., 0] // 4).tolist() == [[5, 7], [13, 15]]  # of 2x2 the lower right


def test_a_spreading_oracle_copies_into_the_gaps_as_near_pixels_weigh():
    dense = np.zeros((1, 3, 3), np.uint8)
    dense[0] = [(40, 40, 255), (40, 40, 255), (48, 40, 255)]  # cells (10, 10) twice, and (10, 12)
    image = np.array([[[10] * 3, [40] * 3, [100] * 3]], np.uint8)
    fill = np.full((256, 256, 3), 77, np.uint8)
    sparse = copy_seen(image, dense, fill, 64)[10, :, 0]
    spread = copy_seen(image, dense, fill, 64, spread=0.7)[10, :, 0]
    assert sparse[10:13].tolist() == [25, 77, 100]
    assert spread[11] == (10 + 40 + 100) / 3  # equally far from all three
    far = np.exp(-(2**2) / (2 * 0.7**2))  # two texels away, over none
    assert spread[10] == np.rint((10 + 40 + 100 * far) / (2 + far))
    assert spread[5:18].tolist() == [77, *[25] * 4, 26, 50, 98, *[100] * 4, 77]


def test_the_oracles_at_the_input_size_see_the_generators_pictures():
    rng = np.random.default_rng(0)
    images = noise(2, 128).repeat(2, axis=1)  # 256x128
    dense = rng.integers(0, 256, images.shape, np.uint8)
    people = HeldOut(images, dense, np.arange(2), np.zeros((2, 256, 256, 3), np.uint8))
    fill = np.full((256, 256, 3), 77, np.uint8)
    loaded = weights.load_network(SHIPPED_FOLDER)
    ours, *oracles = rival_textures(loaded, people, fill).all_made()
    assert [made.name for made in (ours, *oracles)] == [
        "generator.",
        "generator.oracle_",
        "generator.oracle_at_input_size_",
        "generator.oracle_at_input_size_spread_",
    ]
    whole, reduced, spread = (made.fine for made in oracles)
    small = at_input_size(images[1], dense[1], loaded.recipe.image_size)
    assert (whole[1] == copy_seen(images[1], dense[1], fill, 128)).all()
    assert (reduced[1] == copy_seen(*small, fill, 128)).all()
    assert (spread[1] == copy_seen(*small, fill, 128, spread=0.7)).all()
    assert ours.coarse.shape == oracles[2].coarse.shape == (2, 64, 64, 3)


def test_a_hue_is_right_within_thirty_degrees_and_with_chroma():
    true = np.float32([[50, 40, 0]] * 4)
    made = np.float32([[90, 30, 16], [50, 30, 19], [50, 11, 0], [50, 0, 40]])
    assert hue_is_right(made, true).tolist() == [True, False, False, False]


def test_hues_are_compared_around_the_circle():
    made, true = np.float32([[50, -40, 5]]), np.float32([[50, -40, -5]])
    assert hue_is_right(made, true).all()


def test_a_regions_colour_is_that_of_its_chosen_texels_alone():
    textures = np.full((2, 64, 64, 3), 255, np.uint8)
    where = np.zeros((2, 64, 64), bool)
    where[0] = True
    colours = region_colours(textures, "torso", where)
    assert colours[0] == pytest.approx((100, 0, 0), abs=0.02)
    assert np.isnan(colours[1]).all()


def test_detail_is_that_of_the_true_texture_and_not_noise():
    true, seen = noise(2, 128), np.ones((2, 128, 128), bool)
    assert detail_correlation(true, true, seen) == pytest.approx(1)
    assert abs(detail_correlation(noise(2, 128, seed=1), true, seen)) < 0.05
    assert detail_correlation(np.zeros_like(true), true, seen) == 0
    seen[:, :64] = False
    half = true.copy()
    half[:, :60] = 0  # what is not seen does not count
    assert detail_correlation(half, true, seen) > 0.95


def test_the_gradient_is_the_mean_step_from_texel_to_texel():
    ramp = np.zeros((1, 8, 8, 3), np.uint8)
    ramp[0] = (10 * np.arange(8))[:, None]  # 10 down, 0 across
    assert mean_gradient(ramp) == pytest.approx((10 + 0) / 2)


def test_psnr_counts_the_texels_asked_for():
    true, made = np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3), np.uint8)
    made[0, 0, 0] = 51
    corner = np.zeros((1, 4, 4), bool)
    corner[0, 0, 0] = True
    assert psnr_where(made, true, corner) == pytest.approx(20 * np.log10(255 / 51))
    assert psnr_where(made, true) == pytest.approx(20 * np.log10(255 / 51) + 10 * np.log10(16))


def test_views_that_agree_are_at_no_distance_and_random_ones_at_that_of_others():
    person = np.repeat([0, 1, 2], 2)
    assert view_distance_share(noise(3)[person], person) == 0
    assert view_distance_share(noise(6), person) == pytest.approx(1, abs=0.1)


def test_textures_of_other_sizes_are_averaged_or_enlarged():
    assert at_side(noise(1, 128), 64).shape == (1, 64, 64, 3)
    flat = np.full((1, 64, 64, 3), 9, np.uint8)
    assert (at_side(flat, 128) == 9).all()
    assert at_side(flat, 128).shape == (1, 128, 128, 3)


def test_where_the_oracle_misses_a_bar_it_is_85_percent_of_the_oracles():
    least = Row("detail", "detail_correlation", 2, 0.4)
    most = Row("skin", "skin_de", 1, 10, is_least=False)
    assert reachable_bar(least, 0.5) == 0.4
    assert reachable_bar(least, 0.3) == pytest.approx(0.3 * 0.85)
    assert reachable_bar(most, 8.0) == 10
    assert reachable_bar(most, 20.0) == pytest.approx(20 / 0.85)
    assert reachable_bar(Row("PSNR", "psnr_db", 2), 3.0) is None


def test_a_table_without_figures_says_that_nothing_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr("tools.readme.ROOT", tmp_path)
    head, _, *rows = generator_table().splitlines()
    columns = "generator | oracle, 256x128 | oracle, 128x64 | oracle, 128x64, spread | bar"
    assert head == f"| people it has never seen (not measured yet) | {columns} |"
    assert len(rows) == len(ROWS)
    assert all(row.count("|") == 7 and row.endswith("| – | – | – | – | – |") for row in rows)


def test_the_table_sets_a_generator_beside_the_oracle_and_marks_what_it_misses():
    value = {begin + row.name: 0.5 for row in ROWS for begin in COLUMNS.values()}
    value |= {"generator.hue_share": 0.8, "generator.oracle_hue_share": 0.95}
    value |= {"generator.skin_de": 9.0, "generator.oracle_skin_de": 20.0}
    value |= {"generator.oracle_at_input_size_skin_de": 21.0}
    value |= {"generator.oracle_at_input_size_spread_skin_de": 22.0}
    table = figures_table(value, "here").splitlines()
    columns = "generator | oracle, 256x128 | oracle, 128x64 | oracle, 128x64, spread | bar"
    assert table[:2] == [f"| people it has never seen (here) | {columns} |", "|---" * 6 + "|"]
    assert table[2].endswith("24 hues | 0.80 | 0.95 | 0.50 | 0.50 | ≥ 0.90 (missed) |")
    assert table[4].endswith(
        "five skins | 9.0 | 20.0 | 21.0 | 22.0 | ≤ 10.0; the first oracle / 0.85: ≤ 23.5 |"
    )
    assert table[5].endswith(
        "| 0.50 | 0.50 | 0.50 | 0.50 | ≥ 5.50; 85 % of the first oracle: ≥ 0.42 |"
    )  # 85 % of the oracle's half decibel
