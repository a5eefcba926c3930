"""CUHK03's first protocol (Li et al. 2014): of each person one gallery image, drawn at random.

`exact` gives the expectation over all draws, so nothing is drawn. People are drawn independently:
of person j, with the share f_j of images nearer than the right answer p, the drawn one is nearer
with chance f_j. The rank of p is then 1 + X, where X, the number of nearer people, has a
Poisson-binomial distribution. CMC at k is the mean over right answers of P(X < k), and the average
precision, with one right answer in a draw, that of E[1 / (1 + X)]: the integral over z from 0 to 1
of E[z^X] = prod_j (1 - f_j + f_j z), which Gauss-Legendre quadrature gives to float64's precision.

`sampled` draws, as papers did, from a seed.

Two conventions of mAP are in use and differ by points: `mAP_of_draw`, of the drawn gallery with its
one right answer (the official SAN code), and `mAP_of_gallery`, of the whole gallery, as if nothing
were drawn (torchreid and fast-reid print it beside the drawn CMC). Say which you report.

Distractors (pid 0) count as one person, as they do in those. SYSU-MM01 draws an image of each
person and camera, which is not done here: with the rule of `sysu-mm01` figures are those of one
image of each person. Distances are taken as given, in float32; tied ones rank in gallery order.

Shapes: Q queries, G gallery images, J people, K ranks.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation.compiled import _single_shot
from san_core.evaluation.distance import Tile
from san_core.evaluation.labels import Labels
from san_core.evaluation.protocol import Codes, Problem, Protocol, problem, usual
from san_core.evaluation.ranking import Ranking, check_lengths, mean, rank_distances, usable_threads


class SingleShot(NamedTuple):
    """Figures of draws of one image for each person; fractions are 0-1.

    Attributes:
        cmc: (K,) float64, the share of judged queries with the right answer by rank 1, 2, ...
        mAP_of_draw: mean average precision in the drawn gallery.
        mAP_of_gallery: mean average precision in the whole gallery.
        ranking: of the whole gallery, with all counts.
    """

    cmc: NDArray[np.float64]
    mAP_of_draw: float  # noqa: N815 - the field's own word
    mAP_of_gallery: float  # noqa: N815
    ranking: Ranking

    def scores(self) -> dict[str, float]:
        """The headline figures as fractions: rank1, rank5, rank10 and both mAPs."""
        ranks = {f"rank{k}": float(self.cmc[k - 1]) for k in (1, 5, 10)}
        maps = {"mAP_of_draw": self.mAP_of_draw, "mAP_of_gallery": self.mAP_of_gallery}
        return {**ranks, **maps}


def exact(
    tiles: Iterable[Tile],
    *,
    query: Labels,
    gallery: Labels,
    protocol: Protocol | None = None,
    max_rank: int = 50,
    threads: int | None = None,
) -> SingleShot:
    """The expectation over all draws.

    Args:
        tiles: distances of all queries in order, as `ranking.rank_distances` takes them.
        query: labels of the queries.
        gallery: labels of the gallery.
        protocol: what is left out before drawing; `protocol.usual` by default.
        max_rank: length of the CMC curve, at least 10.
        threads: cores to use, by default all this process may; the result is the same.

    Raises:
        ValueError: as `ranking.rank_distances`, or a distance is NaN.
    """
    check_lengths(max_rank=max_rank, top_k=0)
    laid_out = problem(query, gallery, protocol or usual(query))
    person, kept = _people(laid_out, len(gallery.pids))
    cmc, precision = np.zeros((len(query.pids), max_rank)), np.zeros(len(query.pids))
    nodes, weights = _quadrature(int((kept.max(axis=0) > 0).sum()))
    draws = _single_shot.Draws(
        laid_out,
        person=person,
        kept=kept,
        nodes=nodes,
        weights=weights,
        cmc=cmc,
        precision=precision,
        threads=usable_threads(threads),
    )

    def watched() -> Iterator[Tile]:
        for tile in _without_nan(tiles):
            yield tile  # checked by whoever takes it, before the next is asked for
            draws.add(np.ascontiguousarray(tile.distances), tile.rows.start)

    ranking = rank_distances(
        watched(),
        query=query,
        gallery=gallery,
        protocol=protocol,
        max_rank=max_rank,
        top_k=0,
        threads=threads,
    )
    judged = ranking.first_rank > 0
    return SingleShot(cmc[judged].mean(axis=0), mean(precision[judged]), ranking.mAP, ranking)


def sampled(
    tiles: Iterable[Tile],
    *,
    query: Labels,
    gallery: Labels,
    protocol: Protocol | None = None,
    max_rank: int = 50,
    draws: int = 10,
    seed: int = 0,
    threads: int | None = None,
) -> SingleShot:
    """The mean over some draws, which each query makes for itself, from its own seed.

    Args:
        tiles: as in `exact`.
        query: as in `exact`.
        gallery: as in `exact`.
        protocol: as in `exact`.
        max_rank: as in `exact`.
        draws: how many; papers took 10 or 20.
        seed: of the draws.
        threads: cores to rank the whole gallery with; draws are made on one.

    Raises:
        ValueError: as `exact`, or there are no draws.
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}; there must be at least 1")
    laid_out = problem(query, gallery, protocol or usual(query))
    person, _ = _people(laid_out, len(gallery.pids))
    ranks = np.zeros((len(query.pids), draws), np.int64)

    def watched() -> Iterator[Tile]:
        for tile in _without_nan(tiles):
            yield tile
            for i, row in enumerate(tile.distances, tile.rows.start):
                kept = _kept(laid_out, person, i)
                rng = np.random.default_rng([seed, i])
                ranks[i] = _drawn_ranks(rng, row, person, kept, laid_out.group[i], draws)

    ranking = rank_distances(
        watched(),
        query=query,
        gallery=gallery,
        protocol=protocol,
        max_rank=max_rank,
        top_k=0,
        threads=threads,
    )
    drawn = ranks[ranking.first_rank > 0]
    cmc = np.array([(drawn <= k).mean() for k in range(1, max_rank + 1)])
    return SingleShot(cmc, mean((1 / drawn).ravel()), ranking.mAP, ranking)


def _people(laid_out: Problem, num_gallery: int) -> tuple[Codes, Codes]:
    """The group of each gallery image, -1 for junk, and how many images each list leaves them."""
    sizes = np.diff(laid_out.start)
    person = np.full(num_gallery, -1, np.int32)
    person[laid_out.members] = np.repeat(np.arange(len(sizes)), sizes)
    kept = []
    for first, end in zip(laid_out.out_start[:-1], laid_out.out_start[1:], strict=True):
        left = person.copy()
        left[laid_out.out[first:end]] = -1
        kept.append(np.bincount(left[left >= 0], minlength=len(sizes)))
    return person, np.array(kept, np.int32)


def _quadrature(people: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights from 0 to 1 for polynomials of a degree of at most `people`.

    (people + 2) // 2 nodes are exact; 4 sqrt(people) + 16 reach float64's precision, since the
    polynomial is a product of factors between 0 and 1.
    """
    nodes, weights = np.polynomial.legendre.leggauss(
        max(1, min((people + 2) // 2, int(4 * people**0.5) + 16))
    )
    return (nodes + 1) / 2, weights / 2


def _without_nan(tiles: Iterable[Tile]) -> Iterator[Tile]:
    for tile in tiles:
        nan = np.isnan(tile.distances).any(axis=1)
        if nan.any():
            raise ValueError(f"the distances of query {tile.rows.start + nan.argmax()} hold NaN")
        yield tile


def _kept(laid_out: Problem, person: Codes, i: int) -> NDArray[np.intp]:
    """Gallery images left to query i, ordered by person."""
    camera, group = laid_out.gallery_camera, laid_out.group[i]
    left = (person >= 0) & (camera != laid_out.barred[i])
    left &= (person != group) | (camera != laid_out.query_camera[i])
    indices = np.flatnonzero(left)
    return indices[np.argsort(person[indices], kind="stable")]


def _drawn_ranks(
    rng: np.random.Generator,
    row: NDArray[np.float32],
    person: Codes,
    kept: NDArray[np.intp],
    group: int,
    draws: int,
) -> NDArray[np.int64]:
    """The rank of the query's person in each draw; 0 where no image of them is left."""
    _, start, sizes = np.unique(person[kept], return_index=True, return_counts=True)
    drawn = kept[start + rng.integers(0, sizes, (draws, len(sizes)))]  # (draws, J)
    right = person[drawn[0]] == group
    if not right.any():
        return np.zeros(draws, np.int64)
    own = drawn[:, right]  # (draws, 1)
    nearer = (row[drawn] < row[own]) | ((row[drawn] == row[own]) & (drawn < own))
    ranks: NDArray[np.int64] = 1 + nearer.sum(axis=1)
    return ranks
