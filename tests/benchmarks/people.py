"""Features as a trained network makes them, without one: the sizes of three data sets.

A person is a random direction; an image is that direction plus noise, whose strength varies from
image to image as the quality of photographs does, and of unit length. The strength sets the mAP.
Numbers of people, images, cameras and distractors are those of the data sets.
"""

from typing import NamedTuple

import numpy as np

from san_core.evaluation.labels import Labels
from san_core.evaluation.rows import Features


class Size(NamedTuple):
    """How many of what a data set's test part has."""

    people: int
    queries: int
    gallery: int
    cameras: int
    distractors: int


CUHK03 = Size(people=700, queries=1400, gallery=5332, cameras=2, distractors=0)
MARKET1501 = Size(people=750, queries=3368, gallery=15913, cameras=6, distractors=2793)
MSMT17 = Size(people=3060, queries=11659, gallery=82161, cameras=15, distractors=0)


class People(NamedTuple):
    """Features (Q, D) and (G, D) float32 of unit length, and labels."""

    query_features: Features
    gallery_features: Features
    query: Labels
    gallery: Labels


def people(size: Size, *, noise: float, dim: int = 512, seed: int = 0) -> People:
    """Queries and a gallery of a data set's size; the more noise, the lower the mAP."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((size.people + 1, dim), np.float32)  # nobody is person 0
    of_query = 1 + np.arange(size.queries) % size.people
    of_gallery = np.concatenate(
        [
            np.zeros(size.distractors, np.int64),
            1 + np.arange(size.gallery - size.distractors) % size.people,
        ]
    )
    rng.shuffle(of_gallery)
    query, gallery = (
        Labels(pids, rng.integers(0, size.cameras, len(pids))) for pids in (of_query, of_gallery)
    )
    return People(
        _features(rng, centres, query.pids, noise),
        _features(rng, centres, gallery.pids, noise),
        query,
        gallery,
    )


def _features(
    rng: np.random.Generator, centres: Features, pids: np.ndarray, noise: float
) -> Features:
    dim = centres.shape[1]
    features = rng.standard_normal((len(pids), dim), np.float32)
    features *= np.float32(noise) * rng.gamma(4, 1 / 4, (len(pids), 1)).astype(np.float32)
    known = pids > 0
    features[known] += centres[pids[known]]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features
