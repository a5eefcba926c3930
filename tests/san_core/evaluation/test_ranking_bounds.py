"""Ranks are right whatever error of float32 a machine's products have, in each part of the bound.

Each case is one where a part of the bound of `_ranking` is most of it: without it, ranks differ.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from san_core.evaluation import ranking
from san_core.evaluation.check import reference
from san_core.evaluation.kernels.operands import Operand
from san_core.evaluation.labels import Labels
from tests.san_core.evaluation.test_ranking_exact import assert_same

UNIT = 2.0**-24  # what float32 rounds by, as a share
COUNT = 256  # gallery images, half of them opposite to the others: their mean is 0


class MisledCounter:
    """A counter that is given values with all the error that float32 may make in any order."""

    def __init__(self, counter: Any) -> None:
        self._counter, self._draw = counter, np.random.default_rng(0)
        self.finish = counter.finish

    def open(self, query: Operand, gallery: Operand, centred: np.ndarray, metric: str) -> None:
        self._squares, self._dim = centred[:, None], len(query.centre)
        self._counter.open(query, gallery, centred, metric)

    def count(self, products: np.ndarray, norms: np.ndarray, first: int) -> None:
        a, b = np.sqrt(self._squares), np.sqrt(norms.astype(float))
        of_sums, of_lengths = 2 * self._dim * a * b, 2 * (a + b) ** 2
        error = UNIT * (of_sums + of_lengths + b**2 + np.abs(norms + products))
        misled = products + self._draw.choice([-1, 1], error.shape) * error
        self._counter.count(flushed(misled), flushed(norms), first)


def flushed(values: np.ndarray) -> np.ndarray:
    """As float32, where a machine may take for 0 what is too small to be exact."""
    small = np.abs(values) < np.finfo(np.float32).tiny
    return np.where(small, 0, values).astype(np.float32)


def check_ranking(query: np.ndarray, gallery: np.ndarray, *, metric: str = "euclidean") -> None:
    """Images 100, 101 and 150 are right; ranks and all places are those of the twin."""
    pids = np.full(len(gallery), 2)
    pids[[100, 101, 150]] = 1
    who = {"query": Labels(np.array([1]), None), "gallery": Labels(pids, None)}
    query, gallery = query.astype(np.float32), gallery.astype(np.float32)
    for top_k in (0, len(gallery)):
        same = {"metric": metric, "top_k": top_k}
        expected = reference.rank(query, gallery, **who, **same)
        assert_same(ranking.rank(query, gallery, **who, **same), expected)


def nearly_tied(dim: int, axis: int, *, length: float, step: float) -> np.ndarray:
    """Images to and fro on an axis, each a step farther than the one before, as a share."""
    rows = np.zeros((COUNT, dim))
    order = np.random.default_rng(1).permutation(COUNT)
    rows[:, axis] = length * (1 + step * order) * np.where(np.arange(COUNT) % 2, 1, -1)
    return rows


@pytest.mark.parametrize(
    ("dim", "asked", "length", "step", "axis"),
    [
        (257, 1.0, 1.0, 2.0**-23, 1),
        (2, 1.0, 0.01, 1e-4, 1),
        (1, 1.0, 1.0, 2.0**-23, 0),
        (2, 0.01, 0.998, 2.0**-24, 1),
        (8, 1e-22, 1e-22, 2.0**-23, 1),
    ],
    ids=["sums", "a far query", "both lengths", "a near query", "products that vanish"],
)
def test_no_error_that_products_may_have_moves_a_rank(monkeypatch, dim, asked, length, step, axis):
    made: Callable[..., Any] = ranking._RankTally.make_counter
    monkeypatch.setattr(
        ranking._RankTally, "make_counter", lambda *a, **kw: MisledCounter(made(*a, **kw))
    )
    query = np.zeros((1, dim))
    query[0, 0] = asked
    check_ranking(query, nearly_tied(dim, axis, length=length, step=step))


def test_cosines_that_float64_confuses_are_ranked_as_it_does():
    draw = np.random.default_rng(2)
    query, gallery = (1 + 2.0**-23 * draw.integers(0, 3, (n, 64)) for n in (1, COUNT))
    check_ranking(query, gallery, metric="cosine")
