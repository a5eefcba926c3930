"""Embed the images that evaluation needs."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from components.command.step import Input, Output
from components.storage.outputs import atomic_folder, scratch_folder

log = logging.getLogger(__name__)

BATCH = 64


def extract_features(
    dataset: Annotated[Path, Input("Dataset")],
    model: Annotated[Path, Input("Model")],
    features: Annotated[Path, Output("Dataset")],
    references: bool = False,
) -> None:
    """Embed the query and gallery images of a data set.

    Args:
        dataset: the person images, an image set
        model: the encoder, made by train_san
        features: features.npy (N, D) float32, index.csv naming the image of each row, and
            features.json with the sha256 of both
        references: whether to embed with the untrained encoder too, as untrained.npy
    """
    from components.process.machine import device
    from components.process.progress import track_progress
    from components.storage.staging import image_set_digest, open_image_set
    from components.training.inputs import PixelCache, initial_model
    from components.training.ranks import SINGLE_PROCESS
    from san_core.evaluation.feature_files import write_features
    from san_core.images.pixels import Pixels
    from san_core.inference.features import embed
    from san_core.model import weights

    loaded = weights.load_network(model)
    if not loaded.recipe.needs_identities:
        raise ValueError(f"{model} has learned no identities: it is a texture generator")
    if references and "seed" not in loaded.facts:
        raise ValueError(f"{model} tells no seed, which the untrained encoder is made from")
    with scratch_folder(features) as room, open_image_set(dataset) as images:
        records = images.records_in_splits("query", "gallery", "multi")
        pictures = PixelCache(room, loaded.recipe, SINGLE_PROCESS).decode_images(
            "images", images, records
        )

        def batches(what: str) -> Iterator[Pixels]:
            starts = range(0, len(pictures), BATCH)
            for start in track_progress(starts, total=len(starts), unit=f"batches, {what}"):
                yield pictures[start : start + BATCH]

        embedded = {"features": embed(loaded.model, batches("trained"), device=device())}
        if references:
            untrained = initial_model(
                loaded.recipe,
                num_classes=loaded.model.num_classes,
                seed=loaded.facts["seed"],
                folder=room,
            )
            embedded["untrained"] = embed(untrained, batches("untrained"), device=device())
    provenance = {
        "dataset": image_set_digest(dataset),
        "model": weights.fingerprint(model),
        "recipe": loaded.facts.get("recipe"),
        "seed": loaded.facts.get("seed"),
        # Compared as they were trained: by direction where the triplet saw directions alone.
        "metric": "cosine" if loaded.recipe.normalize_triplet else "euclidean",
    }
    with atomic_folder(features) as folder:
        write_features(folder, embedded, records, provenance=provenance)
    log.info("%d images, %d dimensions", *embedded["features"].shape)
