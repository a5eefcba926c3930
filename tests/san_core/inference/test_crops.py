"""Features of crops in somebody's own program."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from san_core.images.imageset import ImageSet
from san_core.images.pixels import decode
from san_core.inference.crops import LoadedEncoder, load_encoder
from tests.san_core.training.tiny_run import tiny_model, tiny_recipe


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("bgr", [False, True])
def test_crops_have_the_features_that_the_step_makes_of_their_pixels(tiny, bgr):
    loaded = load_encoder(tiny.model)
    images = ImageSet.open(Path(tiny.reid))
    crops = [decode(images.read(r)) for r in images.records_in_splits("query", "gallery")]
    assert crops[0].shape[:2] != loaded.image_size or loaded.image_size == (64, 32)
    found = loaded.embed_crops([crop[:, :, ::-1] for crop in crops] if bgr else crops, bgr=bgr)
    made = np.load(Path(tiny.features, "features.npy"))
    assert (loaded.metric, loaded.image_size, found.shape) == ("cosine", (64, 32), made.shape)
    np.testing.assert_allclose(found, unit(made), rtol=1e-5, atol=1e-6)


def encoder(name="demo-baseline"):
    recipe = tiny_recipe(name)
    return LoadedEncoder(tiny_model(recipe), recipe, "cpu")


def test_crops_of_any_size_are_resized_with_antialiasing():
    stripes = (np.arange(160)[:, None, None] % 2 * 255 * np.ones((1, 80, 3))).astype(np.uint8)
    rows, columns = encoder().image_size
    reduced = Image.fromarray(stripes).resize((columns, rows), Image.Resampling.BILINEAR)
    assert np.ptp(np.asarray(reduced)[1:-1].astype(int)) < 128  # fine stripes become nearly grey
    found, expected = encoder().embed_crops([stripes, np.asarray(reduced)])
    np.testing.assert_array_equal(found, expected)


def test_features_are_of_length_1_where_the_metric_is_cosine_alone():
    crops = [np.full((40, 20, 3), level, np.uint8) for level in (0, 90, 180)]
    lengths = np.linalg.norm(encoder().embed_crops(crops), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
    other = encoder("cuhk03-baseline")
    assert other.metric == "euclidean"
    assert not np.allclose(np.linalg.norm(other.embed_crops(crops), axis=1), 1)


def test_no_crops_have_no_features():
    assert encoder().embed_crops([]).shape == (0, 16)


@pytest.mark.parametrize(
    ("crop", "said"),
    [
        (np.zeros((4, 4), np.uint8), r"crop 1 is uint8 of shape \(4, 4\); expected uint8"),
        (np.zeros((4, 4, 3)), r"crop 1 is float64 of shape \(4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"crop 1 is uint8 of shape \(0, 4, 3\)"),
    ],
)
def test_what_is_no_crop_is_named(crop, said):
    with pytest.raises(ValueError, match=said):
        encoder().embed_crops([np.zeros((4, 4, 3), np.uint8), crop])


def test_a_generator_has_no_embedding(tiny):
    with pytest.raises(ValueError, match="has learned no identities: it is a texture generator"):
        load_encoder(tiny.generator)
