"""Whether the compiled loops of all extensions give the same results as NumPy on this machine.

Random problems are solved by the loops and by NumPy. Every rank must be equal; re-ranked distances
and expectations over draws may differ by rounding. The lines also give the instruction set that the
loops use and how much faster they are.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from san_core.evaluation import ranking, rerank
from san_core.evaluation.check import reference
from san_core.evaluation.kernels.compiled import _ranking
from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.kernels.rows import Features
from san_core.evaluation.labels import Labels
from san_core.evaluation.protocol import PROTOCOLS, Protocol
from san_core.evaluation.protocols import single_shot
from san_core.evaluation.ranking import Ranking

_EQUAL = ("first_rank", "num_right", "top", "right", "cmc")
_CLOSE = ("average_precision", "inverse_penalty", "mAP", "mINP")


def verify_compiled_loops() -> Iterator[str]:
    """Lines that say what was checked.

    Raises:
        ValueError: a compiled result differs from NumPy's; the line names the problem and the
            figure.
    """
    yield f"compiled loops run on {_ranking.instruction_set()}"
    rng = np.random.default_rng(0)
    tied = [Tile(slice(0, 60), rng.integers(0, 9, (60, 900)).astype(np.float32))]
    for protocol in PROTOCOLS.values():
        _check_ranking(rng, tied, protocol)
        yield f"{protocol.name}: every rank as by sorting in float64"
    query, gallery = _random_labels(rng, 60, lowest=1), _random_labels(rng, 900, lowest=-1)
    _check_rerank(_random_features(rng, query), _random_features(rng, gallery))
    yield "re-ranking: every distance as by whole matrices"
    _check_single_shot(tied, query, gallery)
    yield "single gallery shot: every expectation as by sums over draws"
    yield _measure_speedup(rng)


def _check_ranking(rng: np.random.Generator, tied: list[Tile], protocol: Protocol) -> None:
    query = _random_labels(rng, 60, lowest=1, cameras=protocol.asking)
    gallery = _random_labels(rng, 900, lowest=-1, cameras=protocol.searched)
    same: dict[str, Any] = {"query": query, "gallery": gallery, "protocol": protocol}
    check_rankings_equal(
        f"tied distances, {protocol.name}",
        ranking.rank_distances(tied, **same),
        reference.rank_distances(tied, **same),
    )
    asked, searched = _random_features(rng, query), _random_features(rng, gallery)
    for metric in ("euclidean", "cosine"):
        found, expected = (
            each.rank(asked, searched, **same, metric=metric) for each in (ranking, reference)
        )
        check_rankings_equal(f"features, {metric}, {protocol.name}", found, expected)


def check_rankings_equal(problem: str, found: Ranking, expected: Ranking) -> None:
    """Check that two rankings are equal.

    Raises:
        ValueError: they are not.
    """
    for name in (*_EQUAL, *_CLOSE):
        within = 1e-12 if name in _CLOSE else 0
        if not np.allclose(
            getattr(found, name), getattr(expected, name), rtol=0, atol=within, equal_nan=True
        ):
            raise ValueError(f"the compiled ranking is wrong: {problem}: {name} differs")


def _check_rerank(asked: Features, searched: Features) -> None:
    rows = np.concatenate([asked, searched]).astype(np.float64)
    apart = np.array([((row - rows) ** 2).sum(axis=1) for row in rows])
    settings = rerank.RerankSettings()
    expected = reference.rerank_distances(apart, num_query=len(asked), settings=settings)
    by_features = [
        tile.distances for tile in rerank.rerank_features(asked, searched, settings=settings)
    ]
    given = rerank.rerank_distances(
        apart.astype(np.float32), num_query=len(asked), settings=settings
    )
    for problem, found in (("features", np.concatenate(by_features)), ("distances", given)):
        if not np.allclose(found, expected, rtol=0, atol=1e-5):
            raise ValueError(f"the compiled re-ranking is wrong: {problem}: a distance differs")


def _check_single_shot(tiles: list[Tile], query: Labels, gallery: Labels) -> None:
    found = single_shot.expected_single_shot(tiles, query=query, gallery=gallery)
    cmc, precision = reference.single_shot_expectation(
        tiles[0].distances, query=query, gallery=gallery
    )
    if not np.allclose(found.cmc, cmc, rtol=0, atol=1e-12):
        raise ValueError("the compiled single gallery shot is wrong: cmc differs")
    if abs(found.mAP_of_draw - precision) > 1e-12:
        raise ValueError("the compiled single gallery shot is wrong: mAP_of_draw differs")


def _measure_speedup(rng: np.random.Generator) -> str:
    query, gallery = (Labels(rng.integers(1, 700, n), None) for n in (500, 5000))
    rows = rng.random((500, 5000), dtype=np.float32)
    rows[query.pids[:, None] == gallery.pids] *= 0.01  # as good as a trained network's
    tile = [Tile(slice(0, 500), rows)]
    same: dict[str, Any] = {"query": query, "gallery": gallery}
    compiled = _cpu_seconds(lambda: ranking.rank_distances(tile, **same, threads=1))
    numpy = _cpu_seconds(lambda: reference.rank_distances(tile, **same))
    return f"{numpy / compiled:.0f} times as fast as the twin, one thread, 500 x 5,000"


def _cpu_seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def _random_labels(
    rng: np.random.Generator, n: int, *, lowest: int, cameras: tuple[int, ...] = ()
) -> Labels:
    return Labels(rng.integers(lowest, 40, n), rng.choice(cameras or range(4), n))


def _random_features(rng: np.random.Generator, labels: Labels) -> Features:
    centres = np.random.default_rng(1).normal(size=(42, 64))
    rows = centres[labels.pids] + 2 * rng.normal(size=(len(labels.pids), 64))
    return rows.astype(np.float32)
