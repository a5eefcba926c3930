"""Whether several processes can train together: each takes an equal share of every batch."""

import numpy as np

from san_core.data.batches.sampler import rows_of_rank
from san_core.recipe import Recipe


def check_shares(recipe: Recipe, size: int, *, images: int, pit_images: int | None = None) -> None:
    """Raise ValueError unless `size` processes can train together.

    Args:
        recipe: what they are to train; every batch must have equal shares for them.
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
    for count in shuffled:
        rows_of_rank(np.arange(min(recipe.batch_size, count)), rank=0, size=size)


def check_shares_of_full_batches(recipe: Recipe, size: int) -> None:
    """As `check_shares`, where it is not known yet how many images there are: enough."""
    enough = recipe.batch_size
    check_shares(recipe, size, images=enough, pit_images=enough if recipe.pit_every else None)
