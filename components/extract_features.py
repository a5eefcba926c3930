"""Embed images: those that an evaluation needs, or any others."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import tee
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from components.command.step import Input, Output
from components.process.scratch import temporary_folder
from components.storage.outputs import atomic_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from san_core.data.trained_on import SeenInTraining
    from san_core.images.imageset import ImageSet
    from san_core.images.index import Records
    from san_core.images.shard import Record
    from san_core.inference.network import Network
    from san_core.recipe import Recipe

log = logging.getLogger(__name__)


def extract_features(
    dataset: Annotated[Path, Input("Dataset")],
    model: Annotated[Path, Input("Model")],
    features: Annotated[Path, Output("Dataset")],
    splits: str = "query,gallery,multi",
    references: bool = False,
    mirrored: str = "auto",
    worker: str = "0/1",
    feature_parts: str = "none",
) -> None:
    """Embed images of a data set: those that an evaluation needs, or any others.

    Args:
        dataset: the person images, an image set
        model: the encoder, made by train_san, or an ONNX file of it
        features: features.npy (N, D) float32, index.csv with the image name of each row, and
            features.json with the sha256 of both
        splits: splits to embed, separated by commas without spaces: query,gallery,multi are those
            that an evaluation needs, images are photographs without identities, all is every image
        references: whether to embed with the untrained encoder too, into untrained.npy
        mirrored: whether to average each image's features with those of the mirrored image: true,
            false, or auto for the choice of the model's recipe
        worker: "i/n" is worker i of n, counted from 0, which embeds the i-th of n ranges of the
            images; seal_features joins the ranges. "/n" reads i from JOB_COMPLETION_INDEX, which an
            indexed Kubernetes Job sets
        feature_parts: folder or URI in which all workers store their features for seal_features; a
            restarted worker reuses what it has finished; on Kubeflow, empty is san-features in the
            pipeline root; none stores nothing there
    """
    import numpy as np

    from components.command.code import code_fingerprint
    from components.inference import worker_parts
    from components.inference.embedding import BATCH, decoded_batches, encoded_images
    from components.inference.lazy_sequence import LazySequence
    from components.inference.networks import averages_mirrored, open_encoder
    from components.process.machine import worker_of_pod
    from components.storage.staging import image_set_digest, open_image_records, open_image_set
    from components.storage.transfer import send_artifact
    from san_core.evaluation.feature_files import write_features
    from san_core.evaluation.feature_parts import Part
    from san_core.images.texture_set import parse_worker
    from san_core.model.saved import fingerprint

    part = Part(*parse_worker(worker_of_pod(worker)))
    network = open_encoder(model)
    if references:
        _check_references(network, model)
    with open_image_records(dataset) as index:
        chosen = _chosen_records(index, splits)
        seen = _seen_in_training(network.facts, chosen, index.manifest["provenance"], model)
    records, told, kept_at = chosen, {}, ""
    if part.workers > 1 or feature_parts:
        records = chosen[part.rows(len(chosen), batch=BATCH)]
        told = {"part": part.told(LazySequence(chosen, attrgetter("name")))}
    if feature_parts:
        settings = worker_parts.FeatureSettings(splits, references, mirrored)
        code = code_fingerprint("components.extract_features", with_pages=False)
        folder_of_all = worker_parts.parts_folder(dataset, model, settings, code=code)
        kept_at = worker_parts.place_of_part(feature_parts, folder_of_all, told["part"])
        if worker_parts.take_finished_part(kept_at, features, told["part"]):
            return
    is_mirrored = averages_mirrored(mirrored, network)
    networks = {"features": network.stream_embeddings}
    if references:
        networks["untrained"] = _untrained_embeddings(network)
    with open_image_set(dataset, shards=records.shards()) as images:
        files = encoded_images(images, records)
        batches = decoded_batches(files, network.recipe.image_size)
        streams = [
            stream(copy, mirrored=is_mirrored)
            for stream, copy in zip(networks.values(), tee(batches, len(networks)), strict=True)
        ]
        columns = zip(*zip(*streams, strict=True), strict=True)  # batch by batch, all networks
        embedded = {name: np.concatenate(one) for name, one in zip(networks, columns, strict=True)}
    provenance = {
        "dataset": image_set_digest(dataset),
        "model": network.weights_sha256,
        **({"onnx": fingerprint(model)} if network.is_onnx else {}),
        "recipe": network.facts.get("recipe"),
        "overrides": _overrides_in_words(network.facts.get("recipe"), network.recipe),
        "seed": network.facts.get("seed"),
        # Features are compared as in training: by cosine if the triplet loss normalised them.
        "metric": network.recipe.metric,
        **({} if seen is None else {"seen_in_training": seen}),
        "mirrored": is_mirrored,
        **told,
    }
    with atomic_folder(features) as folder:
        write_features(folder, embedded, records, provenance=provenance)
    if kept_at:
        send_artifact(features, kept_at)
    log.info("%d images, %d dimensions", *embedded["features"].shape)


def _chosen_records(index: "ImageSet", splits: str) -> "Records":
    """The images of some splits.

    Raises:
        ValueError: a split is unknown or has no images.
    """
    from san_core.images.shard import SPLITS

    if splits == "all":
        return index.records
    words = splits.split(",")
    for word in words:
        if word not in SPLITS:
            raise ValueError(f"splits {splits!r}: {word!r} is not one of {', '.join(SPLITS)}, all")
    return index.records_in_splits(*words)


def _check_references(network: "Network", model: Path) -> None:
    """Raise ValueError if the untrained encoder of a network cannot be made."""
    if network.is_onnx:
        raise ValueError(
            f"{model} is an ONNX file, which has no untrained encoder; --references needs the"
            " folder of the model"
        )
    if "seed" not in network.facts:
        raise ValueError(f"{model} records no seed, which --references needs")


def _untrained_embeddings(network: "Network") -> "Callable[..., Iterator[NDArray[np.float32]]]":
    """A function that embeds with the untrained encoder of a network."""
    from components.process.machine import device
    from components.training.inputs import initial_model
    from san_core.inference.features import stream_embeddings

    with temporary_folder() as room:
        untrained = initial_model(
            network.recipe,
            num_classes=network.facts["num_classes"],
            seed=network.facts["seed"],
            folder=room,
        )
    return partial(stream_embeddings, untrained, device=device())


def _seen_in_training(
    facts: "Mapping[str, Any]",
    records: "Sequence[Record]",
    provenance: "Mapping[str, Any]",
    model: Path,
) -> "SeenInTraining | None":
    """The numbers of images to embed, and of their people, that a model was trained on.

    Warns if there are any. None if the model is of an older version, which does not record it.
    """
    from san_core.data.trained_on import count_seen, seen_in_words

    if "trained_on" not in facts:
        log.warning("%s does not record whom it was trained on: these images may show them", model)
        return None
    seen = count_seen(facts["trained_on"], records, provenance)
    if told := seen_in_words(seen):
        log.warning("the model was %s: its scores will be too high", told)
    return seen


def _overrides_in_words(name: object, recipe: "Recipe") -> str | None:
    """The replaced fields of the model's recipe; None if no recipe of that name is known here."""
    from san_core.recipes import RECIPES, overrides_of

    return overrides_of(name, recipe) if isinstance(name, str) and name in RECIPES else None
