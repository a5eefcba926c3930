"""Which images make up the batches of an epoch: P identities of K images, or plain shuffling.

Every draw follows from (seed, epoch) alone, so an epoch can be repeated or resumed without
replaying the ones before it.
"""

import bisect
import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.seeds import derive_seed

Indices = NDArray[np.int64]


def count_identity_batches(labels: Indices, *, identities: int, images: int) -> int:
    """How many batches an epoch of `identity_batches` has.

    An identity of n images makes max(1, n // K) groups, each for another batch. The number of
    batches of P different identities is the largest m with sum(min(groups, m)) >= m P.
    """
    groups = np.maximum(1, np.unique(labels, return_counts=True)[1] // images)

    def too_many(steps: int) -> bool:
        return bool(np.minimum(groups, steps).sum() < steps * identities)

    highest = int(groups.sum()) // identities
    return bisect.bisect_left(range(1, highest + 1), True, key=too_many)


class EpochShare(NamedTuple):
    """The share of the images that an epoch of `identity_batches` uses."""

    identities: int  # P, in each batch
    batches: int
    share: float  # of all images, at most


def share_of_epoch(labels: Indices, *, identities: int, images: int) -> EpochShare:
    """The share of the images that an epoch of batches of P x K uses."""
    batches = count_identity_batches(labels, identities=identities, images=images)
    return EpochShare(identities, batches, min(1.0, batches * identities * images / len(labels)))


def fuller_epoch(labels: Indices, *, identities: int, images: int) -> EpochShare:
    """The epoch with the smaller P that uses most images; among equals, the largest P."""
    smaller = [
        share_of_epoch(labels, identities=count, images=images) for count in range(2, identities)
    ]
    own = share_of_epoch(labels, identities=identities, images=images)
    return max([*smaller, own], key=lambda epoch: (epoch.share, epoch.identities))


def identity_batches(
    labels: Indices, *, identities: int, images: int, seed: int, epoch: int
) -> Indices:
    """Batches of P `identities` with K `images` each: (steps, P * K) row numbers.

    An identity's images are shuffled and cut into groups of K; leftovers are not used in this
    epoch, and an identity with fewer than K images repeats some. Each batch takes the identities
    with most groups left, with ties broken at random. This gives the most batches (see
    `count_identity_batches`). The batches are then shuffled, so that people with many images do not
    all come early in the epoch.

    Raises:
        ValueError: fewer than P identities.
    """
    pids, counts = np.unique(labels, return_counts=True)
    if len(pids) < identities:
        raise ValueError(
            f"{len(pids)} identities cannot fill a batch of {identities}: lower "
            "identities_per_batch"
        )
    draw = np.random.default_rng(derive_seed(seed, epoch, "identity batches"))
    steps = count_identity_batches(labels, identities=identities, images=images)
    rows, ends = np.argsort(labels, kind="stable"), [0, *counts.cumsum().tolist()]
    shuffled = [_shuffle_and_cut(rows[i:j], images, draw) for i, j in itertools.pairwise(ends)]
    groups = np.concatenate(shuffled).reshape(-1, images)
    sizes = np.maximum(1, counts // images)
    fullest = _FullestIdentities(sizes, identities, draw)
    first, taken = sizes.cumsum() - sizes, np.empty((steps, identities), np.int64)
    for step in range(steps):
        order = fullest.next_by_lot()
        draw.shuffle(order)
        taken[step] = first[order] + fullest.take(order)
    return draw.permutation(groups[taken].reshape(steps, -1))


def _shuffle_and_cut(rows: Indices, images: int, draw: np.random.Generator) -> Indices:
    """An identity's rows, shuffled in place and cut to whole groups of K."""
    if len(rows) < images:
        rows = np.concatenate([draw.permutation(rows), draw.choice(rows, images - len(rows))])
    draw.shuffle(rows)
    return rows[: len(rows) // images * images]


class _FullestIdentities:
    """The identities with most groups left, ties at random, without sorting all of them.

    Each identity draws a random number in [0, 1), its lot; the order is that of np.lexsort((lots,
    -left)). Only identities whose lots are below left - threshold are sorted: if one passes, all
    before it pass as well.
    """

    def __init__(self, groups: Indices, count: int, draw: np.random.Generator) -> None:
        self._left, self._count, self._draw = groups.copy(), count, draw
        self._lots, self._bounds = np.empty(len(groups)), np.zeros(len(groups))
        self._threshold = 0.0  # no lot is below 0: the first batch sets it

    def next_by_lot(self) -> Indices:
        """The first `count` identities, in order: (count,)."""
        self._draw.random(out=self._lots)
        among, spare = np.flatnonzero(self._lots < self._bounds), self._count
        while len(among) < self._count:
            self._raise_bounds(spare)
            among, spare = np.flatnonzero(self._lots < self._bounds), 2 * spare
        order = np.lexsort((self._lots[among], -self._left[among]))
        return among[order[: self._count]]

    def take(self, chosen: Indices) -> Indices:
        """Take a group from each of these identities: its number there, (count,)."""
        self._left[chosen] -= 1
        self._bounds[chosen] = self._left[chosen] - self._threshold
        return self._left[chosen]

    def _raise_bounds(self, spare: int) -> None:
        """Let about `spare` more pass than needed, or all that tie with the last."""
        level = np.partition(self._left, -self._count)[-self._count]
        wanted = self._count - np.count_nonzero(self._left > level)
        share = min(1.0, (wanted + spare) / np.count_nonzero(self._left == level))
        self._threshold = level - share
        np.subtract(self._left, self._threshold, out=self._bounds)


def shuffled_batches(count: int, *, batch_size: int, seed: int, epoch: int) -> Indices:
    """A shuffled epoch in whole batches: (count // batch_size, batch_size) row numbers.

    Images that do not fill a batch are not used in this epoch. Fewer images than one batch make one
    smaller batch.

    Raises:
        ValueError: fewer than 2 images, too few for batch normalisation.
    """
    if count < 2:
        raise ValueError(f"{count} training images: at least 2 are needed")
    size = min(batch_size, count)
    order = np.random.default_rng(derive_seed(seed, epoch, "shuffle")).permutation(count)
    return order[: count // size * size].reshape(-1, size)


def places_of_share(count: int, share: float, *, group_size: int = 1) -> Indices:
    """The positions, in a batch of `count` images, of a share of its groups, evenly spread.

    A group is `group_size` consecutive images, K of one identity, and is never split. If the number
    chosen is a multiple of the number of processes, each process has equally many.
    """
    groups = count // group_size
    chosen = np.flatnonzero(np.diff(np.arange(groups + 1) * round(share * groups) // groups))
    places: Indices = (chosen[:, None] * group_size + np.arange(group_size)).ravel()
    return places


def rows_of_rank(batch: Indices, *, rank: int, size: int, group_size: int = 1) -> Indices:
    """The rows of a batch (B,) that process `rank` of `size` takes: (B / size,), in their order.

    Groups of `group_size` consecutive images, K of one identity, are never split: every process
    gets P / size identities of K images.

    Raises:
        ValueError: the processes would not get equal shares.
    """
    groups = batch.reshape(-1, group_size)
    if len(groups) % size:
        what = f"identities of {group_size} images" if group_size > 1 else "images"
        raise ValueError(
            f"a batch of {len(groups)} {what} cannot be divided equally among {size} processes: "
            "choose a multiple"
        )
    share = len(groups) // size
    return groups[rank * share : (rank + 1) * share].ravel()
