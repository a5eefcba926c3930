"""A score for a network in training: how well it finds people it does not train on.

Legend: N images, H W rows and columns.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from san_core.evaluation.labels import Ids, Labels
from san_core.evaluation.ranking import rank
from san_core.images.pixels import Pixels
from san_core.inference.features import embed
from san_core.model.san import SAN
from san_core.recipe import Recipe

_HELD_OUT_SEED = 4  # seed of the draw; none of a run's own, so that runs can be compared


def make_map_evaluator(
    images: Pixels, labels: Labels, recipe: Recipe, *, device: torch.device | str
) -> Callable[[SAN], float]:
    """What `fit` may take as `evaluate`: the mAP of validation images searched among themselves.

    The first image of every person and camera is a query, all others are the gallery; the protocol
    is that of `evaluation.ranking`, the distance the one the triplet is trained with.

    Args:
        images: (N, H, W, 3) RGB, of people who are not trained on; may be a memory map.
        labels: of the images; people from 1.
        recipe: of the network; its `normalize_triplet` decides the distance.
        device: where to embed.

    Raises:
        ValueError: the labels are not one an image, or no query has a right answer by the protocol.
    """
    if len(labels.pids) != len(images):
        raise ValueError(f"{len(labels.pids)} validation labels for {len(images)} images")
    asked, searched = _split_query_gallery(labels)
    if not _has_right_answer(labels, asked, searched):
        where = "" if labels.camids is None else " by another camera"
        raise ValueError(
            f"{len(images)} validation images show nobody twice{where}, so there is no mAP of them:"
            " train with eval_every=0, or on a set with a split val that does"
        )
    query, gallery = labels.take(asked), labels.take(searched)
    metric = "cosine" if recipe.normalize_triplet else "euclidean"

    def evaluate(model: SAN) -> float:
        found = embed(model, images, device=device)
        ranking = rank(found[asked], found[searched], query=query, gallery=gallery, metric=metric)
        return ranking.mAP

    return evaluate


def held_out_mask(pids: Ids, share: float) -> NDArray[np.bool_]:
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


def _split_query_gallery(labels: Labels) -> tuple[Ids, Ids]:
    """Rows of the queries and of the gallery."""
    cameras = np.zeros_like(labels.pids) if labels.camids is None else labels.camids
    seen = np.stack([labels.pids, cameras], axis=1)
    asked = np.sort(np.unique(seen, axis=0, return_index=True)[1])
    return asked, np.setdiff1d(np.arange(len(seen)), asked)


def _has_right_answer(labels: Labels, asked: Ids, searched: Ids) -> bool:
    """Whether a query of a known person has somebody right in the gallery, as `rank` judges it."""
    pids = labels.pids
    if labels.camids is None:
        return bool(np.isin(pids[asked], pids[searched][pids[searched] > 0]).any())
    cameras = labels.camids
    for query in asked[pids[asked] > 0]:
        same = searched[pids[searched] == pids[query]]
        if (cameras[same] != cameras[query]).any():
            return True
    return False
