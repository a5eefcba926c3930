"""Counting by tiles, in threads."""

import signal
import threading
import time

import numpy as np
import pytest

from san_core.evaluation.kernels import streaming
from san_core.evaluation.kernels.operands import make_operands
from san_core.evaluation.kernels.rows import select_rows

SHAPE = streaming.TileShape(queries=8, gallery=4)
QUERIES, GALLERY = 64, 2000


class Counter:
    """Counts tiles, and calls something at each."""

    def __init__(self, at_tile):
        self.at_tile = at_tile

    def open(self, *_):
        pass

    def count(self, *_):
        self.at_tile()

    def finish(self):
        pass


def count_tiles(at_tile, *, threads):
    rng = np.random.default_rng(0)
    rows = [select_rows(rng.normal(size=(n, 3)).astype(np.float32)) for n in (QUERIES, GALLERY)]
    streaming.count_by_features(
        make_operands(*rows, "euclidean"),
        "euclidean",
        lambda **_: Counter(at_tile),
        shape=SHAPE,
        threads=threads,
    )


def test_every_tile_is_counted_once():
    for threads in (1, 2):
        tiles = []
        count_tiles(lambda tiles=tiles: tiles.append(0), threads=threads)
        assert len(tiles) == QUERIES // 8 * GALLERY // 4


def test_ctrl_c_ends_the_threads_after_a_tile():
    tiles, lock = [], threading.Lock()

    def interrupt_at_the_tenth():
        with lock:
            tiles.append(0)
            if len(tiles) == 10:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt):
        count_tiles(interrupt_at_the_tenth, threads=2)
    assert len(tiles) < 1000  # of 4,000


def test_what_one_thread_raises_ends_the_others():
    tiles = []

    def fail_at_the_tenth():
        tiles.append(0)
        if len(tiles) == 10:
            raise ValueError("the tenth")
        time.sleep(0.001)

    with pytest.raises(ValueError, match="the tenth"):
        count_tiles(fail_at_the_tenth, threads=2)
    assert len(tiles) < 1000
