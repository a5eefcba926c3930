"""Multi-query (Zheng et al. 2015): all images of a person by one camera ask as one query.

Their features are averaged; for the cosine metric their directions are.

Shapes: N images, Q queries made of them, D dimensions.
"""

import numpy as np

from san_core.evaluation.labels import Labels
from san_core.evaluation.rows import Features, Rows


def pool(images: Rows, labels: Labels, *, metric: str) -> tuple[Features, Labels]:
    """The features (Q, D) and labels of queries made of images, in order of person and camera.

    Args:
        images: (N, D), those of the query split and more of the same people in the same cameras.
        labels: whom they show and which camera took them.
        metric: "euclidean" or "cosine", by which the queries will be compared.

    Raises:
        ValueError: cameras are unknown, or there are not as many labels as images.
    """
    if labels.camids is None:
        raise ValueError("multi-query pools a person's images by camera, but camids are unknown")
    if len(images) != len(labels.pids):
        raise ValueError(f"{len(images)} query features but {len(labels.pids)} query pids")
    pairs = np.stack([labels.pids, labels.camids], axis=1)
    asked, query = np.unique(pairs, axis=0, return_inverse=True)
    added = np.zeros((len(asked), images.matrix.shape[1]))
    features = images.take(0, len(images)).astype(np.float64)
    if metric == "cosine":
        features /= np.sqrt(images.squared_norms())[:, None]
    np.add.at(added, query.ravel(), features)
    mean = added / np.bincount(query.ravel())[:, None]
    return mean.astype(np.float32), Labels(asked[:, 0], asked[:, 1])
