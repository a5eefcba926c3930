import contextlib
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from san_core.data.batches.augmentation import BufferPool
from san_core.data.batches.loader import (
    Buffers,
    PinnedBuffers,
    Wanted,
    loading_ahead,
    make_buffers,
)
from tests.san_core.training.tiny_run import tiny_data, tiny_recipe

CPU = torch.device("cpu")
RECIPE = tiny_recipe("demo")


def wanted(count, data=None, images=8):
    """Batches of which each has other rows."""
    data = data or tiny_data()
    made = []
    for index in range(count):
        rows = (np.arange(images) * 5 + index) % len(data.images)
        made.append(Wanted("main", data, rows, rows, 0, (5, 0, index, "augmentation")))
    return made


def two_buffers():
    return [make_buffers(CPU) for _ in range(2)]


def loaders_alive():
    return [t for t in threading.enumerate() if t.name == "batches"]


def test_batches_come_in_order_with_their_rows():
    asked, data = wanted(6), tiny_data()
    with loading_ahead(asked, RECIPE, two_buffers()) as loader:
        for one in asked:
            batch = loader.next()
            assert np.array_equal(batch.pixels.numpy(), data.images[one.mine])
            assert np.array_equal(batch.texels.numpy(), data.textures[data.texture_index[one.mine]])
            assert batch.labels.tolist() == data.labels[one.rows].tolist()


def test_a_batch_is_gathered_while_training_uses_another(monkeypatch):
    gathered, gather = [], BufferPool.gather_rows
    ahead = threading.Event()

    def counted(pool, name, array, rows):
        made = gather(pool, name, array, rows)
        gathered.append(name)
        if gathered.count("main texels") == 2:
            ahead.set()
        return made

    monkeypatch.setattr(BufferPool, "gather_rows", counted)
    with loading_ahead(wanted(5), RECIPE, two_buffers()) as loader:
        first = loader.next()
        before = first.pixels.clone()
        assert ahead.wait(timeout=20)  # the second is there, though nobody has asked for it
        assert torch.equal(first.pixels, before)
        assert gathered.count("main texels") == 2  # and the third has to wait for a buffer


def test_buffers_are_used_in_turn():
    with loading_ahead(wanted(4), RECIPE, two_buffers()) as loader:
        places = [loader.next().pixels.data_ptr() for _ in range(4)]
    assert places[0] != places[1]
    assert places[2:] == places[:2]


def test_errors_of_the_thread_are_raised_where_the_batch_is_requested():
    bad = wanted(2)
    bad[1] = bad[1]._replace(mine=np.array([0, 48]))
    with loading_ahead(bad, RECIPE, two_buffers()) as loader:
        loader.next()
        with pytest.raises(IndexError, match=r"rows 0 \.\.\. 48 of an array of 48"):
            loader.next()


def test_no_thread_outlives_its_batches():
    def interrupted():
        with loading_ahead(wanted(9), RECIPE, two_buffers()) as loader:
            loader.next()
            assert len(loaders_alive()) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert loaders_alive() == []


def test_the_time_that_training_waits_is_measured(monkeypatch):
    gather, go = BufferPool.gather_rows, threading.Event()

    def held_up(*arguments):
        go.wait(timeout=20)
        return gather(*arguments)

    monkeypatch.setattr(BufferPool, "gather_rows", held_up)
    with loading_ahead(wanted(1), RECIPE, two_buffers()) as loader:
        threading.Timer(0.2, go.set).start()
        loader.next()
        assert 0.1 < loader.seconds_waited < 20


def test_a_recipe_without_a_decoder_gathers_no_textures():
    batch = make_buffers(CPU).load(wanted(1)[0], tiny_recipe("demo-baseline"))
    assert batch.texels is None
    assert batch.labels is not None


def test_what_goes_to_a_device_is_all_of_the_batch():
    settings, data = tiny_recipe("demo", "crop=translate_stored"), tiny_data(enlarged=True)
    asked = wanted(1)[0]._replace(data=data)
    batch = make_buffers(torch.device("meta")).load(asked, settings)
    parts = [batch.pixels, *batch.draws, batch.labels, batch.texels, batch.large]
    assert {part.device.type for part in parts} == {"meta"}


def test_of_a_share_of_the_batch_textures_are_gathered_with_their_flips_and_labels():
    data, rows = tiny_data(), np.arange(40, 48)
    asked = Wanted("main", data, rows, rows[4:], 4, (5, 0, 3, "augmentation"))
    textured = np.array([0, 1, 4, 6])  # two of this process, its images 0 and 2
    with loading_ahead([asked._replace(textured=textured)], RECIPE, two_buffers()) as loader:
        batch = loader.next()
    assert batch.part.rows.tolist() == [0, 2]
    assert np.array_equal(batch.texels.numpy(), data.textures[data.texture_index[[44, 46]]])
    assert batch.part.labels.tolist() == data.labels[[40, 41, 44, 46]].tolist()
    flipped = set(batch.draws.flipped.tolist())
    assert batch.part.flipped.tolist() == [i for i, row in enumerate([0, 2]) if row in flipped]


def test_of_the_enlarged_images_those_are_gathered_that_were_drawn():
    settings, data = tiny_recipe("demo", "crop=translate_stored"), tiny_data(enlarged=True)
    batch = make_buffers(CPU).load(wanted(1)[0]._replace(data=data), settings)
    rows = wanted(1)[0].mine[batch.draws.enlarged.numpy()]
    assert 0 < len(rows) < len(batch.pixels)
    assert np.array_equal(batch.large.numpy(), data.enlarged[rows])


@pytest.fixture
def streams(monkeypatch):
    """Streams and events as of a GPU that is not there; the list is what they are told."""
    told = []

    class Event:
        def synchronize(self):
            told.append("the thread waits for the last copies")

        def record(self, stream):
            told.append(f"the copies end in {stream}")

    @contextlib.contextmanager
    def within(stream):
        told.append(f"into {stream}")
        yield
        told.append(f"out of {stream}")

    def current_stream(_device):
        return SimpleNamespace(wait_event=lambda _event: told.append("training waits for them"))

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"a stream of {device}")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: told.append("kept for training"))
    return told


def test_a_gpu_copies_beside_training_and_neither_reads_what_the_other_writes(streams, monkeypatch):
    gather = BufferPool.gather_rows

    def noted(pool, name, array, rows):
        streams.append(f"{name} gathered")
        return gather(pool, name, array, rows)

    monkeypatch.setattr(BufferPool, "gather_rows", noted)
    settings, data = tiny_recipe("demo", "crop=translate_stored"), tiny_data(enlarged=True)
    buffers = PinnedBuffers(torch.device("meta"))
    batch = buffers.load(wanted(1, data)[0], settings)
    assert streams == [
        "the thread waits for the last copies",  # or it would write over what is being copied
        "into a stream of meta",
        "main pixels gathered",
        "main texels gathered",
        "main large pixels gathered",
        "the copies end in a stream of meta",
        "out of a stream of meta",
    ]
    streams.clear()
    buffers.use_on_this_stream(batch)
    parts = [batch.pixels, *batch.draws, batch.labels, batch.texels, batch.large]
    assert streams == ["training waits for them", *["kept for training"] * len(parts)]


def test_buffers_of_a_gpu_are_pinned_and_those_of_a_processor_are_not(streams, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda one: pinned.append(1) or one)
    assert type(make_buffers(torch.device("cuda", 0))) is PinnedBuffers
    make_buffers(CPU).load(wanted(1)[0], RECIPE)
    assert pinned == []
    PinnedBuffers(torch.device("meta")).load(wanted(1)[0], RECIPE)
    assert len(pinned) == 4  # pixels, draws, labels, texels


def test_training_is_given_no_batch_before_its_copies_are_waited_for(monkeypatch):
    used = []
    monkeypatch.setattr(Buffers, "use_on_this_stream", lambda _, batch: used.append(batch))
    with loading_ahead(wanted(2), RECIPE, two_buffers()) as loader:
        for count in (1, 2):
            assert loader.next() is used[-1]
            assert len(used) == count
