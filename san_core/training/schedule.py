"""The schedules of learning rates and loss weights."""

import math

from san_core.recipe import Recipe


def learning_rate_share(recipe: Recipe, progress: float) -> float:
    """The share of `lr` in force after `progress` epochs (a fraction within an epoch).

    Warm-up, by the batch from 0 or by the epoch as officially (main.py:250); then gamma at every
    milestone passed, or half a cosine down to 0.
    """
    if is_warmed_up_apart(recipe, progress):
        return float(0.01 * 1.259 ** math.floor(progress))
    if progress < recipe.warmup_epochs:
        return progress / recipe.warmup_epochs
    if recipe.schedule == "multistep":
        return float(recipe.gamma ** sum(progress >= m for m in recipe.milestones))
    first = max(recipe.warmup_epochs, recipe.cosine_from)
    done = (progress - first) / (recipe.epochs - first)
    return (1 + math.cos(math.pi * min(1.0, max(0.0, done)))) / 2


def is_warmed_up_apart(recipe: Recipe, progress: float) -> bool:
    """Whether the separate warm-up optimiser is still in use after `progress` epochs."""
    return recipe.warmup == "exponential" and progress < recipe.warmup_epochs


def has_texture_losses(recipe: Recipe, epochs_finished: int) -> bool:
    """Whether the epoch that follows has texture losses at all."""
    return not recipe.texture_epochs or epochs_finished < recipe.texture_epochs


def takes_textures(recipe: Recipe, epochs_finished: int, batches_done: int) -> bool:
    """Whether the next ReID batch has texture losses.

    batches_done: since the start of training.
    """
    is_due = batches_done % recipe.texture_every == 0
    return recipe.needs_decoder and is_due and has_texture_losses(recipe, epochs_finished)


def loss_weights(recipe: Recipe, progress: float) -> dict[str, float]:
    """The weight of each term after `progress` epochs; the triplet's weight is ramped."""
    ramp = recipe.triplet_ramp_epochs
    share = min(1.0, progress / ramp) if ramp else 1.0
    return {
        "id": recipe.w_id,
        "tri": recipe.w_tri * share,
        "distill": recipe.w_distill,
        "rec": recipe.w_rec,
        "tr": recipe.w_tr,
        "dense": recipe.w_dense,
    }
