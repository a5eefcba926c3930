"""Statistics of crops, and crops without a person."""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from san_core.data.crops import CropTally, leave_out_useless
from san_core.images.pixels import Look, encode_jpeg, encode_png, file_to_keep, image_size


class Crop(NamedTuple):
    name: str
    data: bytes
    size: Callable[[], tuple[int, int]] | None = None

    @property
    def read(self):
        return lambda: self.data


def noise(rows, columns, most=255):
    pixels = np.random.default_rng(rows).integers(0, most, (rows, columns, 3)).astype(np.uint8)
    return encode_png(pixels)


def flat(rows, columns, level):
    return encode_jpeg(np.full((rows, columns, 3), level, np.uint8), quality=90)


CROPS = [
    Crop("good.png", noise(64, 32)),
    Crop("grey.jpg", flat(64, 32, 128)),
    Crop("night.png", noise(64, 32, most=10)),
    Crop("far.png", noise(20, 10)),
    Crop("wide.png", noise(32, 64)),
]


def tallied(crops):
    tally = CropTally()
    for crop in crops:
        tally.add(crop.name, file_to_keep(crop.name, crop.data).look)
    return tally


def test_sizes_are_reported_as_quantiles():
    tally = CropTally()
    for rows in range(100, 201):
        tally.add(f"{rows}.jpg", Look(rows, 50, 200, 100.0))
    assert tally.told()["quantiles"] == {
        "height": [100, 105, 150, 195, 200],
        "width": [50, 50, 50, 50, 50],
        "height by width": [2, 2.1, 3, 3.9, 4],
    }
    assert tally.table()[:2] == [
        "crops               least      5 %   median     95 %     most",
        "height                100      105      150      195      200",
    ]
    assert tally.warnings() == []
    assert CropTally().table() == []


def test_useless_crops_are_counted_by_kind_with_an_example():
    tally = tallied(CROPS)
    assert list(tally.told()["useless"].values()) == [1, 1, 1, 1]
    assert tally.warnings() == [
        "1 of 5 images are of one colour, such as grey.jpg; option no-blank (of csv, folders and "
        "file_names) leaves them out",
        "1 of 5 images are nearly black, such as night.png; option no-blank (of csv, folders and "
        "file_names) leaves them out",
        "1 of 5 images are smaller than 32x16 (rows x columns), such as far.png; option"
        " min_size=32x16 (of csv, folders and file_names) leaves them out",
        "1 of 5 images are wider than high, such as wide.png; option no-wide (of csv, folders and "
        "file_names) leaves them out",
    ]


def test_few_small_crops_among_many_are_not_warned_of_but_one_blank_is():
    tally = tallied(CROPS[:1] * 200 + CROPS[3:4])
    assert tally.warnings() == []
    tally.add("grey.jpg", Look(64, 32, 2, 128.0))
    assert len(tally.warnings()) == 1


@pytest.mark.parametrize(
    ("options", "left", "told"),
    [
        ({}, "good grey night far wide", []),
        (
            {"no-blank": ""},
            "good far wide",
            ["left out as requested: 1 nearly black, 1 of one colour"],
        ),
        ({"no-wide": ""}, "good grey night far", ["left out as requested: 1 wider than high"]),
        (
            {"min_size": "32x32"},
            "good grey night wide",
            ["left out as requested: 1 smaller than 32x32"],
        ),
        ({"min_size": "8x8"}, "good grey night far wide", []),
    ],
)
def test_options_leave_out_what_they_name(options, left, told):
    kept = leave_out_useless(CROPS, options)
    assert " ".join(crop.name.partition(".")[0] for crop in kept.images) == left
    assert kept.warnings == told


def test_unreadable_crops_stay_in_the_list():
    broken = Crop("broken.jpg", b"none")
    assert leave_out_useless([broken], {"no-blank": "", "min_size": "8x8"}).images == [broken]


def test_an_image_with_a_recorded_size_is_not_read():
    unread = [Crop("large", b"none", lambda: (64, 32)), Crop("small", b"none", lambda: (31, 64))]
    assert leave_out_useless(unread, {"min_size": "32x32"}).images == unread[:1]
    assert leave_out_useless(unread, {"no-wide": ""}).images == unread[:1]


def test_a_size_that_is_none_and_options_that_leave_nothing_are_refused():
    with pytest.raises(
        ValueError, match="option min_size='64' is not a size in pixels; write ROWSxCOLUMNS"
    ):
        leave_out_useless(CROPS, {"min_size": "64"})
    with pytest.raises(ValueError, match="no image is left: 5 smaller than 500x500 are left out b"):
        leave_out_useless(CROPS, {"min_size": "500x500"})


def test_a_look_is_that_of_the_upright_image_as_it_is_shown():
    turned = Image.new("RGB", (40, 20), (255, 0, 0))
    exif = turned.getexif()
    exif[274] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    assert image_size(buffer.getvalue()) == (40, 20)
    look = file_to_keep("a.jpg", buffer.getvalue()).look
    assert (look.height, look.width) == (40, 20)
    clear = io.BytesIO()
    Image.new("RGBA", (4, 8), (0, 0, 0, 0)).save(clear, "PNG")
    assert file_to_keep("a.png", clear.getvalue()).look == (8, 4, 0, 255.0)  # laid on white
    deep = io.BytesIO()
    Image.fromarray(np.full((8, 4), 0x1234, np.uint16)).save(deep, "PNG")
    assert file_to_keep("a.png", deep.getvalue()).look == (8, 4, 0, 0x12)
