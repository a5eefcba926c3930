"""Boxes cut out of frames."""

import re

import numpy as np
import pytest

from san_core.data.frames import Box, Frames, parse_box
from san_core.data.tree import open_tree
from san_core.images.pixels import decode, encode_jpeg, encode_png


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture
def tree(tmp_path, pixels):
    (tmp_path / "a.png").write_bytes(encode_png(pixels))
    (tmp_path / "b.jpg").write_bytes(encode_jpeg(pixels, quality=90))
    with open_tree(tmp_path) as opened:
        yield opened


def test_a_box_is_cut_out_without_loss(tree, pixels):
    frames = Frames(tree)
    held = frames.cut("a.png", Box(5, 10, 20, 30))
    assert held.startswith(b"\x89PNG")
    assert np.array_equal(decode(held), pixels[10:40, 5:25])
    whole = decode(tree.read("b.jpg"))
    assert np.array_equal(decode(frames.cut("b.jpg", Box(0, 0, 60, 40))), whole)
    assert frames.warnings() == []


def test_a_box_that_reaches_beyond_its_frame_is_clipped_and_counted_once(tree, pixels):
    frames = Frames(tree)
    for box in (Box(-5, -2, 15, 12), Box(50, 30, 20, 20), Box(1, 1, 4, 4)):
        held = decode(frames.cut("a.png", box))
        assert held.shape[0] * held.shape[1] in (100, 16)
    assert np.array_equal(decode(frames.cut("a.png", Box(-5, -2, 15, 12))), pixels[:10, :10])
    assert frames.warnings() == [
        "2 of 3 boxes reach beyond their frames and were cut at the border: a_-5_-2_15x12.png,"
        " a_50_30_20x20.png"
    ]


@pytest.mark.parametrize("box", [Box(60, 0, 5, 5), Box(-9, 3, 9, 5), Box(0, -50, 10, 10)])
def test_a_box_outside_of_its_frame_is_refused(tree, box):
    message = f"box {box.left},{box.top},{box.width},{box.height} lies outside the frame of 60x4"
    for ask in (Frames(tree).cut, Frames(tree).size):
        with pytest.raises(ValueError, match=re.escape(message)):
            ask("a.png", box)


def test_size_of_what_a_box_holds_is_that_of_what_is_cut(tree):
    frames = Frames(tree)
    for name in ("a.png", "b.jpg"):
        for box in (Box(-5, -2, 15, 12), Box(50, 30, 20, 20), Box(1, 2, 3, 4), Box(0, 0, 60, 40)):
            assert frames.size(name, box) == decode(frames.cut(name, box)).shape[:2]


def test_a_frame_is_decoded_once_for_boxes_that_follow_each_other(tree, monkeypatch):
    read = []

    def decode_and_tell(data, *, name):
        read.append(name)
        return decode(data, name=name)

    monkeypatch.setattr("san_core.data.frames.decode", decode_and_tell)
    frames = Frames(tree)
    for frame in ("a.png", "a.png", "b.jpg", "a.png"):
        frames.cut(frame, Box(0, 0, 5, 5))
    assert read == ["a.png", "b.jpg", "a.png"]


def test_edges_of_boxes_are_at_the_nearest_pixel():
    assert parse_box("1.4", " 2", "3.2", "4e0") == Box(1, 2, 4, 4)  # 1.4 + 3.2 = 4.6, so 1 to 5
    assert Box(1, 2, 4, 4).image_name("day/7.jpg") == "day/7_1_2_4x4.png"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (("1", "2", "3", "tall"), "box 1,2,3,tall is not four numbers"),
        (("1", "2", "nan", "4"), "box 1,2,nan,4 is not four numbers"),
        (("1", "2", "inf", "4"), "box 1,2,inf,4 is not four numbers"),
        (("1", "2", "0.3", "4"), "box 1,2,0.3,4 has no width or no height"),
        (("1", "2", "3", "-4"), "box 1,2,3,-4 has no width or no height"),
    ],
)
def test_a_box_of_no_pixels_is_refused(told, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_box(*told)
