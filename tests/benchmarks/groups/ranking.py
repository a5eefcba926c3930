"""Ranking beside np.argsort, a bare matrix product, faiss, and reading once; memory; re-ranking.

Features are generated, `random_features`: mAP 0.86 at CUHK03's size, 0.93 at Market-1501's, 0.80 at
MSMT17's, and 0.10 where a figure says hard. Ratios to np.argsort vary with the machine: NumPy sorts
by AVX-512 where it finds it. Only the stable sort gives the same ranks where distances are tied.

Peers that the package index does not have are not run: `RECORDED_RATIOS` holds what they took once.
"""

from collections.abc import Iterator

import numpy as np

from san_core.evaluation import ranking
from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.kernels.rows import select_rows
from san_core.evaluation.protocols import single_shot
from san_core.evaluation.protocols.scoring import EmbeddedImages, ProtocolScores, Scorer
from tests.benchmarks import rerank
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import least_wall_seconds, median_cpu_seconds, one_thread, peak_mib
from tests.benchmarks.people import (
    CUHK03,
    MARKET1501,
    MARKET1501_JUNK,
    MSMT17,
    QueryGallery,
    random_features,
)

HARD_NOISE = 4.75
# Features to CMC and mAP at Market-1501's size over the bare sgemm, by the dimensions of a feature:
# CPU time of each peer's own Cython, of the commits named, on one thread; measured once on another
# machine (AMD EPYC with AVX2, NumPy 2.4, 2026-11-22). They make no ROC curve.
RECORDED_RATIOS = {
    "torchreid": {512: 8.2, 2048: 3.6},  # KaiyangZhou/deep-person-reid f8cd150
    "fastreid": {512: 6.1, 2048: 3.0},  # JDAI-CV/fast-reid c9bc3ce
    "official": {512: 8.6, 2048: 3.75},  # the official SAN code b317d88
}
SIZES_AND_NOISE = {"cuhk03": (CUHK03, 1.76), "market": (MARKET1501, 1.55), "msmt17": (MSMT17, 1.9)}


def figures() -> Iterator[Figure]:
    """All figures of ranking and re-ranking."""
    yield _two_threads_figure()
    with one_thread():
        for place in ("cuhk03", "market"):
            yield from _ranking_figures(place)
        for place in SIZES_AND_NOISE:
            yield from _end_to_end_figures(place, times=9 if place != "msmt17" else 3)
        for place in SIZES_AND_NOISE:
            yield from _evaluate_figures(place, times=9 if place != "msmt17" else 3)
        yield from _evaluate_figures("market", dim=2048, times=5)
        yield from _junk_figures()
        yield from _offset_figures()
        yield from _faiss_figures()
        yield from _single_shot_figures()
    for name, scattered in (("", True), ("_in_order", False)):
        code = RANK_CODE.format(scattered=scattered)
        yield Figure(f"ranking.memory_516k{name}_mib", peak_mib(code), "MiB")
    yield from rerank.figures()


def features_of(place: str, *, dim: int = 512) -> QueryGallery:
    """The features of a data set's size."""
    size, noise = SIZES_AND_NOISE[place]
    return random_features(size, noise=noise, dim=dim)


def _distance_tiles(of: QueryGallery) -> list[Tile]:
    distances = 1 - of.query_features @ of.gallery_features.T
    return [Tile(slice(0, len(distances)), distances)]


def _rank(of: QueryGallery, *, threads: int = 1, top_k: int = 0) -> ranking.Ranking:
    return ranking.rank(
        of.query_features,
        of.gallery_features,
        query=of.query,
        gallery=of.gallery,
        top_k=top_k,
        threads=threads,
    )


def _ranking_figures(place: str) -> Iterator[Figure]:
    """Distances are there; what does it take to rank by them?"""
    for name, of in (
        (place, features_of(place)),
        (f"{place}_hard", random_features(SIZES_AND_NOISE[place][0], noise=HARD_NOISE)),
    ):
        tiles = _distance_tiles(of)
        distances = tiles[0].distances

        def rank(of=of, tiles=tiles, top_k=0):
            return ranking.rank_distances(
                tiles, query=of.query, gallery=of.gallery, top_k=top_k, threads=1
            )

        ours, with_top, argsort, stable, read = median_cpu_seconds(
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


def _end_to_end_figures(place: str, *, times: int) -> Iterator[Figure]:
    """From features to figures, over the best of some ways to make the same matrix product."""
    of = features_of(place)
    products = [lambda rows=rows: _matrix_product(of, rows) for rows in (1024, 4096)]
    ours, with_top, *bare = median_cpu_seconds(
        lambda: _rank(of), lambda: _rank(of, top_k=10), *products, times=times
    )
    yield Figure(f"ranking.end_to_end_vs_sgemm_{place}", ours / min(bare), "x")
    yield Figure(f"ranking.end_to_end_vs_sgemm_{place}_top10", with_top / min(bare), "x")
    yield Figure(f"ranking.end_to_end_seconds_{place}", ours, "CPU s")


def _evaluate_figures(place: str, *, dim: int = 512, times: int) -> Iterator[Figure]:
    """What the step `evaluate` asks for, top 10 and ROC curve too, over the same matrix product."""
    of = features_of(place, dim=dim)
    products = [lambda rows=rows: _matrix_product(of, rows) for rows in (1024, 4096)]
    euclidean, cosine, *bare = median_cpu_seconds(
        lambda: _evaluate(of, "euclidean"), lambda: _evaluate(of, "cosine"), *products, times=times
    )
    size = "" if dim == 512 else f"_{dim}"
    yield Figure(f"ranking.evaluate_vs_sgemm_{place}{size}", euclidean / min(bare), "x")
    yield Figure(f"ranking.evaluate_cosine_vs_sgemm_{place}{size}", cosine / min(bare), "x")
    yield Figure(f"ranking.evaluate_seconds_{place}{size}", euclidean, "CPU s")
    for peer, ratios in RECORDED_RATIOS.items() if place == "market" else ():
        yield Figure(f"ranking.recorded_{peer}_vs_sgemm_market{size}", ratios[dim], "x")
        yield Figure(
            f"ranking.vs_recorded_{peer}_market{size}", ratios[dim] * min(bare) / euclidean, "x"
        )


def _evaluate(of: QueryGallery, metric: str) -> ProtocolScores:
    query, gallery = select_rows(of.query_features), select_rows(of.gallery_features)
    images = EmbeddedImages(query, gallery, query, of.query, of.gallery, of.query, metric)
    return Scorer(images, threads=1).score("market1501", top_k=10, with_roc=True)


def _matrix_product(of: QueryGallery, rows: int) -> None:
    room = np.empty((rows, len(of.gallery_features)), np.float32)
    for start in range(0, len(of.query_features), rows):
        part = of.query_features[start : start + rows]
        np.matmul(part, of.gallery_features.T, out=room[: len(part)])


def _junk_figures() -> Iterator[Figure]:
    """What Market-1501's junk costs, by what it adds to the gallery."""
    clean, whole = (random_features(size, noise=1.55) for size in (MARKET1501, MARKET1501_JUNK))
    short, long = median_cpu_seconds(lambda: _rank(clean), lambda: _rank(whole), times=5)
    share = len(whole.gallery.pids) / len(clean.gallery.pids)
    yield Figure("ranking.junk_per_image_market", long / short / share, "x")


def _offset_figures() -> Iterator[Figure]:
    """What it costs if features have much in common: an offset, or what a ReLU leaves."""
    plain = features_of("cuhk03")
    moved = QueryGallery(plain.query_features + 1, plain.gallery_features + 1, *plain[2:])
    pooled = QueryGallery(
        *(np.maximum(rows + np.float32(0.05), 0) for rows in plain[:2]), *plain[2:]
    )
    usual, offset, relu = median_cpu_seconds(
        lambda: _rank(plain),
        lambda: _rank(moved),
        lambda: _rank(pooled),
        times=7,
    )
    yield Figure("ranking.offset_vs_plain_cuhk03", offset / usual, "x")
    yield Figure("ranking.relu_vs_plain_cuhk03", relu / usual, "x")


def _faiss_figures() -> Iterator[Figure]:
    import faiss

    faiss.omp_set_num_threads(1)
    of = features_of("market")

    def top50() -> float:
        index = faiss.IndexFlatIP(of.gallery_features.shape[1])
        index.add(of.gallery_features)
        nearest = index.search(of.query_features, 50)[1]  # (Q, 50)
        same = of.gallery.pids[nearest] == of.query.pids[:, None]
        own = same & (of.gallery.camids[nearest] == of.query.camids[:, None])
        ranks = np.cumsum(~own, axis=1)
        right = same & ~own
        return float((np.cumsum(right, axis=1) * right / np.maximum(ranks, 1)).sum())

    ours, theirs = median_cpu_seconds(lambda: _rank(of), top50, times=7)
    yield Figure("ranking.vs_faiss_top50_market", ours / theirs, "x")


def _single_shot_figures() -> Iterator[Figure]:
    for name, noise in (("", SIZES_AND_NOISE["cuhk03"][1]), ("_hard", HARD_NOISE)):
        of = random_features(CUHK03, noise=noise)
        tiles = _distance_tiles(of)
        (ours,) = median_cpu_seconds(
            lambda of=of, tiles=tiles: single_shot.expected_single_shot(
                tiles, query=of.query, gallery=of.gallery, threads=1
            )
        )
        yield Figure(f"ranking.single_shot_seconds{name}", ours, "CPU s")


def _two_threads_figure() -> Figure:
    of = features_of("market")
    one, two = least_wall_seconds(lambda: _rank(of, threads=1), lambda: _rank(of, threads=2))
    return Figure("ranking.two_threads", one / two, "x")


# Market-1501 with 500,000 distractors, as the step `evaluate` ranks it: top 10 and ROC curve, all
# cores, from a memory-mapped file whose pages are all in memory before. The rows of queries and
# gallery lie mixed, or in order.
RANK_CODE = """
import tempfile
from pathlib import Path
import numpy as np
from components.process.machine import core_count
from san_core.evaluation.feature_files import map_numbers
from san_core.evaluation.kernels.rows import select_rows
from san_core.evaluation.protocols.scoring import EmbeddedImages, Scorer
from tests.benchmarks.people import GallerySize, random_features

size = GallerySize(750, 3368, 516000, 6, 500000)
total = size.queries + size.gallery
place = np.arange(total)
if {scattered}:
    np.random.default_rng(0).shuffle(place)
folder = tempfile.TemporaryDirectory()
file = Path(folder.name) / "features.npy"
matrix = np.lib.format.open_memmap(file, "w+", np.float32, shape=(total, 512))
of = random_features(size, noise=1.55)
query, gallery = of.query, of.gallery
asked, searched = place[: size.queries], place[size.queries :]
for index, features in ((asked, of.query_features), (searched, of.gallery_features)):
    for start in range(0, len(index), 4096):
        matrix[index[start : start + 4096]] = features[start : start + 4096]
del of, features, matrix

def embedded(matrix, asked, searched, query, gallery):
    return EmbeddedImages(
        select_rows(matrix, asked), select_rows(matrix, searched), select_rows(matrix, asked),
        query, gallery, query, "euclidean",
    )

def ranked(images):
    return Scorer(images, threads=core_count()).score("market1501", top_k=10, with_roc=True)

small = random_features(GallerySize(75, 336, 5000, 6, 100), noise=1.55)
both = np.concatenate(small[:2])
ranked(embedded(both, np.arange(336), np.arange(336, 5336), small.query, small.gallery))
mapped = map_numbers(file)
for start in range(0, total, 4096):
    mapped[start : start + 4096].sum()
run = lambda: ranked(embedded(mapped, asked, searched, query, gallery))
"""
