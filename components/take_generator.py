"""Take a texture generator that was trained before."""

import logging
import shutil
from pathlib import Path
from typing import Annotated

from components.command.step import Output
from components.storage.outputs import finished

log = logging.getLogger(__name__)


def take_generator(
    generator: Annotated[Path, Output("Model")],
    source: str = "shipped",
) -> None:
    """Take a texture generator that was trained before, instead of training one on PIT.

    Args:
        generator: the same files as train_san_pg writes
        source: folder or URI of what train_san_pg has written, or the word shipped for the small
            generator that comes with this package (a folder of that name is ./shipped)
    """
    from components.storage.transfer import local_source
    from san_core.images.texture_set import check_generator
    from san_core.model.saved import COMPANIONS, RECIPE, WEIGHTS, describe
    from san_core.shipped.generator import FOLDER, SHIPPED

    with local_source("" if source == SHIPPED else source) as place:
        folder = FOLDER if source == SHIPPED else place
        recipe, facts = describe(folder)
        check_generator(recipe, source)
        with finished(generator) as taken:
            for name in (RECIPE, WEIGHTS, *COMPANIONS):
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, taken / name)
    log.info(
        "textures of %dx%d from images of %dx%d, atlas %s",
        *(recipe.texture_size, recipe.texture_size, *recipe.image_size),
        facts.get("atlas", "not told"),
    )
