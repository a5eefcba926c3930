"""Features of a gallery, computed once and stored beside it, in a folder named by their inputs.

Features of other code stay: two environments that search the same gallery would otherwise delete
each other's, and embed it again at every search.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.inference.embedding import decoded_batches
from components.inference.pictures import Pictures
from components.process.messages import printable
from components.storage.outputs import atomic_folder
from components.storage.places import is_remote, local_path
from components.storage.staging import cache_folder, lock_folder
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
    """The folder for features of a gallery: beside it, or in the cache if that is not writable.

    Raises:
        FileNotFoundError: the cache is needed, and there is none.
    """
    if not is_remote(gallery):
        path = local_path(gallery).absolute()
        if path.name and os.access(path.parent, os.W_OK | os.X_OK):
            return path.with_name(f"{path.name}.features")
    return cache_folder() / "features"


def gallery_features(
    pictures: Pictures,
    network: Network,
    model_sha256: str,
    *,
    code: Sequence[str],
    mirrored: bool,
    under: Path,
) -> KeptFeatures:
    """The features of a gallery: stored ones, or new ones, which are then stored.

    One process at a time computes them; another that needs the same features waits.

    Args:
        pictures: the gallery.
        network: the encoder.
        model_sha256: sha256 of its weights file.
        code: digests of the code that embeds, and versions of its libraries.
        mirrored: whether features are averaged with those of the mirrored images.
        under: the folder for all stored features.

    Raises:
        OSError: there is no disk space for them.
        ValueError: a picture is damaged.
    """
    made_of = {
        "model": model_sha256,
        "mirrored": mirrored,
        "images": pictures.fingerprint,
        "code": code,
    }
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:_KEY_DIGITS]
    folder, count = under / key, len(pictures.names)
    with suppress(FileNotFoundError, ValueError):  # even if the folder is no longer writable
        return KeptFeatures(map_features(folder, count), folder, is_reused=True)
    with lock_folder(folder):
        is_reused = _is_whole(folder, count)  # another process may have stored them meanwhile
        if not is_reused:
            log.info(
                "embedding %d pictures; their features are stored in %s",
                count,
                printable(str(folder)),
            )
            batches = embed_pictures(pictures, network, mirrored=mirrored)
            told = {**made_of, "metric": network.recipe.metric, "dataset": ""}
            _write_features(folder, batches, pictures.names, told)
        return KeptFeatures(map_features(folder, count), folder, is_reused)


def _is_whole(folder: Path, count: int) -> bool:
    """Whether a folder has undamaged features; damaged ones cause a warning."""
    if not (folder / FEATURES_FILE).is_file():
        return False
    try:
        map_features(folder, count)
    except (FileNotFoundError, ValueError) as error:
        why = "a file is missing" if isinstance(error, FileNotFoundError) else error
        log.warning(
            "features in %s are damaged and are computed again: %s", printable(str(folder)), why
        )
        return False
    return True


def _write_features(
    folder: Path,
    batches: Iterator[NDArray[np.float32]],
    names: Sequence[str],
    provenance: Mapping[str, Any],
) -> None:
    """Store the features of pictures in a folder."""
    first = next(batches)
    with atomic_folder(folder) as made:
        rows, dim = chain([first], batches), first.shape[1]
        write_named_features(made, rows, names, dim=dim, provenance=provenance)


def embed_pictures(
    pictures: Pictures, network: Network, *, mirrored: bool
) -> Iterator[NDArray[np.float32]]:
    """Features of all pictures of a place, batch by batch."""
    files = pictures.open_files(range(len(pictures.names)))
    batches = decoded_batches(files, network.recipe.image_size)
    return network.stream_embeddings(batches, mirrored=mirrored)
