"""One training loop for SAN, its baseline and SAN-PG: the recipe's losses tell them apart.

`L = w_id L_ID + w_tri L_Triplet + w_rec L_Rec + w_tr L_TR`, one backward and one optimiser step per
batch. On one CPU machine with one number of threads, equal seeds give equal bytes, undisturbed or
resumed. Legend: N images, B batch, H W rows and columns, M textures, T texels a side.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from san_core import losses
from san_core.data import augmentation, sampler
from san_core.model.encoder import channels_last
from san_core.model.san import SAN, SANOutput
from san_core.pixels import Pixels
from san_core.recipe import Recipe

State = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What training reads. Arrays may be memory maps; nothing is copied but the batch at hand.

    Raises ValueError if the arrays do not belong together.
    """

    images: Pixels  # (N, H, W, 3) RGB
    labels: NDArray[np.int64] | None = None  # (N,), classes 0 ... C-1; None: no identities known
    textures: Pixels | None = None  # (M, T, T, 3) RGB, each distinct texture once
    texture_index: NDArray[np.int64] | None = None  # (N,), the row of an image's texture
    mirror: csr_array | None = None  # (T * T, T * T), mirror_matrix of the textures' atlas

    def __post_init__(self) -> None:
        n = len(self.images)
        if (self.textures is None) != (self.texture_index is None):
            raise ValueError("textures and texture_index come together: one of them is missing")
        if self.labels is not None:
            if len(self.labels) != n:
                raise ValueError(f"{len(self.labels)} labels for {n} images")
            classes = np.unique(self.labels)
            if not np.array_equal(classes, np.arange(len(classes))):
                raise ValueError(f"labels must be 0 ... C-1, found {classes[:10].tolist()}")
        if self.textures is not None and self.texture_index is not None:
            if len(self.texture_index) != n:
                raise ValueError(f"{len(self.texture_index)} texture rows for {n} images")
            wrong = (self.texture_index < 0) | (self.texture_index >= len(self.textures))
            if wrong.any():
                row = int(np.argmax(wrong))
                raise ValueError(
                    f"image {row} has texture row {self.texture_index[row]}, "
                    f"but there are {len(self.textures)} textures"
                )
            texels = self.textures.shape[1] * self.textures.shape[2]
            if self.mirror is not None and self.mirror.shape != (texels, texels):
                raise ValueError(
                    f"the mirror is of {self.mirror.shape[0]} texels, textures have {texels}"
                )

    @property
    def num_classes(self) -> int:
        """Distinct identities; 0 where none are known."""
        return 0 if self.labels is None else int(self.labels.max()) + 1


class EpochReport(NamedTuple):
    """Means over one epoch."""

    epoch: int  # epochs finished, 1 ... recipe.epochs
    loss: float  # the weighted sum that was minimised
    terms: dict[str, float]  # unweighted: "id", "tri", "rec", "tr", those that count
    lr: float  # the encoder's, at the epoch's last batch
    images_per_second: float  # wall time
    seconds: float  # wall time


class _Batch(NamedTuple):
    images: Tensor  # (B, 3, H, W)
    labels: Tensor | None  # (B,)
    targets: augmentation.Targets | None


def fit(
    model: SAN,
    data: TrainingData,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str,
    state: State | None = None,
    on_state: Callable[[State], None] | None = None,
) -> Iterator[EpochReport]:
    """Train `model` in place, yielding a report after every epoch.

    Everything is checked by the call itself; training happens as the reports are drawn.

    Args:
        model: the network of `recipe`; moved to `device`, left in training mode.
        data: labels where the recipe has identity losses, textures where it has a decoder.
        recipe: what to learn and how.
        seed: of batches and augmentation; torch's own generators are never used.
        device: mixed precision is used on CUDA alone.
        state: what `on_state` was given by an earlier run of the same recipe, seed, number of
            images and precision; training goes on after its epoch. Readable by
            torch.load(weights_only=True).
        on_state: called every `checkpoint_every` epochs and at the end, before the epoch's report.
            The state refers to the live weights: save or copy it before returning.

    Raises:
        ValueError: data, model, recipe or state do not belong together; while training, a loss
            is not finite (naming epoch, batch and term).
    """
    _check(model, data, recipe)
    run = _Run(model, data, recipe, seed, torch.device(device))
    if state is not None:
        run.restore(state)
    return run.epochs(on_state)


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The share of `lr` in force after `progress` epochs (a fraction within an epoch).

    Linear warm-up from 0; then gamma at every milestone passed, or half a cosine down to 0.
    """
    if progress < recipe.warmup_epochs:
        return progress / recipe.warmup_epochs
    if recipe.schedule == "multistep":
        return float(recipe.gamma ** sum(progress >= m for m in recipe.milestones))
    done = (progress - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return (1 + math.cos(math.pi * min(1.0, done))) / 2


class _Run:
    """Model, optimiser and their position in the schedule: what a checkpoint holds."""

    def __init__(
        self, model: SAN, data: TrainingData, recipe: Recipe, seed: int, device: torch.device
    ) -> None:
        channels_last(model.to(device))
        self.model, self.data, self.recipe = model, data, recipe
        self.seed, self.device = seed, device
        self.optimizer = _optimizer(model, recipe)
        self.precision = _precision(device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision is torch.float16)
        self.mirror = None if data.mirror is None else augmentation.Mirror.of(data.mirror, device)
        self.finished = 0

    def epochs(self, on_state: Callable[[State], None] | None) -> Iterator[EpochReport]:
        while self.finished < self.recipe.epochs:
            report = self._epoch()
            self.finished = report.epoch
            due = report.epoch % self.recipe.checkpoint_every == 0
            if on_state is not None and (due or report.epoch == self.recipe.epochs):
                on_state(self._state())
            yield report

    def restore(self, state: State) -> None:
        expected = self._identity()
        for name, value in expected.items():
            if state.get(name) != value:
                raise ValueError(_mismatch(name, state.get(name), value))
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.finished = state["epoch"]

    def _identity(self) -> State:
        recipe = dataclasses.asdict(self.recipe)
        recipe["milestones"] = list(self.recipe.milestones)
        return {
            "recipe": recipe,
            "seed": self.seed,
            "images": len(self.data.images),
            "precision": str(self.precision or torch.float32),
        }

    def _state(self) -> State:
        return {
            **self._identity(),
            "epoch": self.finished,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def _epoch(self) -> EpochReport:
        started = time.perf_counter()
        self.model.train()
        batches = self._batches()
        totals = np.zeros(len(self.recipe.losses) + 1)
        lr = 0.0
        for step, rows in enumerate(batches):
            progress = self.finished + step / len(batches)
            lr = self._set_learning_rate(progress)
            totals += self._step(rows, step, progress)
        seconds = time.perf_counter() - started
        means = (totals / len(batches)).tolist()
        return EpochReport(
            epoch=self.finished + 1,
            loss=means[0],
            terms=dict(zip(self.recipe.losses, means[1:], strict=True)),
            lr=lr,
            images_per_second=batches.size / seconds,
            seconds=seconds,
        )

    def _batches(self) -> NDArray[np.int64]:
        recipe = self.recipe
        if recipe.triplets and self.data.labels is not None:
            return sampler.identity_batches(
                self.data.labels,
                identities=recipe.identities_per_batch,
                images=recipe.images_per_identity,
                seed=self.seed,
                epoch=self.finished,
            )
        return sampler.shuffled_batches(
            len(self.data.images),
            batch_size=recipe.batch_size,
            seed=self.seed,
            epoch=self.finished,
        )

    def _set_learning_rate(self, progress: float) -> float:
        share = learning_rate(self.recipe, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share
        return self.recipe.lr * share

    def _step(self, rows: NDArray[np.int64], step: int, progress: float) -> NDArray[np.float64]:
        """One optimiser step; the loss and its unweighted terms."""
        batch = self._load(rows, step)
        with torch.autocast(
            self.device.type, dtype=self.precision, enabled=self.precision is not None
        ):
            output = self.model(batch.images)
        try:
            terms = _terms(output, batch, self.recipe)
        except losses.NonFiniteError as error:
            raise ValueError(f"epoch {self.finished + 1} batch {step + 1}: {error}") from error
        weights = _weights(self.recipe, progress)
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        values = torch.stack([loss, *terms.values()]).detach().double().cpu()
        return np.asarray(values.numpy())

    def _load(self, rows: NDArray[np.int64], step: int) -> _Batch:
        data = self.data
        views = augmentation.augment(
            self._on_device(data.images[rows]),
            self.recipe,
            generator=_generator(self.seed, self.finished, step),
        )
        labels = None if data.labels is None else self._on_device(data.labels[rows])
        if not self.recipe.decoder or data.textures is None or data.texture_index is None:
            return _Batch(views.images, labels, None)
        textures = self._on_device(data.textures[data.texture_index[rows]])
        targets = augmentation.texture_targets(textures, views.flipped, mirror=self.mirror)
        return _Batch(views.images, labels, targets)

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _terms(output: SANOutput, batch: _Batch, recipe: Recipe) -> dict[str, Tensor]:
    """The loss terms that count, unweighted, in the order of `recipe.losses`."""
    terms = {}
    labels, targets = batch.labels, batch.targets
    if recipe.w_id and output.logits is not None and labels is not None:
        terms["id"] = losses.identity_loss(output.logits, labels, smoothing=recipe.label_smoothing)
    if recipe.w_tri and labels is not None:
        terms["tri"] = losses.batch_hard_triplet(
            output.embedding, labels, margin=recipe.margin, normalize=recipe.normalize_triplet
        )
    if recipe.w_rec and output.texture is not None and targets is not None:
        terms["rec"] = losses.reconstruction_loss(
            output.texture, targets.textures, keep=targets.keep
        )
    if recipe.w_tr and labels is not None and targets is not None:
        terms["tr"] = losses.triplet_reid_constraint(
            output.maps, labels, margin=recipe.tr_margin, keep=targets.keep
        )
    return terms


def _weights(recipe: Recipe, progress: float) -> dict[str, float]:
    ramp = recipe.triplet_ramp_epochs
    share = min(1.0, progress / ramp) if ramp else 1.0
    return {
        "id": recipe.w_id,
        "tri": recipe.w_tri * share,
        "rec": recipe.w_rec,
        "tr": recipe.w_tr,
    }


def _generator(seed: int, epoch: int, step: int) -> torch.Generator:
    made = torch.Generator()
    made.manual_seed(sampler.derived_seed(seed, epoch, step, "augmentation"))
    return made


def _optimizer(model: SAN, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam, AMSGrad or AdamW in one fused pass: encoder with classifier, and the decoder."""
    decoder = [] if model.decoder is None else list(model.decoder.parameters())
    theirs = {id(parameter) for parameter in decoder}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in theirs]
    groups = [
        {"params": parameters, "peak_lr": lr}
        for parameters, lr in ((rest, recipe.lr), (decoder, recipe.decoder_lr))
        if parameters
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.Adam(
        groups,
        weight_decay=recipe.weight_decay,
        amsgrad=recipe.optimizer == "amsgrad",
        fused=True,
    )


def _precision(device: torch.device) -> torch.dtype | None:
    """Mixed precision on CUDA (bfloat16 where it is native), none elsewhere.

    NOTE not tested on a GPU. CPUs without native bfloat16 are several times slower with it.
    """
    if device.type != "cuda":
        return None
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def _check(model: SAN, data: TrainingData, recipe: Recipe) -> None:
    if data.images.shape[1:3] != recipe.image_size:
        found, wanted = data.images.shape[1:3], recipe.image_size
        raise ValueError(
            f"images are {found[0]}x{found[1]}, the recipe says {wanted[0]}x{wanted[1]}"
        )
    if recipe.decoder:
        if data.textures is None:
            raise ValueError(
                f"the recipe's losses {', '.join(recipe.losses)} need textures, there are none"
            )
        size = recipe.texture_size
        if data.textures.shape[1:3] != (size, size):
            rows, columns = data.textures.shape[1:3]
            raise ValueError(f"textures are {rows}x{columns}, the recipe says texture_size {size}")
    if (model.decoder is None) == recipe.decoder:
        raise ValueError("the model is not of this recipe: only one of them has a decoder")
    if recipe.identities:
        if data.labels is None:
            raise ValueError(
                f"the recipe's losses {', '.join(recipe.losses)} need labels, there are none"
            )
        if model.num_classes != data.num_classes:
            raise ValueError(
                f"the model has {model.num_classes} classes, the data {data.num_classes} identities"
            )
        if recipe.triplets and data.num_classes < recipe.identities_per_batch:
            raise ValueError(
                f"identities_per_batch is {recipe.identities_per_batch}, "
                f"but there are {data.num_classes} identities"
            )


def _mismatch(name: str, found: Any, expected: Any) -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        differing = [k for k in expected if found.get(k) != expected[k]]
        listed = ", ".join(f"{k} {found.get(k)!r} there, {expected[k]!r} here" for k in differing)
        return f"the state is of another recipe: {listed}"
    return f"the state is of another run: {name} {found!r} there, {expected!r} here"
