"""Photographs as places."""

import os

import numpy as np
import pytest

from san_core.images.pixels import encode_jpeg, encode_png
from san_core.synthesis.dataset import make_reid_identity
from san_core.synthesis.place.background import SCENE_COLUMNS, SCENE_ROWS
from san_core.synthesis.place.photographs import open_photographs
from san_core.synthesis.spec import ReidSpec


def picture(shape, colour):
    return np.zeros((*shape, 3), np.uint8) + np.uint8(colour)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "more").mkdir()
    tall, wide = picture((900, 300), (200, 30, 30)), picture((300, 900), (30, 200, 30))
    (tmp_path / "more" / "tall.png").write_bytes(encode_png(tall))
    (tmp_path / "wide.JPG").write_bytes(encode_jpeg(wide, quality=95))
    (tmp_path / "notes.txt").write_text("not a photograph")
    return tmp_path


def test_photographs_of_any_shape_fill_a_place(folder):
    found = open_photographs(folder)
    assert found.count == 2
    assert [found.name(0), found.name(1)] == ["more/tall.png", "wide.JPG"]
    tall, wide = found.scene_at(0, horizon=0.25), found.scene_at(1, horizon=0.5)
    assert tall.image.shape == wide.image.shape == (SCENE_ROWS, SCENE_COLUMNS, 3)
    assert (tall.horizon, wide.horizon) == (SCENE_ROWS // 4, SCENE_ROWS // 2)
    np.testing.assert_allclose(tall.image.reshape(-1, 3).mean(axis=0), (200, 30, 30), atol=2)
    np.testing.assert_allclose(wide.image.reshape(-1, 3).mean(axis=0), (30, 200, 30), atol=4)


def test_the_fingerprint_follows_names_and_sizes(folder):
    before = open_photographs(folder).fingerprint
    assert open_photographs(folder).fingerprint == before
    (folder / "more" / "tall.png").write_bytes(encode_png(picture((9, 9), (1, 1, 1))))
    assert open_photographs(folder).fingerprint != before


def test_photographs_are_those_that_are_there_when_asked(folder):
    before = open_photographs(folder)
    before.scene_at(0, horizon=0.4)
    (folder / "._wide.JPG").write_text("of macOS")
    assert open_photographs(folder) == before
    (folder / "less.png").write_bytes(encode_png(picture((9, 9), (1, 2, 3))))
    found = open_photographs(folder)
    assert [found.name(k) for k in range(found.count)] == ["less.png", "more/tall.png", "wide.JPG"]
    assert (found.scene_at(0, horizon=0.4).image == [1, 2, 3]).all()


def test_people_on_cameras_stand_before_photographs(folder):
    spec = ReidSpec(seed=1, train_identities=0, test_identities=1, image_size=(64, 32))
    painted, shown = (
        make_reid_identity(ReidSpec(**{**vars(spec), "backgrounds": b}), 0)
        for b in (None, open_photographs(folder))
    )
    assert [shot.name for shot in shown.shots] == [shot.name for shot in painted.shots]
    assert all(a.data != b.data for a, b in zip(shown.shots, painted.shots, strict=True))


def test_a_folder_without_photographs_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere of backgrounds"):
        open_photographs(tmp_path / "nowhere")
    with pytest.raises(
        ValueError,
        match=r"holds no photograph; photographs end in .jpg, .jpeg, "
        r".jfif",
    ):
        open_photographs(tmp_path)


def test_a_file_is_no_folder_of_backgrounds(folder):
    with pytest.raises(NotADirectoryError, match=r"notes.txt is a file; backgrounds are a folder"):
        open_photographs(folder / "notes.txt")


def test_a_photograph_whose_name_cannot_be_told_is_refused(folder):
    (folder / os.fsdecode(b"h\xf6he.jpg")).write_bytes(b"")
    with pytest.raises(ValueError, match=r"the name of photograph '.*h\\udcf6he.jpg' is not in"):
        open_photographs(folder)


def test_a_damaged_photograph_is_named(folder):
    whole = encode_jpeg(picture((300, 900), (30, 200, 30)), quality=95)
    for data, message in (
        (b"nothing", r"wide.JPG: 7 bytes that are not one of JPEG, PNG, WebP, BMP, TIFF$"),
        (
            whole[: len(whole) // 2],
            r"wide.JPG: \d+ bytes are not a whole image \(image file",
        ),
    ):
        (folder / "wide.JPG").write_bytes(data)
        with pytest.raises(ValueError, match=message):
            open_photographs(folder).scene_at(1, horizon=0.4)
