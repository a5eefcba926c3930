import re
from functools import partial

import numpy as np
import pytest

from san_core.data.batches.cache import (
    EncodedImage,
    cache_images,
    cache_textures,
    label_map,
    row_indices,
)
from san_core.images import pixels


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def files(images):
    encoded = [pixels.encode_png(image) for image in images]
    return [EncodedImage(f"{i}.png", partial(bytes, data)) for i, data in enumerate(encoded)]


def test_rows_are_the_decoded_and_resized_images(tmp_path):
    images = [noise(20, 10, 3), noise(16, 8, 3)]
    rows = cache_images(tmp_path / "a.npy", files(images), count=2, size=(16, 8))
    assert isinstance(rows, np.memmap)
    assert rows.dtype == np.uint8
    assert np.array_equal(rows[0], pixels.resize(images[0], (16, 8)))
    assert np.array_equal(rows[1], images[1])
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_files_may_come_from_a_generator_and_replace_an_older_cache(tmp_path):
    path = tmp_path / "a.npy"
    cache_images(path, files([noise(8, 4, 3)]), count=1, size=(8, 4))
    again = cache_images(path, (f for f in files(noise(3, 8, 4, 3))), count=3, size=(8, 4))
    assert again.shape == (3, 8, 4, 3)


def test_a_cache_is_read_only(tmp_path):
    rows = cache_images(tmp_path / "a.npy", files(noise(1, 8, 4, 3)), count=1, size=(8, 4))
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 0


def test_textures_are_averaged(tmp_path):
    texture = noise(8, 8, 3)
    rows = cache_textures(tmp_path / "t.npy", files([texture]), count=1, size=4)
    assert np.array_equal(rows[0], pixels.area_average(texture, 4))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_count_is_refused_and_leaves_no_cache(tmp_path, count):
    messages = {
        0: "a.npy: no images to cache",
        1: "a.npy: more than the 1 images announced",
        3: "a.npy: 2 images, 3 announced",
    }
    with pytest.raises(ValueError, match=messages[count]):
        cache_images(tmp_path / "a.npy", files(noise(2, 8, 4, 3)), count=count, size=(8, 4))
    assert not (tmp_path / "a.npy").exists()


def test_a_broken_image_is_named(tmp_path):
    broken = EncodedImage("0007.png", lambda: files(noise(1, 8, 4, 3))[0].read()[:40])
    with pytest.raises(ValueError, match=r"0007.png: 40 bytes"):
        cache_images(tmp_path / "a.npy", [broken], count=1, size=(8, 4))


def test_a_texture_of_another_size_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"texture 0.png: a texture of 8x4 cannot be averaged"):
        cache_textures(tmp_path / "t.npy", files(noise(1, 8, 4, 3)), count=1, size=4)


def test_a_broken_image_is_named_before_a_wrong_count(tmp_path):
    broken = EncodedImage("0007.png", bytes)
    with pytest.raises(ValueError, match=r"0007.png: 0 bytes"):
        cache_images(tmp_path / "a.npy", [broken] * 2, count=1, size=(8, 4))


def test_a_file_is_read_when_the_mapper_comes_to_it(tmp_path):
    events = []

    def read(number):
        events.append(f"read {number}")
        return files(noise(1, 8, 4, 3))[0].read()

    def one_by_one(prepare, images):
        for image in images:
            yield prepare(image)
            events.append(f"written {image.name}")

    made = [EncodedImage(str(i), partial(read, i)) for i in range(2)]
    cache_images(tmp_path / "a.npy", made, count=2, size=(8, 4), mapper=one_by_one)
    assert events == ["read 0", "written 0", "read 1", "written 1"]


def test_labels_follow_sorted_identities():
    assert label_map([30, 7, 30, -1]) == {-1: 0, 7: 1, 30: 2}


def test_rows_of_finds_every_key():
    assert row_indices(["b", "a", "b"], ["a", "b", "c"], what="texture").tolist() == [1, 0, 1]


def test_absent_and_doubled_rows_are_named():
    with pytest.raises(ValueError, match=re.escape("no texture 'c' (2 of 3 are absent)")):
        row_indices(["a", "c", "d"], ["a", "b"], what="texture")
    with pytest.raises(ValueError, match="texture 'a' appears twice"):
        row_indices(["a"], ["b", "a", "a"], what="texture")
