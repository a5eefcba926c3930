"""Pictures on the page of train_san_pg: held-out people, with true and generated textures."""

import numpy as np

from components.training.inputs import DecodedPairs
from components.training.report import IMAGE_SIZE, Examples, evenly_spaced
from san_core.images.pixels import Pixels
from san_core.synthesis.mannequin import wear_texture
from san_core.synthesis.person.atlas import ATLAS_NAME


def held_out_examples(unseen: DecodedPairs, generated: Pixels) -> Examples:
    """Some held-out pairs with generated textures; also rendered on a body for this atlas.

    generated: (N, T, T, 3), in the order of `unseen.images`.
    """
    rows = evenly_spaced(len(generated))
    columns = {
        "image": unseen.images[rows],
        "true texture": unseen.textures[unseen.texture_index[rows]],
        "generated texture": generated[rows],
    }
    if unseen.atlas == ATLAS_NAME:
        worn = [wear_texture(texture, IMAGE_SIZE) for texture in generated[rows]]
        front, back = (np.stack(side) for side in zip(*worn, strict=True))
        columns |= {"on the body, front": front, "on the body, back": back}
    return Examples("Held-out examples", columns, lead="The generator has not seen these people.")
