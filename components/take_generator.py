"""Import a trained texture generator."""

import logging
import shutil
from pathlib import Path
from typing import Annotated

from components.command.step import Output
from components.storage.outputs import atomic_folder

log = logging.getLogger(__name__)


def take_generator(
    generator: Annotated[Path, Output("Model")],
    source: str = "shipped",
) -> None:
    """Import a trained texture generator, instead of training one on PIT.

    Args:
        generator: the files that train_san_pg writes
        source: folder or URI written by train_san_pg, or the word shipped for the small generator
            that comes with this package (for a folder of that name write ./shipped)
    """
    from components.storage.transfer import local_source
    from san_core.images.texture_set import check_generator
    from san_core.model.saved import (
        COMPANION_FILES,
        RECIPE_FILE,
        WEIGHTS_FILE,
        lacks_sums,
        read_description,
        write_sums,
    )
    from san_core.shipped.generator import SHIPPED_FOLDER, SHIPPED_GENERATOR

    if not source:
        raise ValueError(f"--source is empty; give a folder, a URI or the word {SHIPPED_GENERATOR}")
    with local_source("" if source == SHIPPED_GENERATOR else source) as place:
        folder = SHIPPED_FOLDER if source == SHIPPED_GENERATOR else place
        recipe, facts = read_description(folder)
        check_generator(recipe, source)
        if lacks_sums(folder):
            log.warning("%s has no SHA256SUMS, so damage cannot be detected", source)
        with atomic_folder(generator) as taken:
            for name in (RECIPE_FILE, WEIGHTS_FILE, *COMPANION_FILES):
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, taken / name)
            write_sums(taken)
    log.info(
        "textures of %dx%d from images of %dx%d, atlas %s",
        *(recipe.texture_size, recipe.texture_size, *recipe.image_size),
        facts.get("atlas", "unknown"),
    )
