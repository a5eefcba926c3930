"""Contact sheets: pictures in their cells, labels under them."""

import io

import numpy as np
import pytest
from PIL import Image

from san_core.images import sheet as sheets
from san_core.images.pixels import decode, resize
from san_core.images.sheet import beside, contact_sheet, preview_sheet


def test_contact_sheet_shows_every_picture(picture):
    sheet = contact_sheet([picture(i) for i in range(5)], columns=3, cell=(32, 16))
    assert sheet.shape == (2 * 34 + 2, 3 * 18 + 2, 3)
    assert np.array_equal(sheet[36:68, 20:36], picture(4))


def test_labels_are_written_under_their_pictures_and_nowhere_else(picture):
    pictures = [picture(i) for i in range(3)]
    sheet = contact_sheet(pictures, columns=2, cell=(32, 16), labels=["a", "b\ncam 1", ""])
    assert sheet.shape == (2 * (34 + 24) + 2, 2 * 18 + 2, 3)
    for i, (y, x) in enumerate([(2, 2), (2, 20), (60, 2)]):
        assert np.array_equal(sheet[y : y + 32, x : x + 16], pictures[i])
        lines = sheet[y + 32 : y + 44, x : x + 16], sheet[y + 44 : y + 56, x : x + 16]
        assert [bool((line < 128).any()) for line in lines] == [i < 2, i == 1]
    assert (sheet[:, 36:] == 255).all()  # what is too long is cut before the edge


def test_of_a_long_label_the_middle_is_left_out(picture):
    def label(text):
        return contact_sheet([picture(0)], columns=1, cell=(32, 60), labels=[text])[34:]

    assert np.array_equal(
        label("0001_" + "x" * 40 + "_00.jpg"), label("0001_" + "x" * 30 + "_00.jpg")
    )
    assert not np.array_equal(
        label("0001_" + "x" * 40 + "7.jpg"), label("0001_" + "x" * 40 + "8.jpg")
    )


@pytest.mark.parametrize("name", ["Zoë", "Łukasz", "Ελένη", "Анна"])
def test_letters_of_other_languages_are_drawn(picture, name):
    drawn, boxes = (
        contact_sheet([picture(0)], columns=1, cell=(32, 60), labels=[text])[34:]
        for text in (name, "\uffff" * len(name))
    )
    assert not np.array_equal(drawn, boxes)


def test_labels_that_are_too_few_are_refused(picture):
    with pytest.raises(ValueError, match="a contact sheet of 2 images has 1 labels"):
        contact_sheet([picture(0), picture(1)], columns=2, cell=(32, 16), labels=["a"])


def test_images_stand_beside_each_other_with_gaps(picture):
    strip = beside([picture(0), picture(1)])
    assert strip.shape == (32, 34, 3)
    assert np.array_equal(strip[:, :16], picture(0))
    assert (strip[:, 16:18] == 255).all()
    assert np.array_equal(strip[:, 18:], picture(1))


def test_large_photographs_are_shrunk_while_they_are_decoded(picture, monkeypatch):
    shown = Image.fromarray(picture(0)).resize((800, 1600))
    photograph = io.BytesIO()
    shown.save(photograph, "JPEG", quality=95)
    seen = []
    monkeypatch.setattr(
        sheets, "resize", lambda image, cell: seen.append(image.shape) or resize(image, cell)
    )
    sheet = decode(preview_sheet([photograph.getvalue()], labels=[""], cell=(128, 64)))
    assert seen == [(200, 100, 3)]
    whole = contact_sheet([np.asarray(shown)], columns=15, cell=(128, 64), labels=[""])
    assert np.abs(sheet.astype(int) - whole).mean() < 2
