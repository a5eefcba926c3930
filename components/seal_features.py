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
) -> None:
    """Join the features of all workers of extract_features, once all have finished.

    The result is byte for byte what a single worker would have written.

    Args:
        dataset: the person images, as given to extract_features
        features: the files that extract_features writes, for all images
        source: folder or URI with the features of every worker, each in its own folder
    """
    from components.storage.staging import image_set_digest
    from components.storage.transfer import local_source
    from san_core.evaluation.feature_files import FEATURES_FILE, FeatureFiles
    from san_core.evaluation.feature_parts import join_parts

    if not source:
        raise ValueError("--source is empty; give the folder or URI of the workers' features")
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
