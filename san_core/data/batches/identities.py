"""Which identities are for training and which for validation; needs no torch and no images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from san_core.data.batches.cache import label_map
from san_core.data.batches.sampler import count_identity_batches, fuller_epoch, share_of_epoch
from san_core.data.batches.training_data import check_identity_count
from san_core.data.names import place_of_name
from san_core.data.records import person_name
from san_core.images.imageset import ImageSet
from san_core.images.shard import Record
from san_core.recipe import Recipe

FEW_PEOPLE, FEW_QUERIES = 20, 100  # for validation; with fewer, scores are uncertain
_LEAST_SHARE_SHOWN = 0.5  # of the images; below it, a warning is given


@dataclass(frozen=True)
class IdentitySplit:
    """The images of a data set that training uses."""

    train_records: Sequence[Record]
    validation_records: Sequence[Record]  # empty where the recipe does not validate
    labels: NDArray[np.int64]  # of `train_records`, classes 0 ... C-1

    @property
    def num_classes(self) -> int:
        """The number of training identities."""
        return int(self.labels.max()) + 1


def split_identities(images: ImageSet, recipe: Recipe) -> IdentitySplit:
    """The training and the validation images: those of split val, or of a share of the identities.

    Raises:
        ValueError: there are no training images; an image has no identity; split val has training
            identities; too few identities are left; the validation images cannot be scored; or the
            recipe asks for another validation_draw although there is a split val.
    """
    records: Sequence[Record] = images.records_in_splits("train")
    others: Sequence[Record] = []
    if recipe.eval_every and any(record.split == "val" for record in images.records):
        if recipe.validation_draw:
            raise ValueError(
                f"the data have a split val, so validation_draw={recipe.validation_draw} would have"
                " no effect"
            )
        others = images.records_in_splits("val")
        _check_not_trained_on(pids_of(others), pids_of(records))
    elif recipe.eval_every:
        is_out = held_out_mask(records, recipe.validation_share, draw=recipe.validation_draw)
        others = [record for record, out in zip(records, is_out, strict=True) if out]
        records = [record for record, out in zip(records, is_out, strict=True) if not out]
    if recipe.eval_every:
        check_scorable(pids_of(others), camids_of(others))
    pids = pids_of(records).tolist()
    classes = label_map(pids)
    split = IdentitySplit(records, others, np.array([classes[pid] for pid in pids], np.int64))
    if split.num_classes < 2:
        raise ValueError(
            f"the data set has {split.num_classes} identity to train on; at least 2 are needed"
        )
    check_identity_count(recipe, split.num_classes)
    return split


def held_out_mask(records: Sequence[Record], share: float, *, draw: int = 0) -> NDArray[np.bool_]:
    """The validation images, (N,) bool: those of identities whose names fall under a share.

    They are the same in every run, and when a data set grows.

    Args:
        records: the training images.
        share: of the people, in 0 ... 1; at least 2 are held out, and 2 are left to train on.
        draw: the number of the draw; each gives names other places.

    Raises:
        ValueError: there are fewer than 4 people.
    """
    pids = pids_of(records)
    names = dict(zip(pids.tolist(), map(person_name, records), strict=True))
    places = {pid: place_of_name(name, f"validation {draw}") for pid, name in names.items()}
    order = sorted(places, key=lambda pid: (places[pid], pid))
    if len(order) < 4:
        raise ValueError(
            f"{len(order)} training identities: holding out 2 of them for validation leaves"
            " fewer than 2 to train on"
        )
    count = min(max(2, sum(place < share for place in places.values())), len(order) - 2)
    return np.isin(pids, order[:count])


def validation_queries(
    pids: NDArray[np.int64], camids: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Rows of the first image of every person and camera, for people whom another camera saw.

    Without known cameras: of every person with two images.
    """
    known = np.arange(len(pids)) if camids is None else camids
    views = np.unique(np.stack([pids, known], axis=1), axis=0)[:, 0]
    people, count = np.unique(views, return_counts=True)
    cameras = np.zeros_like(pids) if camids is None else camids
    first = np.unique(np.stack([pids, cameras], axis=1), axis=0, return_index=True)[1]
    return np.sort(first[np.isin(pids[first], people[count > 1])])


def few_validated_warning(records: Sequence[Record]) -> str:
    """A warning that there are few validation identities or queries; empty if there are enough."""
    if not records:
        return ""
    pids = pids_of(records)
    queries = validation_queries(pids, camids_of(records))
    people = len(np.unique(pids[queries]))
    if people >= FEW_PEOPLE and len(queries) >= FEW_QUERIES:
        return ""
    return (
        f"validation has {len(queries)} queries of {people} identities, and fewer than"
        f" {FEW_QUERIES} or {FEW_PEOPLE} give an uncertain score: read its interval. A larger "
        "validation_share holds out more identities, and validation_draw=1, 2, ... holds out "
        "others"
    )


def unseen_images_warning(labels: NDArray[np.int64], recipe: Recipe) -> str:
    """A warning that an epoch leaves most images out, and which P uses more; else empty."""
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
        " images, because a few identities have most of them"
    ) + (
        f"; identities_per_batch={better.identities} would show {better.share:.1%}"
        if better.share > shown.share
        else ""
    )


def rare_textures_warning(labels: NDArray[np.int64], recipe: Recipe) -> str:
    """A warning that no batch after the first has texture losses; empty if others have.

    labels: of the images to train on, (N,).
    """
    if recipe.texture_every == 1 or not recipe.needs_decoder:
        return ""
    if recipe.forms_triplets:
        batches = count_identity_batches(
            labels, identities=recipe.identities_per_batch, images=recipe.images_per_identity
        )
    else:
        batches = max(1, len(labels) // recipe.batch_size)
    batches *= min(recipe.epochs, recipe.texture_epochs or recipe.epochs)
    if recipe.texture_every < batches:
        return ""
    told = "texture_epochs have" if recipe.texture_epochs else "training has"
    return (
        f"texture_every={recipe.texture_every} leaves texture losses to the first batch alone: the"
        f" {told} {batches:,}"
    )


def _check_not_trained_on(watched: NDArray[np.int64], learned: NDArray[np.int64]) -> None:
    """Raise ValueError if validation identities are trained on: their score would be too high."""
    known = np.intersect1d(watched, learned)
    if len(known):
        raise ValueError(
            f"{len(known)} of {len(np.unique(watched))} identities in split val are trained on,"
            f" such as {known[0]}: the score would say nothing about unseen people. Validate on "
            "other identities, or set eval_every=0"
        )


def pids_of(records: Sequence[Record]) -> NDArray[np.int64]:
    """The identities of the images.

    Raises:
        ValueError: an image has no identity.
    """
    pids = [record.pid for record in records if record.pid is not None]
    if len(pids) < len(records):
        nobody = next(record.name for record in records if record.pid is None)
        raise ValueError(f"image {nobody} has no identity to learn")
    return np.array(pids, np.int64)


def check_scorable(pids: NDArray[np.int64], camids: NDArray[np.int64] | None) -> None:
    """Raise ValueError unless a query can have a right answer and a wrong one.

    pids, camids: (N,), of the validation images; camids is None if cameras are unknown.
    """
    people = np.unique(pids)
    if len(people) < 2:
        raise ValueError(
            f"{len(pids)} validation images show {len(people)} identity: every answer would be"
            " right; at least 2 are needed"
        )
    where = "" if camids is None else " by another camera"
    known = np.arange(len(pids)) if camids is None else camids
    views = np.unique(np.stack([pids, known], axis=1), axis=0)  # (views, 2)
    if np.unique(views[:, 0], return_counts=True)[1].max() < 2:
        raise ValueError(
            f"{len(pids)} validation images show no identity twice{where}, so they have no mAP: "
            "set eval_every=0, or use a data set whose split val has such pairs"
        )


def camids_of(records: Sequence[Record]) -> NDArray[np.int64] | None:
    """The cameras of the images; None unless all are known."""
    camids = [record.camid for record in records if record.camid is not None]
    return np.array(camids, np.int64) if len(camids) == len(records) else None
