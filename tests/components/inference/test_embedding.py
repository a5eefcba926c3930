"""Images of a set on their way into a network."""

import gc
import shutil
import tracemalloc
from types import SimpleNamespace

import numpy as np

from components.__main__ import main
from components.command import search
from components.inference import embedding, kept
from san_core.data.batches.cache import EncodedImage
from san_core.images.index import pack_records
from san_core.images.pixels import encode_png
from san_core.images.shard import Record
from tests.tiny import step_command, with_flags


def _packed(count):
    return pack_records(
        Record(f"{i}.png", i, 0, "query", 0, 512 * i, 99, f"{i:064x}", {}) for i in range(count)
    )


def _set_of(count):
    """A set whose every image is one small file: its images, and the records."""
    data = encode_png(np.zeros((8, 4, 3), np.uint8))
    return SimpleNamespace(read=lambda _: data), _packed(count)


def test_images_of_a_set_are_a_sequence_in_the_order_of_its_records():
    images = SimpleNamespace(read=lambda record: str(record.pid).encode())
    files = embedding.encoded_images(images, _packed(5))
    assert len(files) == 5
    assert [file.name for file in files] == [f"{i}.png" for i in range(5)]
    assert files[-1].read() == b"4"
    assert [file.read() for file in files[1:3]] == [b"1", b"2"]


def test_an_image_takes_no_memory_before_it_is_decoded_nor_after():
    count = 4_000
    images, records = _set_of(count)
    sum(
        map(len, embedding.decoded_batches(embedding.encoded_images(images, records[:300]), (8, 4)))
    )
    tracemalloc.start()
    files = embedding.encoded_images(images, records)
    assert sum(map(len, embedding.decoded_batches(files, (8, 4)))) == count
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most / count < 150


def _held_images():
    gc.collect()
    return [one for one in gc.get_objects() if type(one) is EncodedImage]


def test_what_embeds_a_set_holds_no_image_of_it_but_the_queries_that_a_page_shows(
    tiny, tmp_path, monkeypatch
):
    held, before = [], _held_images()  # by other tests of this process
    decode = embedding.decoded_batches

    def counting(files, size):
        held.append(len(_held_images()) - len(before))
        return decode(files, size)

    monkeypatch.setattr(embedding, "decoded_batches", counting)
    command = step_command("extract_features", tiny)
    assert main(with_flags(command, features=str(tmp_path / "features"), splits="query")) == 0
    monkeypatch.setattr(kept, "decoded_batches", counting)
    monkeypatch.setattr(search, "QUERIES_SHOWN", 2)
    gallery = shutil.copytree(tiny.reid, tmp_path / "gallery")  # whose features nobody has kept
    words = ["search", "--model", tiny.model, "--gallery", str(gallery), "--query", tiny.reid]
    assert main([*words, "--output", str(tmp_path / "found")]) == 0
    assert held == [0, 2, 2]
