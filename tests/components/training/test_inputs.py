import logging
import random
import threading
import time

import numpy as np
import pytest

from components.process import progress
from components.training import inputs
from components.training.inputs import PixelCache, decoding_threads
from components.training.ranks import SINGLE_PROCESS
from san_core.data.batches.cache import EncodedImage
from san_core.images.imageset import ImageSet
from tests.san_core.training.tiny_run import tiny_recipe


@pytest.fixture
def with_threads(monkeypatch):
    return lambda count: monkeypatch.setattr(inputs, "core_count", lambda: count)


class DelayedSet:
    """An image set whose images come after a while, each another, and some broken."""

    def __init__(self, images, broken=()):
        self.images, self.broken, self.readers = images, broken, set()
        self.records = images.records

    def read(self, record):
        self.readers.add(threading.get_ident())
        number = self.records.index(record)
        time.sleep(0.1 if number in self.broken[:1] else random.random() / 200)
        return b"" if number in self.broken else self.images.read(record)


def decode(images, folder, name):
    return PixelCache(folder, tiny_recipe(), SINGLE_PROCESS).decode_images(
        name, images, images.records
    )


def test_decoded_images_are_the_same_whatever_the_number_of_threads(
    small_set, tmp_path, with_threads
):
    made = []
    for count in (1, 2, 5):
        with_threads(count)
        decode(DelayedSet(small_set), tmp_path, f"of-{count}")
        made.append((tmp_path / f"of-{count}.npy").read_bytes())
    assert made[0] == made[1] == made[2]


def test_several_threads_read_at_once(small_set, tmp_path, with_threads):
    with_threads(3)
    images = DelayedSet(small_set)
    decode(images, tmp_path, "a")
    assert 1 < len(images.readers) <= 3
    assert threading.get_ident() not in images.readers


def test_of_several_broken_images_the_first_is_named(small_set, tmp_path, with_threads):
    with_threads(4)
    with pytest.raises(ValueError, match=r"^0002.jpg: 0 bytes that are none of JPEG"):
        decode(DelayedSet(small_set, broken=(2, 3)), tmp_path, "a")
    assert not (tmp_path / "a.npy").exists()


def test_a_damaged_image_is_named(small_set, tmp_path, with_threads):
    with_threads(4)
    tar = next(small_set.path.glob("shards/00001*.tar"))
    tar.write_bytes(bytes(tar.stat().st_size))
    with (
        ImageSet.open(small_set.path) as damaged,
        pytest.raises(ValueError, match=r"the sha256 of image 0003.jpg is not the recorded"),
    ):
        decode(damaged, tmp_path, "a")


def test_few_decoded_images_wait_to_be_written(with_threads):
    with_threads(3)
    decoded = []

    def remember(file):
        decoded.append(file.name)
        return np.zeros((1, 1, 3), np.uint8)

    files = (EncodedImage(str(i), bytes) for i in range(100))
    for taken, _ in enumerate(decoding_threads(100, "images")(remember, files)):
        time.sleep(0.001)
        assert len(decoded) <= taken + 6  # two a thread
    assert len(decoded) == 100


def test_images_a_second_are_told(small_set, tmp_path, with_threads, monkeypatch, caplog):
    with_threads(2)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    caplog.set_level(logging.INFO)
    decode(small_set, tmp_path, "a")
    told = "\n".join(caplog.messages)
    assert "3/7 images decoded  " in told
    assert "7 images decoded  " in caplog.messages[-1]
    assert "/s  2 threads" in caplog.messages[-1]
