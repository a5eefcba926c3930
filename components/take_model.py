"""Import a trained encoder."""

import logging
import shutil
from pathlib import Path
from typing import Annotated

from components.command.step import Output
from components.storage.outputs import atomic_folder

log = logging.getLogger(__name__)


def take_model(
    model: Annotated[Path, Output("Model")],
    source: str = "",
) -> None:
    """Import a trained encoder, to score it or to embed images with it.

    Args:
        model: files of the model, without last.safetensors and encoder.onnx; or the ONNX file
        source: folder or URI written by train_san; or an ONNX file written by export, or its URI
    """
    from components.inference.networks import local_model
    from san_core.inference.network import check_encoder
    from san_core.model.saved import (
        COMPANION_FILES,
        HISTORY_FILE,
        RECIPE_FILE,
        WEIGHTS_FILE,
        failure_of,
        lacks_sums,
        onnx_file,
        read_description,
        write_sums,
    )

    if not source:
        raise ValueError("--source is empty; give the folder or URI of a model")
    with local_model(source) as place:
        recipe, facts = read_description(place)
        check_encoder(recipe, source)
        if failure := failure_of(place):
            log.warning("%s was left by a failed training: %s", source, failure)
        if lacks_sums(place):
            log.warning("%s has no SHA256SUMS, so damage cannot be detected", source)
        exported = onnx_file(place)
        kept = (RECIPE_FILE, WEIGHTS_FILE, HISTORY_FILE, *COMPANION_FILES)
        with atomic_folder(model) as taken:
            for file in [exported] if exported else [place / name for name in kept]:
                if file.is_file():
                    shutil.copyfile(file, taken / file.name)
            write_sums(taken)
    log.info(
        "%s, images of %dx%d, compared by %s",
        *(facts.get("recipe") or "unknown recipe", *recipe.image_size, recipe.metric),
    )
