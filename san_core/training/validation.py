"""A score for a network in training: how well it finds people it does not train on.

Legend: N images, H W rows and columns.
"""

from collections.abc import Callable

import numpy as np
import torch

from san_core.data.batches.identities import check_scorable
from san_core.evaluation.labels import Ids, Labels, check_labels
from san_core.evaluation.ranking import rank
from san_core.images.pixels import Pixels
from san_core.inference.features import embed
from san_core.model.san import SAN
from san_core.recipe import Recipe


def make_map_evaluator(
    images: Pixels, labels: Labels, recipe: Recipe, *, device: torch.device | str
) -> Callable[[SAN], float]:
    """What `fit` may take as `evaluate`: the mAP of validation images searched among themselves.

    The first image of every person and camera is a query, and all images are the gallery. A query
    leaves out itself and what else its own camera took of its person, as `evaluation.ranking` does;
    where no camera is known, itself alone. The distance is the one the triplet is trained with.

    Args:
        images: (N, H, W, 3) RGB, of people who are not trained on; may be a memory map.
        labels: of the images; people from 1.
        recipe: of the network; decides the distance, and whether mirrored images count too.
        device: where to embed.

    Raises:
        ValueError: the labels are not one an image, no query has a right answer by the protocol, or
            none has a wrong one.
    """
    if len(labels.pids) != len(images):
        raise ValueError(f"{len(labels.pids)} validation labels for {len(images)} images")
    check_scorable(labels.pids, labels.camids)
    check_labels(labels, labels)
    queries = _first_of_person_and_camera(labels)
    # An image that alone has its camera is what a query of it leaves out.
    gallery = labels._replace(camids=np.arange(len(images))) if labels.camids is None else labels
    query, metric = gallery.take(queries), recipe.metric

    def evaluate(model: SAN) -> float:
        found = embed(model, images, mirrored=recipe.mirrored, device=device)
        return rank(found[queries], found, query=query, gallery=gallery, metric=metric, top_k=0).mAP

    return evaluate


def _first_of_person_and_camera(labels: Labels) -> Ids:
    """Rows of the first image of every person and camera, ascending."""
    cameras = np.zeros_like(labels.pids) if labels.camids is None else labels.camids
    seen = np.stack([labels.pids, cameras], axis=1)
    return np.sort(np.unique(seen, axis=0, return_index=True)[1])
