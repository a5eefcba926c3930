"""Features as a trained network makes them, without one: the sizes of three data sets.

A person is a random direction; an image is that direction plus noise, whose strength varies from
image to image as the quality of photographs does, and of unit length. The strength sets the mAP.
Distractors (pid 0) are strangers of a few images each. Junk (pid -1) are bad crops of the people
asked for, with twice the noise: near to the queries, though nobody's answer. Numbers of people,
images, cameras, distractors and junk are those of the data sets.
"""

from typing import NamedTuple

import numpy as np

from san_core.evaluation.kernels.rows import Features
from san_core.evaluation.labels import Labels

# Images of a stranger among the distractors.
_IMAGES_PER_STRANGER = 4


class GallerySize(NamedTuple):
    """How many of what a data set's test part has; distractors and junk are in the gallery."""

    people: int
    queries: int
    gallery: int
    cameras: int
    distractors: int = 0
    junk: int = 0


CUHK03 = GallerySize(people=700, queries=1400, gallery=5332, cameras=2)
# Without junk, as peers read it, whose matrix of distances is 3,368 x 15,913; and with it.
MARKET1501 = GallerySize(people=750, queries=3368, gallery=15913, cameras=6, distractors=2793)
MARKET1501_JUNK = MARKET1501._replace(gallery=19732, junk=3819)
MSMT17 = GallerySize(people=3060, queries=11659, gallery=82161, cameras=15)


class QueryGallery(NamedTuple):
    """Features (Q, D) and (G, D) float32 of unit length, and labels."""

    query_features: Features
    gallery_features: Features
    query: Labels
    gallery: Labels


def random_features(
    size: GallerySize, *, noise: float, dim: int = 512, seed: int = 0
) -> QueryGallery:
    """Queries and a gallery of a data set's size; the more noise, the lower the mAP."""
    rng = np.random.default_rng(seed)
    strangers = -(-size.distractors // _IMAGES_PER_STRANGER)
    centres = rng.standard_normal((size.people + strangers, dim), np.float32)
    asked = np.arange(size.queries) % size.people
    known = np.arange(size.gallery - size.distractors - size.junk) % size.people
    strange = size.people + np.arange(size.distractors) // _IMAGES_PER_STRANGER
    spoilt = rng.integers(0, size.people, size.junk)
    # Whom gallery images show, and the pids they bear.
    shown = np.concatenate([known, strange, spoilt])
    pids = np.concatenate([known + 1, np.zeros_like(strange), np.full_like(spoilt, -1)])
    order = rng.permutation(size.gallery)
    shown, pids = shown[order], pids[order]
    query, gallery = (
        Labels(each, rng.integers(0, size.cameras, len(each))) for each in (asked + 1, pids)
    )
    return QueryGallery(
        _features(rng, centres[asked], np.full(size.queries, noise)),
        _features(rng, centres[shown], np.where(pids == -1, 2 * noise, noise)),
        query,
        gallery,
    )


def _features(rng: np.random.Generator, centres: Features, noise: np.ndarray) -> Features:
    """Centres (N, D) and noise of these strengths, of unit length; `centres` is written over."""
    strength = (noise * rng.gamma(4, 1 / 4, len(centres))).astype(np.float32)
    for start in range(0, len(centres), 4096):
        part = centres[start : start + 4096]
        part += strength[start : start + 4096, None] * rng.standard_normal(part.shape, np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return centres
