"""A search in a gallery of a million beside faiss's flat index; and what memory it takes."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from san_core.evaluation.kernels.rows import Features
from san_core.search.nearest import Nearest, nearest
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import least_wall_seconds, peak_mib

IMAGES, DIM, TOP = 1_000_000, 512, 20
QUERIES = 100  # where many are asked for at once
CORES = 2


def figures() -> Iterator[Figure]:
    """One query and many against a million, in memory maps that are warm."""
    import faiss

    faiss.omp_set_num_threads(CORES)
    with mapped_gallery() as gallery, threadpool_limits(CORES, user_api="blas"):
        index = faiss.IndexFlatIP(DIM)
        index.add(gallery)
        queries = unit_rows(np.random.default_rng(1), QUERIES)
        for name, asked in (("", queries[:1]), ("_100_queries", queries)):
            ours, theirs = least_wall_seconds(
                lambda asked=asked: search(asked, gallery),
                lambda asked=asked: index.search(asked, TOP),
                times=15 if len(asked) == 1 else 3,
            )
            yield Figure(f"search.million_seconds{name}", ours, "s")
            yield Figure(f"search.vs_faiss_flat{name}", ours / theirs, "x")
        same = search(queries, gallery).places == index.search(queries, TOP)[1]
        yield Figure("search.as_faiss_flat", same.mean(), "fraction")
    yield Figure("search.memory_mib", peak_mib(MEMORY_CODE), "MiB")


def search(query: Features, gallery: Features) -> Nearest:
    return nearest(query, gallery, count=TOP, metric="cosine", threads=CORES)


@contextmanager
def mapped_gallery() -> Iterator[Features]:
    """Random unit vectors in a file, all of whose pages are in memory."""
    with tempfile.TemporaryDirectory() as folder:
        yield write_gallery(Path(folder, "features.npy"), IMAGES)


def write_gallery(file: Path, images: int) -> Features:
    """Random unit vectors in a file, as a memory map that has been read."""
    rng = np.random.default_rng(0)
    matrix = np.lib.format.open_memmap(file, "w+", np.float32, shape=(images, DIM))
    for start in range(0, images, 4096):
        matrix[start : start + 4096] = unit_rows(rng, min(4096, images - start))
    del matrix
    mapped: Features = np.load(file, mmap_mode="r")
    for start in range(0, images, 4096):
        mapped[start : start + 4096].sum()
    return mapped


def unit_rows(rng: np.random.Generator, count: int) -> Features:
    """Vectors of length 1, (count, DIM)."""
    rows = rng.standard_normal((count, DIM), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# What is mapped counts once it has been read, so all of it is before.
MEMORY_CODE = """
import tempfile
from pathlib import Path
import numpy as np
from tests.benchmarks.groups import search

few = search.unit_rows(np.random.default_rng(2), 50)
search.search(few[:1], few)
folder = tempfile.TemporaryDirectory()
gallery = search.write_gallery(Path(folder.name) / "features.npy", search.IMAGES)
query = search.unit_rows(np.random.default_rng(1), 1)
run = lambda: search.search(query, gallery)
"""
