"""How gradients become steps: one joint step a batch, or the official two (`two_step`).

Both take the loss terms of a batch, update the network and return the weighted loss. Fused kernels
of torch.optim do the arithmetic, one pass over all parameters.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from san_core.model.san import SAN
from san_core.recipe import Recipe
from san_core.training.finiteness import FiniteFlags

OptimizerState = dict[str, Any]
LossTerms = Mapping[str, Tensor]  # unweighted, by the names of Recipe.losses
LossWeights = Mapping[str, float]


class JointOptimisation:
    """One backward of the weighted sum and one step of one optimiser, with a group a part."""

    def __init__(self, model: SAN, recipe: Recipe, scaler: torch.amp.GradScaler) -> None:
        self._recipe, self._scaler = recipe, scaler
        rest, decoder = _split_parameters(model)
        groups = [
            {"params": parameters, "peak_lr": lr}
            for parameters, lr in ((rest, recipe.lr), (decoder, recipe.decoder_lr))
            if parameters
        ]
        self._parameters = [*rest, *decoder]
        self._optimizer = _make_optimizer(groups, recipe)

    def set_learning_rate_share(self, share: float) -> None:
        """Set every group's learning rate to a share of its peak."""
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share

    def step(self, terms: LossTerms, weights: LossWeights, flags: FiniteFlags) -> Tensor:
        """One step down the weighted sum of the terms, which is returned.

        Whether a gradient that is clipped is finite is noted in `flags`.
        """
        loss = weighted_sum(terms, weights)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self._scaler.scale(loss))
        _clip_gradients(self._parameters, self._optimizer, self._recipe, self._scaler, flags)
        _check_strides(self._parameters)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss

    def state_dict(self) -> OptimizerState:
        """What a checkpoint holds of it."""
        return {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: OptimizerState) -> None:
        """Take back what `state_dict` gave."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])


class TwoStepOptimisation:
    """The official order without its error: both gradients first, then the steps (an ablation).

    L_ID and L_Triplet move encoder and classifier by the recipe's optimiser; L_Rec and L_TR then
    move encoder and decoder by an Adam of constant lr `texture_lr`, betas .5/.999 and no weight
    decay (official main.py:254). Adam divides by the gradient's size, so what the texture is worth
    to the encoder follows from `texture_lr`, hardly from the loss weights.
    """

    def __init__(self, model: SAN, recipe: Recipe, scaler: torch.amp.GradScaler) -> None:
        self._recipe, self._scaler = recipe, scaler
        rest, decoder = _split_parameters(model)
        encoder = [p for p in model.encoder.parameters() if p.requires_grad]
        textures = [*encoder, *decoder]
        reid = _make_optimizer([{"params": rest, "peak_lr": recipe.lr}], recipe)
        texture = torch.optim.Adam(textures, lr=recipe.texture_lr, betas=(0.5, 0.999), fused=True)
        self._reid: _ParameterGroup = (("id", "tri"), rest, reid)
        self._texture: _ParameterGroup = (("rec", "tr"), textures, texture)

    def set_learning_rate_share(self, share: float) -> None:
        """Set the ReID optimiser's learning rate; that of the textures is constant."""
        for group in self._reid[2].param_groups:
            group["lr"] = group["peak_lr"] * share

    def step(self, terms: LossTerms, weights: LossWeights, flags: FiniteFlags) -> Tensor:
        """Both steps down the terms; the weighted sum of all of them is returned.

        Whether gradients that are clipped are finite is noted in `flags`.
        """
        losses, taken = [], []
        for part in (self._reid, self._texture):
            mine = {name: term for name, term in terms.items() if name in part[0]}
            if mine:
                losses.append(weighted_sum(mine, weights))
                taken.append(part)
        gradients = [
            torch.autograd.grad(
                self._scaler.scale(loss),
                part[1],
                retain_graph=loss is not losses[-1],
                allow_unused=True,
            )
            for loss, part in zip(losses, taken, strict=True)
        ]
        for mine_of, (_, parameters, optimizer) in zip(gradients, taken, strict=True):
            for parameter, gradient in zip(parameters, mine_of, strict=True):
                parameter.grad = gradient
            _clip_gradients(parameters, optimizer, self._recipe, self._scaler, flags)
            _check_strides(parameters)
            self._scaler.step(optimizer)
        self._scaler.update()
        return torch.stack(losses).sum()

    def state_dict(self) -> OptimizerState:
        """What a checkpoint holds of it."""
        return {
            "optimizer": self._reid[2].state_dict(),
            "texture_optimizer": self._texture[2].state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: OptimizerState) -> None:
        """Take back what `state_dict` gave."""
        self._reid[2].load_state_dict(state["optimizer"])
        self._texture[2].load_state_dict(state["texture_optimizer"])
        self._scaler.load_state_dict(state["scaler"])


def make_optimisation(
    model: SAN, recipe: Recipe, scaler: torch.amp.GradScaler
) -> JointOptimisation | TwoStepOptimisation:
    """The recipe's way of stepping."""
    return (TwoStepOptimisation if recipe.two_step else JointOptimisation)(model, recipe, scaler)


def weighted_sum(terms: LossTerms, weights: LossWeights) -> Tensor:
    """The sum of the terms, each times its weight."""
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


_ParameterGroup = tuple[tuple[str, ...], list[nn.Parameter], torch.optim.Optimizer]


def _split_parameters(model: SAN) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Encoder with classifier, and the decoder."""
    decoder = [] if model.decoder is None else list(model.decoder.parameters())
    theirs = {id(parameter) for parameter in decoder}
    rest = [p for p in model.parameters() if id(p) not in theirs]
    return [p for p in rest if p.requires_grad], decoder


def _make_optimizer(groups: Iterable[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """Adam, AMSGrad or AdamW in one fused pass."""
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.Adam(
        groups,
        weight_decay=recipe.weight_decay,
        amsgrad=recipe.optimizer == "amsgrad",
        fused=True,
    )


def _clip_gradients(
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    scaler: torch.amp.GradScaler,
    flags: FiniteFlags,
) -> None:
    """Shorten the gradient to the recipe's norm; float16's scaling skips infinite ones itself."""
    if not recipe.clip_norm:
        return
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
    if not scaler.is_enabled():
        flags.note("the gradient", norm)


def _check_strides(parameters: Iterable[nn.Parameter]) -> None:
    """Assert that a gradient lies in memory as its weight does.

    NOTE a fused step on a processor goes through both as they lie, and would give a weight another
    one's gradient without a word. Dimensions of one element have no order.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            lies, expected = (
                [s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1]
                for t in (parameter.grad, parameter)
            )
            assert lies == expected, f"gradient of strides {lies} for a weight of {expected}"
