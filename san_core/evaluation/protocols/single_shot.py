"""CUHK03's first protocol (Li et al. 2014): one gallery image of each person, drawn at random.

SYSU-MM01 (Wu et al. 2017) draws one image of each person and camera, and ranks people by the
nearest of their images.

`expected_single_shot` gives the expectation over all draws of the former. Images are drawn
independently for each person. If a share f_j of the images of person j is nearer than the right
answer p, the drawn image is nearer with probability f_j. The rank of p is then 1 + X, where X, the
number of nearer people, has a Poisson-binomial distribution. CMC at k is the mean over right
answers of P(X < k), and the average precision, with one right answer in a draw, that of E[1 / (1 +
X)]: the integral over z from 0 to 1 of E[z^X] = prod_j (1 - f_j + f_j z), which Gauss-Legendre
quadrature gives to float64's precision.

`sampled_single_shot` makes either kind of draw from a seed, as papers did.

Two conventions of mAP are in use and differ by points: `mAP_of_draw`, of the drawn gallery (the
official SAN code, and papers on SYSU-MM01), and `mAP_of_gallery`, of the whole gallery, as if
nothing were drawn (torchreid and fast-reid print it beside the drawn CMC). Say which you report.

Distractors (pid 0) count as one person, as in those codes. Distances are used in float32; tied
distances rank in gallery order.

Shapes: Q queries, G gallery images, J people, K ranks; U images in a draw, P of them right.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation.kernels.compiled import _single_shot
from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.labels import Ids, Labels
from san_core.evaluation.protocol import (
    Codes,
    Protocol,
    RankingProblem,
    default_protocol,
    ranking_problem,
)
from san_core.evaluation.ranking import (
    Ranking,
    check_rank_limits,
    exact_mean,
    rank_distances,
    usable_threads,
)


class SingleShot(NamedTuple):
    """Figures of a drawn gallery; fractions are 0-1.

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


def expected_single_shot(
    tiles: Iterable[Tile],
    *,
    query: Labels,
    gallery: Labels,
    protocol: Protocol | None = None,
    max_rank: int = 50,
    threads: int | None = None,
) -> SingleShot:
    """The expectation over all draws of an image of each person.

    Args:
        tiles: distances of all queries in order, as `ranking.rank_distances` takes them.
        query: labels of the queries.
        gallery: labels of the gallery.
        protocol: what is left out before drawing; `protocol.default_protocol` by default.
        max_rank: length of the CMC curve, at least 10.
        threads: cores to use, by default all this process may; the result is the same.

    Raises:
        ValueError: as `ranking.rank_distances`, or a distance is NaN, or the protocol draws by
            camera.
    """
    protocol = protocol or default_protocol(query)
    check_has_expectation(protocol)
    check_rank_limits(max_rank=max_rank, top_k=0)
    laid_out = ranking_problem(query, gallery, protocol)
    person, kept = _people_left(laid_out, len(gallery.pids))
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

    def add_draws() -> Iterator[Tile]:
        for tile in _reject_nan(tiles):
            yield tile  # the consumer checks it before it asks for the next
            draws.add(np.ascontiguousarray(tile.distances), tile.rows.start)

    ranking = rank_distances(
        add_draws(),
        query=query,
        gallery=gallery,
        protocol=protocol,
        max_rank=max_rank,
        top_k=0,
        threads=threads,
    )
    judged = ranking.first_rank > 0
    return SingleShot(cmc[judged].mean(axis=0), exact_mean(precision[judged]), ranking.mAP, ranking)


def check_has_expectation(protocol: Protocol) -> None:
    """Check that `expected_single_shot` supports the draws of a protocol.

    Raises:
        ValueError: it draws an image of each person and camera.
    """
    if protocol.shot_by_camera:
        raise ValueError(
            f"by protocol {protocol.name} one image of each person and camera is drawn; the exact "
            "expectation is not available for it, sampled draws are"
        )


def sampled_single_shot(
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
    """The mean over some draws; each query has its own draws, from its own seed.

    Args:
        tiles: as in `expected_single_shot`.
        query: as in `expected_single_shot`.
        gallery: as in `expected_single_shot`.
        protocol: as in `expected_single_shot`.
        max_rank: as in `expected_single_shot`.
        draws: how many; papers took 10 or 20.
        seed: of the draws.
        threads: cores to rank the whole gallery with; draws are made on one.

    Raises:
        ValueError: as `expected_single_shot`, or there are no draws.
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}; there must be at least 1")
    protocol = protocol or default_protocol(query)
    laid_out = ranking_problem(query, gallery, protocol)
    person, _ = _people_left(laid_out, len(gallery.pids))
    drawn_of = _draw_keys(laid_out, person, by_camera=protocol.shot_by_camera)
    ranks, precision = np.zeros((len(query.pids), draws), np.int64), np.zeros(len(query.pids))

    def judge_tiles() -> Iterator[Tile]:
        for tile in _reject_nan(tiles):
            yield tile
            for i, row in enumerate(tile.distances, tile.rows.start):
                left = _eligible_images(laid_out, person, drawn_of, i)
                rng = np.random.default_rng([seed, i])
                drawn = _draw_images(rng, left, drawn_of[left], draws)
                right = person[drawn[0]] == laid_out.group[i]
                if right.any():
                    ranks[i], precision[i] = _judge_draws(row, drawn, person[drawn[0]], right)

    ranking = rank_distances(
        judge_tiles(),
        query=query,
        gallery=gallery,
        protocol=protocol,
        max_rank=max_rank,
        top_k=0,
        threads=threads,
    )
    judged = ranking.first_rank > 0
    cmc = np.array([(ranks[judged] <= k).mean() for k in range(1, max_rank + 1)])
    return SingleShot(cmc, exact_mean(precision[judged]), ranking.mAP, ranking)


def _people_left(laid_out: RankingProblem, num_gallery: int) -> tuple[Codes, Codes]:
    """Each gallery image's group, -1 for junk, and what each list leaves of each group."""
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


def _reject_nan(tiles: Iterable[Tile]) -> Iterator[Tile]:
    for tile in tiles:
        nan = np.isnan(tile.distances).any(axis=1)
        if nan.any():
            raise ValueError(f"the distances of query {tile.rows.start + nan.argmax()} hold NaN")
        yield tile


def _draw_keys(laid_out: RankingProblem, person: Codes, *, by_camera: bool) -> Ids:
    """The unit that each gallery image is drawn for: its person, or its person and camera."""
    drawn_of = person.astype(np.int64)
    if by_camera:
        drawn_of *= int(laid_out.gallery_camera.max()) + 1
        drawn_of += laid_out.gallery_camera
    return drawn_of


def _eligible_images(
    laid_out: RankingProblem, person: Codes, drawn_of: Ids, i: int
) -> NDArray[np.intp]:
    """Gallery images left for query i, ordered by the unit they are drawn for."""
    camera, group = laid_out.gallery_camera, laid_out.group[i]
    left = (person >= 0) & (camera != laid_out.barred[i])
    left &= (person != group) | (camera != laid_out.query_camera[i])
    indices = np.flatnonzero(left)
    return indices[np.argsort(drawn_of[indices], kind="stable")]


def _draw_images(
    rng: np.random.Generator, left: NDArray[np.intp], drawn_of: Ids, draws: int
) -> NDArray[np.intp]:
    """One image of each run of equal `drawn_of`, in every draw: (draws, U)."""
    start = np.flatnonzero(np.diff(drawn_of, prepend=-1))
    sizes = np.diff(start, append=len(left))
    drawn: NDArray[np.intp] = left[start + rng.integers(0, sizes, (draws, len(sizes)))]
    return drawn


class _JudgedDraws(NamedTuple):
    """(draws,) the rank of the query's person among people, and the mean average precision."""

    ranks: NDArray[np.int64]
    precision: float


def _judge_draws(
    row: NDArray[np.float32], drawn: NDArray[np.intp], shown: Codes, right: NDArray[np.bool_]
) -> _JudgedDraws:
    """Judge draws (draws, U) by a row of distances; shown: (U,) people, ascending."""
    places = np.argsort(np.lexsort((drawn, row[drawn])), axis=1) + 1  # (draws, U), from 1
    found = np.sort(places[:, right], axis=1)  # (draws, P)
    precision = float((np.arange(1, found.shape[1] + 1) / found).mean())
    start = np.flatnonzero(np.diff(shown, prepend=-1))
    nearest = np.minimum.reduceat(places, start, axis=1)  # (draws, J)
    return _JudgedDraws(1 + (nearest < found[:, :1]).sum(axis=1), precision)
