"""The pictures of the documents: what draws them, and that they are small and up to date."""

import numpy as np
import pytest
from PIL import Image

from components.command.code import ROOT
from san_core.synthesis.person.body import current_body
from tools.pictures import __main__ as pictures
from tools.pictures.atlas import draw_atlas
from tools.pictures.person import RenderedPerson
from tools.pictures.sheet import Tile, draw_sheet, enlarge

MOST_BYTES = 200_000


@pytest.mark.parametrize("name", ["overview.png", "atlas.png"])
def test_pictures_are_small(name):
    file = pictures.FOLDER / name
    assert file.stat().st_size < MOST_BYTES
    with Image.open(file) as picture:
        assert picture.width < 1200


def test_the_atlas_is_drawn_from_the_body_of_today():
    with Image.open(pictures.FOLDER / "atlas.png") as kept:
        before = np.asarray(kept.convert("RGB"), int)
    now = np.asarray(draw_atlas().convert("RGB"), int)
    assert now.shape == before.shape
    assert np.abs(now - before).mean() < 4  # of 255: fonts and processors round otherwise


def test_every_chart_is_explained():
    text = (ROOT / "san_core" / "GLOSSARY.md").read_text("utf-8")
    assert len(current_body().charts) == 12
    assert "twelve charts" in text


def test_a_person_turned_round_shows_the_other_side():
    person = RenderedPerson(3)
    front, back = (person.render(person.texture, side, (64, 32)) for side in (0, 180))
    again = person.render(person.texture, 0, (64, 32))
    assert (front == again).all()
    assert np.abs(front.astype(int) - back).max() > 60


def test_a_texture_of_one_colour_colours_the_whole_person():
    red = np.full((64, 64, 3), (200, 0, 0), np.uint8)
    image = RenderedPerson(3).render(red, 180, (64, 32)).astype(int)
    coloured = image[..., 0] > image[..., 1] + 30
    assert coloured.mean() > 0.1
    assert np.median(image[coloured, 2]) < 60


def test_pixels_are_enlarged_as_squares():
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert (enlarge(picture, (4, 4))[::2, ::2] == picture).all()
    assert (enlarge(picture, (4, 4))[1::2, 1::2] == picture).all()


def test_a_frame_lies_around_its_picture():
    tile = Tile("words", np.zeros((20, 10, 3), np.uint8), 5, 5, frame=(0, 255, 0))
    sheet = np.asarray(draw_sheet([tile], (60, 30)))
    assert tuple(sheet[25, 5]) == (0, 255, 0)
    assert tuple(sheet[35, 10]) == (0, 0, 0)
    assert tuple(sheet[59, 29]) == (255, 255, 255)
