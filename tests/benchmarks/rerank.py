"""Re-ranking at Market-1501's size, from features to the figures of the re-ranked gallery."""

from collections.abc import Iterator

from san_core.evaluation import ranking
from san_core.evaluation.rerank import rerank_features
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import median_cpu_seconds, one_thread, peak_mib
from tests.benchmarks.people import MARKET1501, QueryGallery, random_features

# mAP 0.93 and 0.66 before re-ranking.
NOISE = {"": 1.55, "_hard": 2.4}


def figures() -> Iterator[Figure]:
    """CPU time and memory above the features, one thread."""
    for name, noise in NOISE.items():
        of = random_features(MARKET1501, noise=noise)
        with one_thread():
            (ours,) = median_cpu_seconds(lambda of=of: rank_by_reranked(of), times=3)
        yield Figure(f"rerank.market_seconds{name}", ours, "CPU s")
        yield Figure(f"rerank.market_mib{name}", peak_mib(RERANK_CODE.format(noise=noise)), "MiB")


def rank_by_reranked(of: QueryGallery) -> ranking.Ranking:
    """Rank by re-ranked distances, which stream by."""
    tiles = rerank_features(of.query_features, of.gallery_features, threads=1)
    return ranking.rank_distances(tiles, query=of.query, gallery=of.gallery, top_k=0, threads=1)


RERANK_CODE = """
from tests.benchmarks.people import MARKET1501, GallerySize, random_features
from tests.benchmarks.rerank import rank_by_reranked
of = random_features(MARKET1501, noise={noise})
rank_by_reranked(random_features(GallerySize(75, 336, 5000, 6, 100), noise=1.55))
run = lambda: rank_by_reranked(of)
"""
