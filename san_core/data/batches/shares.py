"""Whether several processes can train together: each takes an equal share of every batch."""

import numpy as np

from san_core.data.batches.sampler import places_of_share, rows_of_rank
from san_core.recipe import Recipe


def check_shares(recipe: Recipe, size: int, *, images: int, pit_images: int | None = None) -> None:
    """Raise ValueError unless `size` processes can train together.

    Args:
        recipe: the recipe to train; every batch must divide equally among them.
        size: how many they are.
        images: to train on.
        pit_images: those of paired data, where such batches are mixed in.
    """
    if recipe.two_step and size > 1:
        raise ValueError("two_step trains in one process: its two gradients are not averaged")
    shuffled = [] if pit_images is None else [pit_images]
    if recipe.forms_triplets:
        batch, together = np.arange(recipe.images_per_batch), recipe.images_per_identity
        rows_of_rank(batch, rank=0, size=size, group_size=together)
    else:
        shuffled.append(images)
    if recipe.texture_share < 1:
        _check_texture_share(recipe, size, images)
    for count in shuffled:
        rows_of_rank(np.arange(min(recipe.batch_size, count)), rank=0, size=size)


def _check_texture_share(recipe: Recipe, size: int, images: int) -> None:
    groups = recipe.groups_per_batch if recipe.forms_triplets else min(recipe.batch_size, images)
    chosen = len(places_of_share(groups, recipe.texture_share))
    if not chosen or chosen % size:
        what = "identities" if recipe.forms_triplets else "images"
        raise ValueError(
            f"texture_share {recipe.texture_share:g} of {groups} {what} is {chosen}, which cannot "
            f"be divided equally among {size} processes: choose a multiple"
        )


def check_shares_of_full_batches(recipe: Recipe, size: int) -> None:
    """As `check_shares`, assuming that there are enough images."""
    enough = recipe.batch_size
    check_shares(recipe, size, images=enough, pit_images=enough if recipe.pit_every else None)
