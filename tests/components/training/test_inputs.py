import logging
import random
import threading
import time

import numpy as np
import pytest

from components.process import progress
from components.storage.staging import image_set_digest
from components.training import inputs
from components.training.inputs import (
    PixelCache,
    check_atlases,
    decoding_threads,
    initial_model,
    initial_weights_fingerprint,
)
from components.training.ranks import SINGLE_PROCESS
from components.training.san_inputs import check_textures_of, training_data
from san_core.data.batches.cache import EncodedImage
from san_core.data.batches.identities import IdentitySplit
from san_core.images.imageset import ImageSet, write_imageset
from san_core.images.pixels import decode as decode_image
from san_core.images.pixels import encode_png, resize
from san_core.model import weights
from tests.san_core.training.tiny_run import tiny_model, tiny_recipe


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


@pytest.mark.parametrize("crop", ["translate", "translate_stored"])
def test_stored_images_are_kept_enlarged_too_where_the_recipe_asks(small_set, tmp_path, crop):
    settings = tiny_recipe("demo-baseline", f"crop={crop}")
    people = IdentitySplit(small_set.records, [], np.arange(7))
    reader = PixelCache(tmp_path, settings, SINGLE_PROCESS)
    data = training_data(reader, small_set, people, textures=None, pit=None)
    if crop == "translate":
        assert data.enlarged is None
        return
    stored = [decode_image(small_set.read(record)) for record in small_set.records]
    assert {picture.shape for picture in stored} != {(36, 18, 3)}
    expected = np.stack([resize(picture, (36, 18)) for picture in stored])
    assert np.array_equal(data.enlarged, expected)


def test_a_mirror_that_is_not_known_is_no_matter_where_textures_are_kept(small_set, caplog):
    for words, told in (("", True), ("flip_textures=keep", False), ("flip=0", False)):
        caplog.clear()
        check_atlases(tiny_recipe("demo", words), textures=small_set.path)
        assert ("mirrored images are left out of the texture losses" in caplog.text) == told


def test_several_threads_read_at_once(small_set, tmp_path, with_threads):
    with_threads(3)
    images = DelayedSet(small_set)
    decode(images, tmp_path, "a")
    assert 1 < len(images.readers) <= 3
    assert threading.get_ident() not in images.readers


def test_of_several_broken_images_the_first_is_named(small_set, tmp_path, with_threads):
    with_threads(4)
    with pytest.raises(ValueError, match=r"^0002.jpg: 0 bytes that are not one of JPEG"):
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


def test_images_per_second_are_logged(small_set, tmp_path, with_threads, monkeypatch, caplog):
    with_threads(2)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    caplog.set_level(logging.INFO)
    decode(small_set, tmp_path, "a")
    told = "\n".join(caplog.messages)
    assert "3/7 images decoded  " in told
    assert "7 images decoded  " in caplog.messages[-1]
    assert "/s  2 threads" in caplog.messages[-1]


@pytest.fixture
def write_textures(tmp_path, items):
    """Writes a set whose manifest says what it was made from."""

    def write(provenance):
        write_imageset(tmp_path / "textures", items(2), provenance=provenance)
        return tmp_path / "textures"

    return write


def test_textures_of_another_data_set_are_refused_whatever_their_names(small_set, write_textures):
    of = image_set_digest(small_set.path)
    check_textures_of(write_textures({"settings": {"dataset": of}}), small_set.path)
    with pytest.raises(
        ValueError, match=r"another data set than .*: the manifest .* is 012301230123"
    ):
        check_textures_of(write_textures({"settings": {"dataset": "0123" * 16}}), small_set.path)


def test_textures_without_a_data_set_are_reported(small_set, write_textures, caplog):
    check_textures_of(write_textures({}), small_set.path)
    assert "does not tell of which data set it is: names alone are compared" in caplog.text


def test_images_and_textures_of_two_runs_of_make_pit_are_refused(tmp_path, items):
    for part, seed in (("images", 0), ("textures", 1)):
        write_imageset(tmp_path / part, items(2), provenance={"made_by": "make_pit", "seed": seed})
    reader = PixelCache(tmp_path, tiny_recipe(), SINGLE_PROCESS)
    with pytest.raises(ValueError, match="images and textures are from different runs of make_pit"):
        reader.decode_pairs(tmp_path, "train")


def _paired_sets(folder, items, texture, *, dense):
    """PIT of two pictures, one texture, and dense maps twice their size; their bytes in order."""
    made = {"made_by": "make_pit"}
    shown = [one._replace(fields={"texture": "t.png"}) for one in items(2)]
    write_imageset(folder / "images", shown, provenance=made)
    painted = [shown[0]._replace(name="t.png", data=texture(0), fields={})]
    write_imageset(folder / "textures", painted, provenance=made)
    told = [np.random.default_rng(i).integers(0, 256, (64, 32, 3), np.uint8) for i in range(2)]
    if dense:
        maps = [
            one._replace(name=f"{i}.png", data=encode_png(told[i]), fields={"image": one.name})
            for i, one in reversed(list(enumerate(shown)))
        ]
        write_imageset(folder / "dense", maps, provenance=made)
    return told


COPYING = "texture_from=copy copy_queries=8 w_dense=1"


def test_every_picture_has_its_dense_map_of_whole_texels(tmp_path, items, texture):
    told = _paired_sets(tmp_path / "pit", items, texture, dense=True)
    reader = PixelCache(tmp_path, tiny_recipe("demo-pg", COPYING), SINGLE_PROCESS)
    data = reader.decode_pairs(tmp_path / "pit", "train").as_training_data()
    # the map's pixel in the middle of each of the recipe's 32x16
    assert np.array_equal(data.dense, np.stack(told)[:, 1::2, 1::2])


def test_pairs_without_dense_maps_are_reported(tmp_path, items, texture, caplog):
    _paired_sets(tmp_path / "pit", items, texture, dense=False)
    reader = PixelCache(tmp_path, tiny_recipe("demo-pg", COPYING), SINGLE_PROCESS)
    assert reader.decode_pairs(tmp_path / "pit", "train").dense is None
    assert "pit has no dense maps (make_pit --dense true): w_dense 1 has no effect" in caplog.text


def test_dense_maps_are_not_read_where_nothing_is_learned_from_them(tmp_path, items, texture):
    _paired_sets(tmp_path / "pit", items, texture, dense=True)
    reader = PixelCache(tmp_path, tiny_recipe("demo-pg"), SINGLE_PROCESS)
    assert reader.decode_pairs(tmp_path / "pit", "train").dense is None


def test_weights_that_a_generator_would_replace_are_not_fetched(tmp_path, monkeypatch):
    pg = tiny_recipe("demo-pg")
    weights.save_network(tmp_path / "generator", tiny_model(pg), pg, facts={})
    monkeypatch.setattr(weights, "load_pretrained", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.setattr(inputs, "fetch_file", lambda *_: pytest.fail("fetched"))
    for words in ("init=generator", "init=encoder"):
        recipe = tiny_recipe("demo", f"{words} pretrained=s3://none/resnet.pth")
        made = {"folder": tmp_path, "generator": tmp_path / "generator"}
        initial_model(recipe, num_classes=4, seed=0, **made)
        told = initial_weights_fingerprint(tmp_path, recipe, tmp_path / "generator")
        assert told["pretrained"] is None


@pytest.mark.parametrize("is_first", [True, False])
def test_of_several_processes_the_first_alone_compares_every_byte(small_set, monkeypatch, is_first):
    checked = []
    monkeypatch.setattr(ImageSet, "verify", lambda self, *_, **__: checked.append(self.path))
    monkeypatch.setattr(inputs, "is_first_of_node", lambda: is_first)
    with inputs.open_on_ranks(small_set.path) as images:
        assert len(images.records) == 7
    assert bool(checked) == is_first
