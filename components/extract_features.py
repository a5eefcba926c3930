"""Embed the images that evaluation needs."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from components.command.step import Input, Output
from components.process.scratch import temporary_folder
from components.storage.outputs import atomic_folder

if TYPE_CHECKING:
    from san_core.data.trained_on import SeenInTraining
    from san_core.images.imageset import ImageSet
    from san_core.images.pixels import Pixels
    from san_core.images.shard import Record
    from san_core.recipe import Recipe

log = logging.getLogger(__name__)

BATCH = 64


def extract_features(
    dataset: Annotated[Path, Input("Dataset")],
    model: Annotated[Path, Input("Model")],
    features: Annotated[Path, Output("Dataset")],
    references: bool = False,
    mirrored: str = "auto",
) -> None:
    """Embed the query and gallery images of a data set.

    Args:
        dataset: the person images, an image set
        model: the encoder, made by train_san
        features: features.npy (N, D) float32, index.csv naming the image of each row, and
            features.json with the sha256 of both
        references: whether to embed with the untrained encoder too, as untrained.npy
        mirrored: whether features are averaged with those of the mirrored images: true, false, or
            auto for what the model's recipe says
    """
    import numpy as np

    from components.process.machine import device
    from components.storage.staging import image_set_digest, open_image_records, open_image_set
    from components.training.inputs import initial_model
    from san_core.evaluation.feature_files import write_features
    from san_core.inference.features import stream_embeddings
    from san_core.model import weights

    loaded = weights.load_network(model)
    if not loaded.recipe.needs_identities:
        raise ValueError(f"{model} has learned no identities: it is a texture generator")
    if references and "seed" not in loaded.facts:
        raise ValueError(f"{model} tells no seed, which the untrained encoder is made from")
    with open_image_records(dataset) as index:
        records = index.records_in_splits("query", "gallery", "multi")
        seen = _seen_in_training(loaded.facts, records, index.manifest["provenance"], model)
    is_mirrored = _averages_mirrored(mirrored, loaded.recipe)
    networks = {"features": loaded.model}
    if references:
        with temporary_folder() as room:
            networks["untrained"] = initial_model(
                loaded.recipe,
                num_classes=loaded.model.num_classes,
                seed=loaded.facts["seed"],
                folder=room,
            )
    with open_image_set(dataset, shards=records.shards()) as images:
        batches = _decoded_batches(images, records, loaded.recipe.image_size)
        streams = [
            stream_embeddings(network, copy, mirrored=is_mirrored, device=device())
            for network, copy in zip(networks.values(), tee(batches, len(networks)), strict=True)
        ]
        columns = zip(*zip(*streams, strict=True), strict=True)  # batch by batch, all networks
        embedded = {name: np.concatenate(one) for name, one in zip(networks, columns, strict=True)}
    provenance = {
        "dataset": image_set_digest(dataset),
        "model": weights.fingerprint(model),
        "recipe": loaded.facts.get("recipe"),
        "seed": loaded.facts.get("seed"),
        # Compared as they were trained: by direction where the triplet saw directions alone.
        "metric": loaded.recipe.metric,
        **({} if seen is None else {"seen_in_training": seen}),
        "mirrored": is_mirrored,
    }
    with atomic_folder(features) as folder:
        write_features(folder, embedded, records, provenance=provenance)
    log.info("%d images, %d dimensions", *embedded["features"].shape)


def _seen_in_training(
    facts: "Mapping[str, Any]",
    records: "Sequence[Record]",
    provenance: "Mapping[str, Any]",
    model: Path,
) -> "SeenInTraining | None":
    """How many of the images to embed, and of their people, a model was trained on, with a warning.

    None where the model, of an older version, does not tell.
    """
    from san_core.data.trained_on import count_seen, seen_in_words

    if "trained_on" not in facts:
        log.warning("%s does not tell whom it was trained on: they may be among these", model)
        return None
    seen = count_seen(facts["trained_on"], records, provenance)
    if told := seen_in_words(seen):
        log.warning("the model was %s: its scores will be too good", told)
    return seen


def _averages_mirrored(word: str, recipe: "Recipe") -> bool:
    """Whether features are averaged with those of mirrored images.

    Raises:
        ValueError: the word is none of auto, true and false.
    """
    from san_core.recipe import check_mirrored

    check_mirrored(word)
    return recipe.mirrored if word == "auto" else word == "true"


def _decoded_batches(
    images: "ImageSet", records: "Sequence[Record]", size: tuple[int, int]
) -> "Iterator[Pixels]":
    """Images at a size, BATCH at a time (B, H, W, 3); the next are decoded meanwhile."""
    import numpy as np

    from components.process.machine import core_count
    from components.process.progress import track_progress
    from components.process.threads import map_bounded, thread_pool
    from san_core.images.pixels import decode, resize

    def decode_image(record: "Record") -> "Pixels":
        return resize(decode(images.read(record), name=record.name), size)

    with thread_pool(core_count()) as pool:
        decoded = map_bounded(pool, decode_image, records, ahead=2 * BATCH)
        shown = track_progress(decoded, total=len(records), unit="images")
        while batch := list(islice(shown, BATCH)):
            yield np.stack(batch)
