"""The loss terms of one batch of a recipe.

`L = w_id L_ID + w_tri L_Triplet + w_rec L_Rec + w_tr L_TR`. If several processes share a batch,
each term is computed over the whole batch, equally in every process.
"""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from san_core.data.batches.augmentation import TextureTargets
from san_core.data.batches.dense import DenseTargets
from san_core.data.batches.loader import TexturedPart
from san_core.model.san import SANOutput
from san_core.recipe import Recipe
from san_core.training import losses, places
from san_core.training.distributed import World, gather_batch
from san_core.training.finiteness import FiniteFlags

# Weights of attended and of regressed colours in L_Rec, beside the texture made from both
COPIED_PARTS = (0.5, 0.2)


class Batch(NamedTuple):
    """One process's part of a batch of B images: its share of b images, and all labels."""

    images: Tensor  # (b, 3, H, W)
    labels: Tensor | None  # (B,)
    targets: TextureTargets | None  # of b images
    dense: DenseTargets | None = None  # of b images
    part: TexturedPart | None = None  # what the targets are of, where not of all images
    hints: Tensor | None = None  # (b, C, rows, columns), what the recipe distils


def loss_terms(
    output: SANOutput, batch: Batch, recipe: Recipe, world: World, flags: FiniteFlags
) -> dict[str, Tensor]:
    """The terms that count, unweighted, in the order of `Recipe.active_losses`.

    `flags` records whether they are finite, equally in every process.
    """
    terms = {}
    labels, targets = batch.labels, batch.targets
    if recipe.w_id and output.logits is not None and labels is not None:
        logits = _logits(gather_batch(output.logits, world), labels, recipe)
        terms["id"] = losses.identity_loss(
            logits, labels, smoothing=recipe.label_smoothing, flags=flags
        )
    if recipe.w_tri and output.compared is not None and labels is not None:
        terms["tri"] = losses.triplet_loss(
            gather_batch(output.compared, world),
            labels,
            kind=recipe.triplet,
            margin=recipe.margin,
            normalize=recipe.normalize_triplet,
            flags=flags,
        )
    if recipe.w_distill and output.regressed is not None and batch.hints is not None:
        errors = gather_batch(losses.feature_errors(output.regressed, batch.hints), world)
        terms["distill"] = losses.mean_of_kept("L_Distill", errors, keep=None, flags=flags)
    if recipe.w_rec and targets is not None:
        terms["rec"] = reconstruction_term(output, targets, world, flags)
    if batch.part is not None:
        labels = batch.part.labels
    if recipe.w_tr and labels is not None and targets is not None:
        maps = [gather_batch(decoded, world) for decoded in output.maps]
        keep = gather_batch(targets.keep, world)
        if recipe.tr_triplets == "positions":
            terms["tr"] = losses.positional_triplets(
                maps, margin=recipe.tr_margin, keep=keep, flags=flags
            )
        else:
            terms["tr"] = losses.triplet_reid_constraint(
                maps, labels, margin=recipe.tr_margin, keep=keep, flags=flags
            )
    if recipe.w_dense and output.copied is not None and batch.dense is not None:
        errors = gather_batch(places.place_errors(output.copied, batch.dense), world)
        keep = gather_batch(batch.dense.keep, world)
        terms["dense"] = losses.mean_of_kept("L_Dense", errors, keep=keep, flags=flags)
    return terms


def identity_accuracy(output: SANOutput, labels: Tensor | None, world: World) -> Tensor | None:
    """The share of a batch's images whose own identity has the highest logit: (), or None.

    Without margins, on augmented pictures. It shows overfitting: it nears 1 while the validation
    score does not improve.
    """
    if output.logits is None or labels is None:
        return None
    guessed = gather_batch(output.logits.detach().argmax(dim=1), world)  # (B,)
    return (guessed == labels).double().mean()


def _logits(logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    if recipe.classifier == "linear":
        return logits
    by_cosine = {"cosine": losses.cosine_logits, "circle": losses.circle_logits}
    return by_cosine[recipe.classifier](
        logits, labels, scale=recipe.classifier_scale, margin=recipe.classifier_margin
    )


def reconstruction_term(
    output: SANOutput, targets: TextureTargets, world: World, flags: FiniteFlags
) -> Tensor:
    """L_Rec; processes exchange only the errors, not the textures.

    For a decoder that copies it is a sum of three errors: the error of the texture, and
    COPIED_PARTS times the errors of the attended and of the regressed colours, against the texture
    at one texel per query.
    """
    assert output.texture is not None  # a recipe with texture losses has a decoder
    errors = losses.reconstruction_errors(output.texture, targets.textures)
    if output.copied is not None:
        side = output.copied.regressed.shape[-1]
        coarse = functional.adaptive_avg_pool2d(targets.textures, side)
        for share, part in zip(COPIED_PARTS, output.copied[1:3], strict=True):
            errors = errors + share * losses.reconstruction_errors(part, coarse)
    keep = gather_batch(targets.keep, world)
    return losses.mean_reconstruction(gather_batch(errors, world), keep=keep, flags=flags)
