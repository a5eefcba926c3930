"""Features of a gallery, made once: they are kept beside it, under what they were made of."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.inference.embedding import decoded_batches
from components.inference.pictures import Pictures
from components.storage.outputs import atomic_folder
from components.storage.places import is_remote, local_path
from components.storage.staging import cache_folder
from san_core.evaluation.feature_files import (
    FEATURES_FILE,
    map_features,
    write_named_features,
)
from san_core.inference.network import Network

log = logging.getLogger(__name__)

_KEY_DIGITS = 16


class KeptFeatures(NamedTuple):
    """Features of all pictures of a gallery, (N, D) float32, a memory map, and their folder."""

    features: NDArray[np.float32]
    folder: Path
    is_reused: bool


def features_folder(gallery: str) -> Path:
    """Where the features of a gallery are kept: beside it, or in the cache where none may write.

    Raises:
        FileNotFoundError: the cache is needed, and there is none.
    """
    if not is_remote(gallery):
        path = local_path(gallery).absolute()
        if path.name and os.access(path.parent, os.W_OK | os.X_OK):
            return path.with_name(f"{path.name}.features")
    return cache_folder() / "features"


def gallery_features(
    pictures: Pictures, network: Network, model_sha256: str, *, mirrored: bool, under: Path
) -> KeptFeatures:
    """The features of a gallery: those that are kept, or new ones, which are kept then.

    Args:
        pictures: the gallery.
        network: the encoder.
        model_sha256: of the file that its weights were read from.
        mirrored: whether features are averaged with those of the mirrored images.
        under: the folder of all that are kept.

    Raises:
        OSError: there is no room for them.
        ValueError: those that are kept are damaged, or a picture is.
    """
    made_of = {"model": model_sha256, "mirrored": mirrored, "images": pictures.fingerprint}
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:_KEY_DIGITS]
    folder, count = under / key, len(pictures.names)
    is_kept = (folder / FEATURES_FILE).is_file()
    if not is_kept:
        log.info("embedding %d pictures; their features are kept in %s", count, folder)
        batches = embed_pictures(pictures, network, mirrored=mirrored)
        first = next(batches)
        with atomic_folder(folder) as made:
            write_named_features(
                made,
                chain([first], batches),
                pictures.names,
                dim=first.shape[1],
                provenance={**made_of, "metric": network.recipe.metric, "dataset": ""},
            )
    return KeptFeatures(map_features(folder, count), folder, is_kept)


def embed_pictures(
    pictures: Pictures, network: Network, *, mirrored: bool
) -> Iterator[NDArray[np.float32]]:
    """Features of all pictures of a place, batch by batch."""
    files = pictures.open_files(range(len(pictures.names)))
    batches = decoded_batches(files, network.recipe.image_size)
    return network.stream_embeddings(batches, mirrored=mirrored)
