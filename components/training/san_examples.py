"""Pictures on the page of train_san: people, their textures, and the decoder's output."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.process.machine import device
from components.storage.staging import open_image_records, open_image_set
from components.training.report import Examples, evenly_spaced
from san_core.data.batches.identities import IdentitySplit
from san_core.images.imageset import ImageSet
from san_core.images.pixels import Pixels, area_average, decode, resize
from san_core.images.shard import Record
from san_core.inference.textures import predict_textures
from san_core.model.san import SAN
from san_core.recipe import Recipe
from san_core.training.loop import TrainingData

_TRAINED_ON = "Training images."
_NOBODY_HELD_OUT = " This recipe holds nobody out (eval_every=0)."
_HELD_OUT = "Images of held-out people, whom the network has not seen."
_NO_TEXTURES = " They have no textures to compare with."


def find_examples(
    model: SAN,
    recipe: Recipe,
    data: TrainingData,
    *,
    images: ImageSet,
    people: IdentitySplit,
    textures: Path | None,
) -> list[Examples]:
    """Examples of held-out people, if the recipe validates, and of the training data.

    None for a recipe without a decoder.

    Args:
        model: the model with its final weights.
        recipe: its recipe.
        data: its training data.
        images: the data set, opened with its training and validation images.
        people: the people who were trained on.
        textures: the sealed textures.
    """
    if data.textures is None or data.texture_index is None or textures is None:
        return []
    found = []
    if people.validation_records:
        rows = evenly_spaced(len(people.validation_records))
        shown = [people.validation_records[row] for row in rows]
        found.append(_held_out_examples(model, recipe, shown, images=images, textures=textures))
    rows = evenly_spaced(len(data.images))
    pictures = data.images[rows]
    columns = {
        "image": pictures,
        "target texture": data.textures[data.texture_index[rows]],
        "decoded texture": predict_textures(model, pictures, device=device()),
    }
    lead = _TRAINED_ON + ("" if found else _NOBODY_HELD_OUT)
    return [*found, Examples("Training examples", columns, lead)]


def _held_out_examples(
    model: SAN, recipe: Recipe, shown: Sequence[Record], *, images: ImageSet, textures: Path
) -> Examples:
    pictures = np.stack(
        [
            resize(decode(images.read(record), name=record.name), recipe.image_size)
            for record in shown
        ]
    )
    given = _textures_of(textures, shown, recipe.texture_size)
    columns = {
        "image": pictures,
        **({} if given is None else {"its texture": given}),
        "decoded texture": predict_textures(model, pictures, device=device()),
    }
    lead = _HELD_OUT + (_NO_TEXTURES if given is None else "")
    return Examples("Held-out examples", columns, lead)


def _textures_of(textures: Path, shown: Sequence[Record], size: int) -> Pixels | None:
    """The textures of pictures (N, T, T, 3); None unless each has one, as none of split val has."""
    with open_image_records(textures) as index:
        of_image = {record.named("image"): record for record in index.records}
    used = [of_image[record.name] for record in shown if record.name in of_image]
    if len(used) < len(shown):
        return None
    numbers = {record.shard for record in used}
    with open_image_set(textures, verify=False, shards=numbers) as painted:
        return np.stack(
            [area_average(decode(painted.read(record), name=record.name), size) for record in used]
        )
