"""Whom a data set trains, and whom it validates on; told without torch and without an image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from san_core.data.batches.cache import label_map
from san_core.data.batches.sampler import fuller_epoch, share_of_epoch
from san_core.data.batches.training_data import check_identity_count
from san_core.images.imageset import ImageSet
from san_core.images.shard import Record
from san_core.recipe import Recipe

_HELD_OUT_SEED = 4  # seed of the draw; none of a run's own, so that runs can be compared
_LEAST_SHARE_SHOWN = 0.5  # of the images; with less, epochs say little of how often each was seen


@dataclass(frozen=True)
class IdentitySplit:
    """The images of a data set that training uses."""

    train_records: Sequence[Record]
    validation_records: Sequence[Record]  # empty where the recipe does not validate
    labels: NDArray[np.int64]  # of `train_records`, classes 0 ... C-1

    @property
    def num_classes(self) -> int:
        """How many people are trained on."""
        return int(self.labels.max()) + 1


def split_identities(images: ImageSet, recipe: Recipe) -> IdentitySplit:
    """Whom to train on and whom to validate on: the split val, or a share of the people.

    Raises:
        ValueError: there are no training images, one shows nobody, the split val shows people who
            are trained on, too few people are left, or what is validated on cannot be scored.
    """
    records: Sequence[Record] = images.records_in_splits("train")
    others: Sequence[Record] = []
    if recipe.eval_every and any(record.split == "val" for record in images.records):
        others = images.records_in_splits("val")
        _check_not_trained_on(pids_of(others), pids_of(records))
    elif recipe.eval_every:
        is_out = held_out_mask(pids_of(records), recipe.validation_share)
        others = [record for record, out in zip(records, is_out, strict=True) if out]
        records = [record for record, out in zip(records, is_out, strict=True) if not out]
    if recipe.eval_every:
        check_scorable(pids_of(others), camids_of(others))
    pids = pids_of(records).tolist()
    classes = label_map(pids)
    split = IdentitySplit(records, others, np.array([classes[pid] for pid in pids], np.int64))
    if split.num_classes < 2:
        raise ValueError(f"the data set has {split.num_classes} person to train on: 2 at least")
    check_identity_count(recipe, split.num_classes)
    return split


def held_out_mask(pids: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which images to validate on, (N,): those of a share of the people, the same in every run.

    Args:
        pids: (N,), whom the training images show.
        share: of the people, in 0 ... 1; rounded, but at least 2 are held out.

    Raises:
        ValueError: fewer than 2 people would be left to train on.
    """
    people = np.unique(pids)
    count = max(2, round(share * len(people)))
    if len(people) - count < 2:
        raise ValueError(
            f"{len(people)} training identities: holding out {count} of them for validation leaves"
            " fewer than 2 to train on"
        )
    drawn = np.random.default_rng(_HELD_OUT_SEED).permutation(people)[:count]
    return np.isin(pids, drawn)


def unseen_images_warning(labels: NDArray[np.int64], recipe: Recipe) -> str:
    """In words that an epoch leaves most images out, and which P would show more; empty if not."""
    if not recipe.forms_triplets:
        return ""
    sizes = {"identities": recipe.identities_per_batch, "images": recipe.images_per_identity}
    shown = share_of_epoch(labels, **sizes)
    if shown.share >= _LEAST_SHARE_SHOWN:
        return ""
    better = fuller_epoch(labels, **sizes)
    count = f"{shown.batches} batch{'es' * (shown.batches != 1)}"
    return (
        f"an epoch has {count} and shows {shown.share:.1%} of the {len(labels):,}"
        " images, as few people have most of them"
    ) + (
        f"; identities_per_batch={better.identities} would show {better.share:.1%}"
        if better.share > shown.share
        else ""
    )


def _check_not_trained_on(watched: NDArray[np.int64], learned: NDArray[np.int64]) -> None:
    """Raise ValueError if people to validate on are trained on: they would be found too well."""
    known = np.intersect1d(watched, learned)
    if len(known):
        raise ValueError(
            f"{len(known)} of {len(np.unique(watched))} people in split val are trained on, such as"
            f" {known[0]}: their score would tell nothing of others; validate on other people, or"
            " train with eval_every=0"
        )


def pids_of(records: Sequence[Record]) -> NDArray[np.int64]:
    """Whom the images show.

    Raises:
        ValueError: an image has no identity.
    """
    pids = [record.pid for record in records if record.pid is not None]
    if len(pids) < len(records):
        nobody = next(record.name for record in records if record.pid is None)
        raise ValueError(f"image {nobody} has no identity to learn")
    return np.array(pids, np.int64)


def check_scorable(pids: NDArray[np.int64], camids: NDArray[np.int64] | None) -> None:
    """Raise ValueError unless somebody can be found, and somebody else be taken for them.

    pids, camids: (N,), of the images to validate on; None where no camera is known.
    """
    people = np.unique(pids)
    if len(people) < 2:
        raise ValueError(
            f"{len(pids)} validation images show {len(people)} person: every answer would be right;"
            " at least 2 people are needed"
        )
    where = "" if camids is None else " by another camera"
    known = np.arange(len(pids)) if camids is None else camids
    views = np.unique(np.stack([pids, known], axis=1), axis=0)  # (views, 2)
    if np.unique(views[:, 0], return_counts=True)[1].max() < 2:
        raise ValueError(
            f"{len(pids)} validation images show nobody twice{where}, so there is no mAP of them:"
            " train with eval_every=0, or on a set with a split val that does"
        )


def camids_of(records: Sequence[Record]) -> NDArray[np.int64] | None:
    """Which cameras took the images; None unless every one is known."""
    camids = [record.camid for record in records if record.camid is not None]
    return np.array(camids, np.int64) if len(camids) == len(records) else None
