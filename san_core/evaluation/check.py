"""`python -m san_core.evaluation.check` proves in seconds that the compiled loops are sound.

It ranks random problems by the loops and by their NumPy twin and compares every rank, then says on
which instruction set they run here and how much quicker they are. The exit status is 1 if anything
differs or nothing is compiled.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from san_core.evaluation import ranking, reference
from san_core.evaluation.compiled import _ranking
from san_core.evaluation.distance import Features, Tile
from san_core.evaluation.labels import Labels
from san_core.evaluation.protocol import PROTOCOLS
from san_core.evaluation.ranking import Ranking

_EQUAL = ("first_rank", "num_right", "top", "right", "cmc")
_CLOSE = ("average_precision", "inverse_penalty", "mAP", "mINP")


def check(*, seed: int = 0) -> Iterator[str]:
    """Lines that say what was found sound.

    Raises:
        ValueError: a compiled ranking differs from its twin, naming the problem and the figure.
    """
    yield f"compiled loops run on {_ranking.instruction_set()}"
    rng = np.random.default_rng(seed)
    query, gallery = _labels(rng, 60, lowest=1), _labels(rng, 900, lowest=-1)
    asked, searched = (_features(rng, labels) for labels in (query, gallery))
    tied = [Tile(slice(0, 60), rng.integers(0, 9, (60, 900)).astype(np.float32))]
    for protocol in PROTOCOLS.values():
        same: dict[str, Any] = {"query": query, "gallery": gallery, "protocol": protocol}
        compare(
            f"tied distances, {protocol.name}",
            ranking.rank_distances(tied, **same),
            reference.rank_distances(tied, **same),
        )
        for metric in ("euclidean", "cosine"):
            found, expected = (
                each.rank(asked, searched, **same, metric=metric) for each in (ranking, reference)
            )
            compare(f"features, {metric}, {protocol.name}", found, expected)
        yield f"{protocol.name}: every rank as by sorting in float64"
    yield _speed(rng)


def compare(problem: str, found: Ranking, expected: Ranking) -> None:
    """Check that two rankings are one.

    Raises:
        ValueError: they are not.
    """
    for name in (*_EQUAL, *_CLOSE):
        within = 1e-12 if name in _CLOSE else 0
        if not np.allclose(
            getattr(found, name), getattr(expected, name), rtol=0, atol=within, equal_nan=True
        ):
            raise ValueError(f"the compiled ranking is wrong: {problem}: {name} differs")


def _speed(rng: np.random.Generator) -> str:
    query, gallery = (Labels(rng.integers(1, 700, n), None) for n in (500, 5000))
    rows = rng.random((500, 5000), dtype=np.float32)
    rows[query.pids[:, None] == gallery.pids] *= 0.01  # as good as a trained network's
    tile = [Tile(slice(0, 500), rows)]
    same: dict[str, Any] = {"query": query, "gallery": gallery}
    compiled = _seconds(lambda: ranking.rank_distances(tile, **same, threads=1))
    numpy = _seconds(lambda: reference.rank_distances(tile, **same))
    return f"{numpy / compiled:.0f} times as fast as the twin, one thread, 500 x 5,000"


def _seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def _labels(rng: np.random.Generator, n: int, *, lowest: int) -> Labels:
    return Labels(rng.integers(lowest, 40, n), rng.integers(0, 4, n))


def _features(rng: np.random.Generator, labels: Labels) -> Features:
    centres = np.random.default_rng(1).normal(size=(42, 64))
    rows = centres[labels.pids] + 2 * rng.normal(size=(len(labels.pids), 64))
    return rows.astype(np.float32)


def main() -> int:
    """Print what `check` finds; the exit status."""
    try:
        for line in check():
            sys.stdout.write(line + "\n")
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
