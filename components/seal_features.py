"""Join the features that several workers have made."""

import logging
from pathlib import Path
from typing import Annotated

from components.command.step import Input, Output
from components.storage.outputs import atomic_folder

log = logging.getLogger(__name__)


def seal_features(
    dataset: Annotated[Path, Input("Dataset")],
    features: Annotated[Path, Output("Dataset")],
    source: str = "",
    feature_parts: str = "none",
    model: Annotated[Path | None, Input("Model")] = None,
    splits: str = "query,gallery,multi",
    references: bool = False,
    mirrored: str = "auto",
) -> None:
    """Join the features of all workers of extract_features, once all have finished.

    The result is byte for byte what a single worker would have written. The workers' features are
    in a source, or in feature_parts, where the model and the settings identify them.

    Args:
        dataset: the person images, as given to extract_features
        features: the files that extract_features writes, for all images
        source: folder or URI with the features of every worker, each in its own folder
        feature_parts: folder or URI, as given to extract_features
        model: the encoder, as given to extract_features; only with feature_parts
        splits: as given to extract_features; only with feature_parts
        references: as given to extract_features; only with feature_parts
        mirrored: as given to extract_features; only with feature_parts
    """
    from components.command.code import code_fingerprint
    from components.inference import worker_parts
    from components.storage.staging import image_set_digest
    from components.storage.transfer import local_source
    from san_core.evaluation.feature_files import FEATURES_FILE, FeatureFiles
    from san_core.evaluation.feature_parts import join_parts

    if bool(source) == bool(feature_parts):
        what = "both" if source else "none of them"
        raise ValueError(
            "the workers' features are in --source, or where they were kept by --feature-parts;"
            f" {what} are given"
        )
    if feature_parts:
        if model is None:
            raise ValueError("--feature-parts needs --model, by which the features are found")
        settings = worker_parts.FeatureSettings(splits, references, mirrored)
        code = code_fingerprint("components.extract_features", with_pages=False)
        folder_of_all = worker_parts.parts_folder(dataset, model, settings, code=code)
        source = worker_parts.place_of_all_parts(feature_parts, folder_of_all)
    elif model is not None:
        raise ValueError("--model is of --feature-parts; a --source holds the parts by itself")
    with local_source(source) as place:
        parts = sorted(file.parent for file in place.glob(f"*/{FEATURES_FILE}"))
        if not parts:
            raise FileNotFoundError(
                f"{place} holds no folder with {FEATURES_FILE}, which extract_features --worker i/n"
                " writes"
            )
        for part in parts:
            if FeatureFiles(part).provenance["dataset"] != image_set_digest(dataset):
                raise ValueError(f"{part} holds features of another data set than {dataset}")
        with atomic_folder(features) as folder:
            count, dim = join_parts(folder, parts)
    log.info("joined %d parts: %d images, %d dimensions", len(parts), count, dim)
