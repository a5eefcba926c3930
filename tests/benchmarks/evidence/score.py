"""How an arm is judged: mAP and rank-1 of a split, and where SAN's gain is said to lie.

Subsets ask of whom the pairs are: somebody seen from the front and from behind, in another pose,
or with something in front of him. Matches outside of a subset are left out, as junk is.
Shapes: Q queries, G gallery images, D dimensions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation.kernels.distance import distance_tiles
from san_core.evaluation.labels import Labels
from san_core.evaluation.ranking import rank
from tests.benchmarks.evidence.data import (
    ELSEWHERE,
    TEST_PEOPLE,
    TRAIN_PEOPLE,
    VAL_PEOPLE,
    RenderedSet,
)

FRONT_DEGREES = 60  # degrees that a view may stray from the front, or from behind
SPLITS = {
    "val": (TRAIN_PEOPLE, VAL_PEOPLE),
    "test": (TRAIN_PEOPLE + VAL_PEOPLE, TEST_PEOPLE),
}  # the first of its people, how many
# Whom a network is judged on: of which set, None its own, and of which split
TESTS: dict[str, tuple[str | None, str]] = {
    "val": (None, "val"),
    "test": (None, "test"),
    "hard": ("hard", "test"),
    ELSEWHERE: (ELSEWHERE, "test"),
}

Mask = NDArray[np.bool_]


class Scores(NamedTuple):
    """Fractions; those of a subset are None where it has no query with a match."""

    mAP: float  # noqa: N815 - the field's own word
    rank1: float
    front_to_back: float | None
    occluded: float | None
    cross_pose: float | None


def query_and_gallery_rows(
    them: RenderedSet, split: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Queries and gallery of a split, as rows of the set."""
    rows = them.rows_of_people(*SPLITS[split])
    asked = them.is_query[rows]
    return rows[asked], rows[~asked]


def score_features(
    query: NDArray[np.float32],
    gallery: NDArray[np.float32],
    them: RenderedSet,
    split: str,
    *,
    metric: str,
) -> Scores:
    """Scores of features (Q, D) and (G, D) of a split by the protocol of Market-1501."""
    q, g = query_and_gallery_rows(them, split)
    labels = [Labels(them.identity[rows] + 1, them.camid[rows]) for rows in (q, g)]
    ranking = rank(query, gallery, query=labels[0], gallery=labels[1], metric=metric, threads=1)
    distances = np.concatenate(
        [tile.distances for tile in distance_tiles(query, gallery, metric=metric)]
    )
    same = them.identity[q][:, None] == them.identity[g][None]
    matches = same & (them.camid[q][:, None] != them.camid[g][None])
    opposite = opposite_sides(them.azimuth[q], them.azimuth[g])
    other_pose = them.pose[q][:, None] != them.pose[g][None]
    hidden = np.broadcast_to(them.is_occluded[q][:, None], matches.shape)
    return Scores(
        ranking.mAP,
        float(ranking.cmc[0]),
        *(mean_ap(distances, same, matches & part) for part in (opposite, hidden, other_pose)),
    )


def opposite_sides(query: NDArray[np.float64], gallery: NDArray[np.float64]) -> Mask:
    """Whether one of a pair shows the front and the other the back: (Q, G), azimuths in degrees."""
    ahead = [np.abs((view + 180) % 360 - 180) <= FRONT_DEGREES for view in (query, gallery)]
    behind = [np.abs(view % 360 - 180) <= FRONT_DEGREES for view in (query, gallery)]
    return (ahead[0][:, None] & behind[1][None]) | (behind[0][:, None] & ahead[1][None])


def mean_ap(distances: NDArray[np.float32], same: Mask, matches: Mask) -> float | None:
    """mAP over the queries that have a match, of distances (Q, G).

    same: (Q, G), whether the person is the query's. matches: (Q, G), those of them that count as
    right; the others are left out.
    """
    found = []
    for row, person, right in zip(distances, same, matches, strict=True):
        if not right.any():
            continue
        kept = np.flatnonzero(~person | right)
        ranked = right[kept][np.argsort(row[kept], kind="stable")]
        places = np.flatnonzero(ranked) + 1
        found.append(float(np.mean(np.arange(1, len(places) + 1) / places)))
    return float(np.mean(found)) if found else None
