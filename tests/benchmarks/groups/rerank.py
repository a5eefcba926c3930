"""Re-ranking at Market-1501's size, from features to the figures of the re-ranked gallery."""

from collections.abc import Iterator

from san_core.evaluation import ranking
from san_core.evaluation.rerank import rerank
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import cpu_seconds, one_thread, peak_mib
from tests.benchmarks.people import MARKET1501, People, people

# mAP 0.93 and 0.66 before re-ranking.
NOISE = {"": 1.55, "_hard": 2.4}


def figures() -> Iterator[Figure]:
    """CPU time and memory above the features, one thread."""
    for name, noise in NOISE.items():
        of = people(MARKET1501, noise=noise)
        with one_thread():
            (ours,) = cpu_seconds(lambda of=of: reranked(of), times=3)
        yield Figure(f"rerank.market_seconds{name}", ours, "CPU s")
        yield Figure(f"rerank.market_mib{name}", peak_mib(CODE.format(noise=noise)), "MiB")


def reranked(of: People) -> ranking.Ranking:
    """Rank by re-ranked distances, which stream by."""
    tiles = rerank(of.query_features, of.gallery_features, threads=1)
    return ranking.rank_distances(tiles, query=of.query, gallery=of.gallery, top_k=0, threads=1)


CODE = """
from tests.benchmarks.people import MARKET1501, Size, people
from tests.benchmarks.groups.rerank import reranked
of = people(MARKET1501, noise={noise})
reranked(people(Size(75, 336, 5000, 6, 100), noise=1.55))
run = lambda: reranked(of)
"""
