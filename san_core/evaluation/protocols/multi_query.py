"""Multi-query (Zheng et al. 2015): all images of a person by one camera form one query.

Their features are averaged; for the cosine metric, their directions.

Shapes: N images, Q queries made of them, D dimensions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation.kernels.rows import FeatureError, Features, Rows
from san_core.evaluation.labels import Ids, Labels

# Images read at once.
_BLOCK = 1024


class PooledQueries(NamedTuple):
    """Pooled queries: features (Q, D) and labels."""

    features: Features
    query: Labels


def pool_queries(images: Rows, labels: Labels, *, query: Labels, metric: str) -> PooledQueries:
    """One query for each combination of person and camera in `query`, in order.

    Args:
        images: (N, D), of the query split and more. Images whose person and camera no query has are
            ignored.
        labels: their people and cameras.
        query: labels of the query split.
        metric: "euclidean" or "cosine", by which the queries will be compared.

    Raises:
        ValueError: cameras are unknown, the numbers of labels and images differ, or a query has no
            image.
        FeatureError: one is not finite.
    """
    check_cameras_known(labels, query)
    assert labels.camids is not None
    assert query.camids is not None
    if len(images) != len(labels.pids):
        raise ValueError(f"{len(images)} query features but {len(labels.pids)} query pids")
    asked = np.unique(np.stack([query.pids, query.camids], axis=1), axis=0)  # (Q, 2)
    places = {(pid, camid): place for place, (pid, camid) in enumerate(asked.tolist())}
    of = zip(labels.pids.tolist(), labels.camids.tolist(), strict=True)
    place = np.array([places.get(pair, -1) for pair in of], np.int64)  # (N,)
    wanted = np.flatnonzero(place >= 0)
    if absent := set(range(len(asked))) - set(place[wanted].tolist()):
        pid, camid = asked[min(absent)]
        raise ValueError(f"no image to be pooled shows person {pid} in camera {camid}, as a query")
    means = _mean_features(images.subset(wanted), place[wanted], len(asked), metric)
    return PooledQueries(means, Labels(asked[:, 0], asked[:, 1]))


def check_cameras_known(*of: Labels) -> None:
    """Check that images can be pooled by camera.

    Raises:
        ValueError: cameras are unknown.
    """
    if any(labels.camids is None for labels in of):
        raise ValueError("multi-query pools a person's images by camera, but camids are unknown")


def _mean_features(images: Rows, place: Ids, num_query: int, metric: str) -> Features:
    """The mean feature (num_query, D) of each query's images, read some at a time."""
    added = np.zeros((num_query, images.matrix.shape[1]))
    for start in range(0, len(images), _BLOCK):
        part = slice(start, start + _BLOCK)
        features = images.read_range(part.start, part.stop).astype(np.float64)
        lengths = np.linalg.norm(features, axis=1)
        _check_finite(lengths, start)
        if metric == "cosine":
            features /= np.where(lengths > 0, lengths, 1)[:, None]
        np.add.at(added, place[part], features)
    mean: Features = (added / np.bincount(place)[:, None]).astype(np.float32)
    return mean


def _check_finite(lengths: NDArray[np.float64], start: int) -> None:
    """Check the features from `start` on, so that none is hidden in a mean."""
    sound = np.isfinite(lengths)
    if not sound.all():
        raise FeatureError("pooled", start + int(np.argmin(sound)), "not finite")
