"""How gradients become steps: one joint step a batch, or the official two (`two_step`).

Both take the loss terms of a batch, update the network and return the weighted loss. Fused kernels
of torch.optim do the arithmetic, one pass over all parameters.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from san_core.model.encoder import Encoder
from san_core.model.san import SAN
from san_core.recipe import Recipe
from san_core.training import schedule
from san_core.training.finiteness import FiniteFlags

OptimizerState = dict[str, Any]
LossTerms = Mapping[str, Tensor]  # unweighted, by the names of Recipe.losses
LossWeights = Mapping[str, float]


class JointOptimisation:
    """One backward pass of the weighted sum and one optimiser step, with parameter groups."""

    def __init__(self, model: SAN, recipe: Recipe, scaler: torch.amp.GradScaler) -> None:
        self._recipe, self._scaler = recipe, scaler
        rest, decoder = _split_parameters(model)
        groups = [
            {"params": parameters, "peak_lr": lr}
            for parameters, lr in ((rest, recipe.lr), (decoder, recipe.decoder_lr))
            if parameters
        ]
        self._parameters = [*rest, *decoder]
        self._scheduled = _ScheduledOptimizer(groups, recipe)

    def set_progress(self, progress: float) -> None:
        """Set the learning rates after so many epochs, and change the optimiser if warm-up ends."""
        self._scheduled.set_progress(progress)

    def step(self, terms: LossTerms, weights: LossWeights, flags: FiniteFlags) -> Tensor:
        """One step on the weighted sum of the terms, which is returned.

        `flags` records whether a clipped gradient is finite.
        """
        loss, optimizer = weighted_sum(terms, weights), self._scheduled.optimizer
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self._scaler.scale(loss))
        _clip_gradients(self._parameters, optimizer, self._recipe, self._scaler, flags)
        _check_strides(self._parameters)
        self._scaler.step(optimizer)
        self._scaler.update()
        return loss

    def state_dict(self) -> OptimizerState:
        """Its state for a checkpoint."""
        return {**self._scheduled.state_dict(), "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: OptimizerState) -> None:
        """Restore a state from `state_dict`."""
        self._scheduled.load_state_dict(state)
        self._scaler.load_state_dict(state["scaler"])


class TwoStepOptimisation:
    """The official steps without their error: both gradients first; or with it, as released.

    L_ID and L_Triplet move encoder and classifier by the recipe's optimiser; L_Rec and L_TR then
    move encoder and decoder by an Adam of constant lr `texture_lr`, betas .5/.999 and no weight
    decay (official main.py:254). Adam divides by the gradient's size, so the influence of the
    texture on the encoder depends on `texture_lr` and hardly on the loss weights. With
    `stale_gradients` the second gradient is computed after the first step, from activations before
    it. The optimisers then move aliases of the weights, whose changes autograd does not see.
    """

    def __init__(self, model: SAN, recipe: Recipe, scaler: torch.amp.GradScaler) -> None:
        self._recipe, self._scaler = recipe, scaler
        rest, decoder = _split_parameters(model)
        encoder = [p for p in model.encoder.parameters() if p.requires_grad]
        self._reid = self._part(("id", "tri", "distill"), rest)
        self._texture = self._part(("rec", "tr"), [*encoder, *decoder])
        groups = [{"params": self._reid.moved, "peak_lr": recipe.lr}]
        self._scheduled = _ScheduledOptimizer(groups, recipe)
        self._constant = torch.optim.Adam(
            self._texture.moved, lr=recipe.texture_lr, betas=(0.5, 0.999), fused=True
        )

    def _part(self, terms: tuple[str, ...], parameters: list[nn.Parameter]) -> "_Part":
        is_stale = self._recipe.stale_gradients
        moved = [nn.Parameter(p.data) for p in parameters] if is_stale else parameters
        return _Part(terms, parameters, moved)

    def set_progress(self, progress: float) -> None:
        """Set the ReID optimiser for what follows so many epochs; that of textures is constant."""
        self._scheduled.set_progress(progress)

    def step(self, terms: LossTerms, weights: LossWeights, flags: FiniteFlags) -> Tensor:
        """Both steps on the terms; the weighted sum of all terms is returned.

        `flags` records whether clipped gradients are finite.
        """
        losses, taken = [], []
        steps = (self._reid, self._scheduled.optimizer), (self._texture, self._constant)
        for part, optimizer in steps:
            mine = {name: term for name, term in terms.items() if name in part.terms}
            if mine:
                losses.append(weighted_sum(mine, weights))
                taken.append((part, optimizer))
        gradients: Iterable[list[Tensor | None]] = (
            _gradients(self._scaler.scale(loss), part.parameters, keep=loss is not losses[-1])
            for loss, (part, _) in zip(losses, taken, strict=True)
        )
        if not self._recipe.stale_gradients:
            gradients = list(gradients)  # else each is taken after the step before it
        for mine_of, (part, optimizer) in zip(gradients, taken, strict=True):
            for parameter, gradient in zip(part.moved, mine_of, strict=True):
                parameter.grad = gradient
            _clip_gradients(part.moved, optimizer, self._recipe, self._scaler, flags)
            _check_strides(part.moved)
            self._scaler.step(optimizer)
        self._scaler.update()
        return torch.stack(losses).sum()

    def state_dict(self) -> OptimizerState:
        """Its state for a checkpoint."""
        return {
            **self._scheduled.state_dict(),
            "texture_optimizer": self._constant.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: OptimizerState) -> None:
        """Restore a state from `state_dict`."""
        self._scheduled.load_state_dict(state)
        self._constant.load_state_dict(state["texture_optimizer"])
        _check_moments(self._constant)
        self._scaler.load_state_dict(state["scaler"])


def make_optimisation(
    model: SAN, recipe: Recipe, scaler: torch.amp.GradScaler
) -> JointOptimisation | TwoStepOptimisation:
    """The recipe's kind of optimisation."""
    return (TwoStepOptimisation if recipe.two_step else JointOptimisation)(model, recipe, scaler)


def set_trunk_frozen(encoder: Encoder, *, frozen: bool) -> None:
    """Freeze an encoder's trunk, statistics of its batch normalisation too, or let it learn.

    Pooling and embedding head learn in any case. A trunk that learns is in the encoder's mode.
    """
    for name, part in encoder.named_children():
        if name not in ("pooling", "head"):
            part.train(encoder.training and not frozen).requires_grad_(not frozen)


def freeze_decoder(model: SAN) -> None:
    """Keep a network's decoder as it is, statistics of its batch normalisation too."""
    assert model.decoder is not None  # checked with the recipe
    model.decoder.eval().requires_grad_(False)


def weighted_sum(terms: LossTerms, weights: LossWeights) -> Tensor:
    """The sum of the terms, each times its weight."""
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


class _Part(NamedTuple):
    """One of two steps: its parameters and terms."""

    terms: tuple[str, ...]
    parameters: list[nn.Parameter]  # that the terms are differentiated by
    moved: list[nn.Parameter]  # what the optimiser moves: the parameters, or aliases of them


def _gradients(
    loss: Tensor, parameters: Sequence[nn.Parameter], *, keep: bool
) -> list[Tensor | None]:
    """The gradient of each parameter; None for frozen and for unreached parameters.

    keep: whether the graph is needed once more.
    """
    learning = [p for p in parameters if p.requires_grad]
    found = iter(torch.autograd.grad(loss, learning, retain_graph=keep, allow_unused=True))
    return [next(found) if p.requires_grad else None for p in parameters]


class _ScheduledOptimizer:
    """The optimiser whose learning rates follow the schedule, and before it that of a warm-up."""

    def __init__(self, groups: Sequence[dict[str, Any]], recipe: Recipe) -> None:
        self._groups, self._recipe = groups, recipe
        self._begin(warming=schedule.is_warmed_up_apart(recipe, 0))

    def _begin(self, *, warming: bool) -> None:
        """A new optimiser without moments."""
        kind = "adam" if warming else self._recipe.optimizer
        groups = [dict(group) for group in self._groups]
        self.optimizer, self._is_warming = _make_optimizer(groups, self._recipe, kind), warming

    def set_progress(self, progress: float) -> None:
        """Set every group's learning rate to its share of its peak after so many epochs."""
        warming = schedule.is_warmed_up_apart(self._recipe, progress)
        if warming != self._is_warming:
            self._begin(warming=warming)
        share = schedule.learning_rate_share(self._recipe, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share

    def state_dict(self) -> OptimizerState:
        return {"optimizer": self.optimizer.state_dict(), "is_warming": self._is_warming}

    def load_state_dict(self, state: OptimizerState) -> None:
        self._begin(warming=state["is_warming"])
        self.optimizer.load_state_dict(state["optimizer"])
        _check_moments(self.optimizer)


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError if a loaded state belongs to other weights; torch checks only counts."""
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if isinstance(moment, Tensor) and moment.ndim and moment.shape != parameter.shape:
                raise ValueError(f"{name} does not match the weights")


def _split_parameters(model: SAN) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters of encoder with classifier, and of the decoder."""
    decoder = [] if model.decoder is None else list(model.decoder.parameters())
    theirs = {id(parameter) for parameter in decoder}
    rest = [p for p in model.parameters() if id(p) not in theirs]
    return [p for p in rest if p.requires_grad], [p for p in decoder if p.requires_grad]


def _make_optimizer(
    groups: Iterable[dict[str, Any]], recipe: Recipe, kind: str
) -> torch.optim.Optimizer:
    """Adam, AMSGrad or AdamW in one fused pass."""
    if kind == "adamw":
        return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.Adam(
        groups,
        weight_decay=recipe.weight_decay,
        amsgrad=kind == "amsgrad",
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
    """Assert that a gradient has its weight's memory layout.

    NOTE a fused step on a processor iterates over both in memory order, and would silently give a
    weight another weight's gradient. Dimensions of one element have no order.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            lies, expected = (
                [s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1]
                for t in (parameter.grad, parameter)
            )
            assert lies == expected, f"gradient of strides {lies} for a weight of {expected}"
