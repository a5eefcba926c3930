"""Ranking beside np.argsort, a bare matrix product, faiss, and reading once; memory; re-ranking.

Features are generated, `people`: mAP 0.86 at CUHK03's size, 0.93 at Market-1501's, 0.80 at
MSMT17's, and 0.10 where a figure says hard. Ratios to np.argsort vary with the machine: NumPy sorts
by AVX-512 where it finds it. Only the stable sort gives the same ranks where distances are tied.
"""

from collections.abc import Iterator

import numpy as np

from san_core.evaluation import ranking, single_shot
from san_core.evaluation.distance import Tile
from tests.benchmarks import rerank
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import cpu_seconds, least_wall_seconds, one_thread, peak_mib
from tests.benchmarks.people import CUHK03, MARKET1501, MSMT17, People, people

HARD = 4.75
PLACES = {"cuhk03": (CUHK03, 1.81), "market": (MARKET1501, 1.55), "msmt17": (MSMT17, 1.9)}


def figures() -> Iterator[Figure]:
    """All figures of ranking and re-ranking."""
    yield _two_threads()
    with one_thread():
        for place in ("cuhk03", "market"):
            yield from _ranking_only(place)
        for place in PLACES:
            yield from _end_to_end(place, times=9 if place != "msmt17" else 3)
        yield from _faiss()
        yield from _single_shot()
    yield _memory()
    yield from rerank.figures()


def made(place: str) -> People:
    """The features of a data set's size."""
    size, noise = PLACES[place]
    return people(size, noise=noise)


def _given(of: People) -> list[Tile]:
    distances = 1 - of.query_features @ of.gallery_features.T
    return [Tile(slice(0, len(distances)), distances)]


def _rank(of: People, *, threads: int = 1, top_k: int = 0) -> ranking.Ranking:
    return ranking.rank(
        of.query_features,
        of.gallery_features,
        query=of.query,
        gallery=of.gallery,
        top_k=top_k,
        threads=threads,
    )


def _ranking_only(place: str) -> Iterator[Figure]:
    """Distances are there; what does it take to rank by them?"""
    for name, of in ((place, made(place)), (f"{place}_hard", people(PLACES[place][0], noise=HARD))):
        tiles = _given(of)
        distances = tiles[0].distances

        def rank(of=of, tiles=tiles, top_k=0):
            return ranking.rank_distances(
                tiles, query=of.query, gallery=of.gallery, top_k=top_k, threads=1
            )

        ours, with_top, argsort, stable, read = cpu_seconds(
            rank,
            lambda rank=rank: rank(top_k=10),
            lambda d=distances: np.argsort(d, axis=1),
            lambda d=distances: np.argsort(d, axis=1, kind="stable"),
            distances.max,
            times=7,
        )
        yield Figure(f"ranking.map_{name}", rank().mAP, "fraction")
        yield Figure(f"ranking.seconds_{name}", ours, "CPU s")
        yield Figure(f"ranking.seconds_{name}_top10", with_top, "CPU s")
        yield Figure(f"ranking.vs_argsort_{name}", argsort / ours, "x")
        yield Figure(f"ranking.vs_stable_argsort_{name}", stable / ours, "x")
        yield Figure(f"ranking.vs_one_read_{name}", ours / read, "x")


def _end_to_end(place: str, *, times: int) -> Iterator[Figure]:
    """From features to figures, over the best of some ways to make the same matrix product."""
    of = made(place)
    products = [lambda rows=rows: _product(of, rows) for rows in (1024, 4096)]
    ours, with_top, *bare = cpu_seconds(
        lambda: _rank(of), lambda: _rank(of, top_k=10), *products, times=times
    )
    yield Figure(f"ranking.end_to_end_vs_sgemm_{place}", ours / min(bare), "x")
    yield Figure(f"ranking.end_to_end_vs_sgemm_{place}_top10", with_top / min(bare), "x")
    yield Figure(f"ranking.end_to_end_seconds_{place}", ours, "CPU s")


def _product(of: People, rows: int) -> None:
    room = np.empty((rows, len(of.gallery_features)), np.float32)
    for start in range(0, len(of.query_features), rows):
        part = of.query_features[start : start + rows]
        np.matmul(part, of.gallery_features.T, out=room[: len(part)])


def _faiss() -> Iterator[Figure]:
    import faiss

    faiss.omp_set_num_threads(1)
    of = made("market")

    def top50() -> float:
        index = faiss.IndexFlatIP(of.gallery_features.shape[1])
        index.add(of.gallery_features)
        nearest = index.search(of.query_features, 50)[1]  # (Q, 50)
        same = of.gallery.pids[nearest] == of.query.pids[:, None]
        own = same & (of.gallery.camids[nearest] == of.query.camids[:, None])
        ranks = np.cumsum(~own, axis=1)
        right = same & ~own
        return float((np.cumsum(right, axis=1) * right / np.maximum(ranks, 1)).sum())

    ours, theirs = cpu_seconds(lambda: _rank(of), top50, times=7)
    yield Figure("ranking.vs_faiss_top50_market", ours / theirs, "x")


def _single_shot() -> Iterator[Figure]:
    for name, noise in (("", PLACES["cuhk03"][1]), ("_hard", HARD)):
        of = people(CUHK03, noise=noise)
        tiles = _given(of)
        (ours,) = cpu_seconds(
            lambda of=of, tiles=tiles: single_shot.exact(
                tiles, query=of.query, gallery=of.gallery, threads=1
            )
        )
        yield Figure(f"ranking.single_shot_seconds{name}", ours, "CPU s")


def _two_threads() -> Figure:
    of = made("market")
    one, two = least_wall_seconds(lambda: _rank(of, threads=1), lambda: _rank(of, threads=2))
    return Figure("ranking.two_threads", one / two, "x")


def _memory() -> Figure:
    """Market-1501 with 500,000 distractors."""
    code = """
import numpy as np
from tests.benchmarks.people import Size, people
from tests.benchmarks.ranking import _rank
of = people(Size(750, 3368, 516000, 6, 502880), noise=1.55)
small = people(Size(75, 336, 5000, 6, 100), noise=1.55)
_rank(small)
run = lambda: _rank(of)
"""
    return Figure("ranking.memory_516k_mib", peak_mib(code), "MiB")
