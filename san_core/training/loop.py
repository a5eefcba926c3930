"""One training loop for SAN, its baseline and SAN-PG: the recipe's losses tell them apart.

On one CPU machine with one number of threads, equal seeds give equal bytes, undisturbed or resumed:
batches and augmentation follow from (seed, epoch, batch), so a position is all there is to resume.
Legend: B batch.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from san_core.data.batches import augmentation, sampler
from san_core.data.batches.shares import check_shares
from san_core.data.batches.training_data import TrainingData as TrainingData
from san_core.data.batches.training_data import check_training_data
from san_core.model.encoder import to_channels_last
from san_core.model.san import SAN, SANOutput
from san_core.recipe import Recipe
from san_core.training import losses, objective, schedule
from san_core.training.distributed import (
    broadcast_from_first,
    current_world,
    distribute_network,
    is_set_in_any_process,
)
from san_core.training.optimisation import make_optimisation
from san_core.training.precision import Precision, autocast_type

State = dict[str, Any]


class EpochReport(NamedTuple):
    """Means over one epoch."""

    epoch: int  # epochs finished, 1 ... recipe.epochs
    loss: float  # the weighted sum that was minimised, PIT batches aside
    terms: dict[str, float]  # unweighted: "id", "tri", "rec", "tr", "pit", those that count
    lr: float  # the encoder's, at the epoch's last batch
    images_per_second: float  # wall time
    seconds: float  # wall time
    score: float | None = None  # of the validation split, where one was due


class TrainingStopped(Exception):  # noqa: N818 - nothing is wrong: training was asked to stop, and did
    """Training stopped because `stop` said so, after its state was handed to `on_state`."""


def fit(
    model: SAN,
    data: TrainingData,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str,
    state: State | None = None,
    on_state: Callable[[State], None] | None = None,
    evaluate: Callable[[SAN], float] | None = None,
    stop: Callable[[], bool] | None = None,
    precision: Precision = "auto",
    compiled: bool = False,
) -> Iterator[EpochReport]:
    """Train `model` in place, yielding a report after every epoch.

    Everything is checked by the call itself; training happens as the reports are drawn. Where
    torch.distributed has been initialised, each process calls this alike, with a network of equal
    weights, and trains on its share of every batch (see `san_core.training.distributed`).

    Args:
        model: the network of `recipe`; moved to `device`, left in training mode.
        data: labels where the recipe has identity losses, textures where it has a decoder, PIT
            where it mixes such batches in.
        recipe: what to learn and how.
        seed: of batches and augmentation; torch's own generators are never used.
        device: where to train.
        state: what `on_state` was given by an earlier run of the same recipe, seed, number of
            images and precision; training goes on where it was. Readable by
            torch.load(weights_only=True).
        on_state: called every `checkpoint_every` epochs, at the end and before `TrainingStopped`,
            ahead of the epoch's report, in every process (one copy is enough). The state refers to
            the live weights: save or copy it before returning. Its "best" holds the epoch, score
            and weights of the best validation so far, None where there was none.
        evaluate: scores the network on a validation split, higher is better, every `eval_every`
            epochs and at the end; may leave it in evaluation mode.
        stop: asked after every batch; once it says yes, training raises `TrainingStopped`. Several
            processes stop together, as soon as one says yes.
        precision: full or mixed; "auto" is mixed on CUDA alone.
        compiled: whether torch.compile makes the network faster, after minutes of preparation.

    Raises:
        ValueError: data, model, recipe, precision or state do not belong together; while training,
            a loss, gradient or score is not finite (naming epoch, batch and term).
        TrainingStopped: see `stop`.
    """
    _check_fit_arguments(model, data, recipe, evaluate)
    run = _TrainingRun(model, data, recipe, seed, torch.device(device), precision)
    if state is not None:
        run.restore(state)
    run.prepare_network(compiled=compiled)
    return run.train_epochs(on_state, evaluate, stop)


class _TrainingRun:
    """Model, optimisers and their position in the schedule: what a checkpoint holds."""

    def __init__(
        self,
        model: SAN,
        data: TrainingData,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.autocast_dtype = autocast_type(precision, device)
        to_channels_last(model.to(device))
        self.model, self.data, self.recipe = model, data, recipe
        self.seed, self.device, self.world = seed, device, current_world()
        scaler = torch.amp.GradScaler(device.type, enabled=self.autocast_dtype is torch.float16)
        self.optimisation = make_optimisation(model, recipe, scaler)
        self.network: Callable[..., SANOutput] = model
        self.mirror = _device_mirror(data, device)
        self.pit_mirror = None if data.pit is None else _device_mirror(data.pit, device)
        self.buffers = augmentation.BufferPool()
        self.epochs_finished = self.batch_index = 0  # epochs, and batches of the one at hand
        self.sums = _LossSums()
        self.best: State | None = None

    def prepare_network(self, *, compiled: bool) -> None:
        """Make the callable that trains: several processes' and compiled, as asked."""
        network = distribute_network(self.model, self.recipe, self.world, self.device)
        self.network = torch.compile(network) if compiled else network

    def train_epochs(
        self,
        on_state: Callable[[State], None] | None,
        evaluate: Callable[[SAN], float] | None,
        stop: Callable[[], bool] | None,
    ) -> Iterator[EpochReport]:
        while self.epochs_finished < self.recipe.epochs:
            try:
                report = self._train_epoch(stop)
            except TrainingStopped:
                if on_state is not None:
                    on_state(self._checkpoint_state())
                raise
            if evaluate is not None and self._is_due_or_last(self.recipe.eval_every):
                report = report._replace(score=self._validate(evaluate))
            if on_state is not None and self._is_due_or_last(self.recipe.checkpoint_every):
                on_state(self._checkpoint_state())
            yield report

    def restore(self, state: State) -> None:
        expected = self._resume_conditions()
        for name, value in expected.items():
            if state.get(name) != value:
                raise ValueError(_mismatch_message(name, state.get(name), value))
        self.model.load_state_dict(state["model"])
        self.optimisation.load_state_dict(state["optimisation"])
        self.epochs_finished, self.batch_index = state["epoch"], state["step"]
        self.sums, self.best = _LossSums(**state["sums"]), state["best"]

    def _resume_conditions(self) -> State:
        recipe = dataclasses.asdict(self.recipe)
        recipe["milestones"] = list(self.recipe.milestones)
        return {
            "recipe": recipe,
            "seed": self.seed,
            "images": len(self.data.images),
            "pit_images": 0 if self.data.pit is None else len(self.data.pit.images),
            "precision": str(self.autocast_dtype or torch.float32),
        }

    def _checkpoint_state(self) -> State:
        return {
            **self._resume_conditions(),
            "epoch": self.epochs_finished,
            "step": self.batch_index,
            "sums": dataclasses.asdict(self.sums),
            "model": self.model.state_dict(),
            "optimisation": self.optimisation.state_dict(),
            "best": self.best,
        }

    def _is_due_or_last(self, interval: int) -> bool:
        return self.epochs_finished % interval == 0 or self.epochs_finished == self.recipe.epochs

    def _train_epoch(self, stop: Callable[[], bool] | None) -> EpochReport:
        started, first = time.perf_counter(), self.batch_index
        self.model.train()
        batches = self._epoch_batches()
        while self.batch_index < len(batches):
            self._train_batch(batches)
            self.batch_index += 1
            if stop is not None and is_set_in_any_process(stop(), self.world, self.device):
                self._check_weights_finite()
                raise TrainingStopped(
                    f"in epoch {self.epochs_finished + 1} after batch {self.batch_index}"
                )
        self._check_weights_finite()
        seconds = time.perf_counter() - started
        means = self.sums.means()
        last = self.epochs_finished + (len(batches) - 1) / len(batches)
        done = (len(batches) - first) * batches.shape[1]
        self.epochs_finished, self.batch_index, self.sums = self.epochs_finished + 1, 0, _LossSums()
        return EpochReport(
            epoch=self.epochs_finished,
            loss=means.pop("loss"),
            terms=means,
            lr=self.recipe.lr * schedule.learning_rate_share(self.recipe, last),
            images_per_second=done / seconds,
            seconds=seconds,
        )

    def _check_weights_finite(self) -> None:
        """Raise ValueError if a weight is not finite: the last batch's loss cannot tell."""
        for name, weight in self.model.named_parameters():
            if not torch.isfinite(weight).all():
                raise ValueError(
                    f"epoch {self.epochs_finished + 1} batch {self.batch_index}: {name} is not "
                    "finite any more"
                )

    def _epoch_batches(self) -> NDArray[np.int64]:
        recipe = self.recipe
        if recipe.forms_triplets and self.data.labels is not None:
            return sampler.identity_batches(
                self.data.labels,
                identities=recipe.identities_per_batch,
                images=recipe.images_per_identity,
                seed=self.seed,
                epoch=self.epochs_finished,
            )
        return sampler.shuffled_batches(
            len(self.data.images),
            batch_size=recipe.batch_size,
            seed=self.seed,
            epoch=self.epochs_finished,
        )

    def _train_batch(self, batches: NDArray[np.int64]) -> None:
        """One step on the batch at hand, and on a PIT batch where one is due."""
        progress = self.epochs_finished + self.batch_index / len(batches)
        self.optimisation.set_learning_rate_share(
            schedule.learning_rate_share(self.recipe, progress)
        )
        weights = schedule.loss_weights(self.recipe, progress)
        try:
            self._train_main_batch(batches[self.batch_index], weights)
            done = self.epochs_finished * len(batches) + self.batch_index + 1
            if self.recipe.pit_every and done % self.recipe.pit_every == 0:
                self._train_pit_batch(done // self.recipe.pit_every - 1, weights)
        except losses.NonFiniteError as error:
            raise ValueError(
                f"epoch {self.epochs_finished + 1} batch {self.batch_index + 1}: {error}"
            ) from error

    def _train_main_batch(self, rows: NDArray[np.int64], weights: dict[str, float]) -> None:
        together = self.recipe.images_per_identity if self.recipe.forms_triplets else 1
        batch = self._load_share(self.data, self.mirror, rows, together, "augmentation")
        terms = objective.loss_terms(self._forward(batch), batch, self.recipe, self.world)
        loss = self.optimisation.step(terms, weights)
        self.sums.add(("loss", *terms), torch.stack([loss, *terms.values()]))

    def _train_pit_batch(self, number: int, weights: dict[str, float]) -> None:
        """A step on L_Rec of the PIT batch of that number, counted from the start of training."""
        pit = self.data.pit
        assert pit is not None  # checked with the recipe
        size = min(self.recipe.batch_size, len(pit.images))
        epoch, place = divmod(number, len(pit.images) // size)
        seed = sampler.derive_seed(self.seed, "PIT")
        rows = sampler.shuffled_batches(len(pit.images), batch_size=size, seed=seed, epoch=epoch)
        batch = self._load_share(pit, self.pit_mirror, rows[place], 1, "PIT augmentation")
        assert batch.targets is not None  # checked with the recipe
        try:
            output = self._forward(batch, identities=False)
            term = objective.reconstruction_term(output, batch.targets, self.world)
            self.optimisation.step({"rec": term}, weights)
        except losses.NonFiniteError as error:
            raise losses.NonFiniteError(f"PIT batch: {error}") from error
        self.sums.add(("pit",), term[None])

    def _forward(self, batch: objective.Batch, *, identities: bool = True) -> SANOutput:
        with torch.autocast(
            self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None
        ):
            return self.network(batch.images, identities=identities)

    def _load_share(
        self,
        data: TrainingData,
        mirror: augmentation.TextureMirror | None,
        rows: NDArray[np.int64],
        group_size: int,
        purpose: str,
    ) -> objective.Batch:
        """This process's share of the batch of `rows`, augmented as the whole batch would be."""
        rank, size = self.world
        mine = sampler.rows_of_rank(rows, rank=rank, size=size, group_size=group_size)
        views = augmentation.augment_images(
            self._rows_on_device("pixels", data.images, mine),
            self.recipe,
            generator=_random_generator(self.seed, self.epochs_finished, self.batch_index, purpose),
            skip=rank * len(mine),
            pool=self.buffers,
        )
        labels = None if data.labels is None else self._to_device(data.labels[rows])
        if not self.recipe.needs_decoder or data.textures is None or data.texture_index is None:
            return objective.Batch(views.images, labels, None)
        textures = self._rows_on_device("texels", data.textures, data.texture_index[mine])
        targets = augmentation.texture_targets(
            textures, views.flipped, mirror=mirror, pool=self.buffers
        )
        return objective.Batch(views.images, labels, targets)

    def _validate(self, evaluate: Callable[[SAN], float]) -> float:
        """The validation score, alike in all processes; the weights are kept if it is the best."""
        score = broadcast_from_first(evaluate(self.model), self.world, self.device)
        if not math.isfinite(score):
            raise ValueError(f"epoch {self.epochs_finished}: the validation score is {score}")
        if self.best is None or score > self.best["score"]:
            weights = {n: t.detach().cpu().clone() for n, t in self.model.state_dict().items()}
            self.best = {"epoch": self.epochs_finished, "score": score, "weights": weights}
        return score

    def _rows_on_device(
        self, name: str, array: NDArray[np.uint8], rows: NDArray[np.int64]
    ) -> Tensor:
        return self.buffers.gather_rows(name, array, rows).to(self.device)

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


@dataclasses.dataclass
class _LossSums:
    """Sums over the batches of an epoch, and how many each is of."""

    totals: dict[str, float] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, names: tuple[str, ...], values: Tensor) -> None:
        for name, value in zip(names, values.detach().double().tolist(), strict=True):
            self.totals[name] = self.totals.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {name: total / self.counts[name] for name, total in self.totals.items()}


def _device_mirror(data: TrainingData, device: torch.device) -> augmentation.TextureMirror | None:
    return (
        None if data.mirror is None else augmentation.TextureMirror.from_matrix(data.mirror, device)
    )


def _random_generator(*parts: int | str) -> torch.Generator:
    made = torch.Generator()
    made.manual_seed(sampler.derive_seed(*parts))
    return made


def _check_fit_arguments(
    model: SAN,
    data: TrainingData,
    recipe: Recipe,
    evaluate: Callable[[SAN], float] | None,
) -> None:
    check_training_data(data, recipe)
    if (model.decoder is None) == recipe.needs_decoder:
        raise ValueError("the model is not of this recipe: only one of them has a decoder")
    if recipe.needs_identities and model.num_classes != data.num_classes:
        raise ValueError(
            f"the model has {model.num_classes} classes, the data {data.num_classes} identities"
        )
    pit = None if data.pit is None else len(data.pit.images)
    check_batches_divide(recipe, images=len(data.images), pit_images=pit)
    if (evaluate is None) == (recipe.eval_every > 0):
        found = "there is no" if evaluate is None else "there is a"
        raise ValueError(f"recipe eval_every is {recipe.eval_every}, but {found} validation")


def check_batches_divide(recipe: Recipe, *, images: int, pit_images: int | None = None) -> None:
    """Raise ValueError unless the processes there are can train together.

    Args:
        recipe: what they are to train; every batch must have equal shares for them.
        images: to train on.
        pit_images: those of paired data, where such batches are mixed in.
    """
    check_shares(recipe, current_world().size, images=images, pit_images=pit_images)


def _mismatch_message(name: str, found: Any, expected: Any) -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        differing = [k for k in expected if found.get(k) != expected[k]]
        listed = ", ".join(f"{k} {found.get(k)!r} there, {expected[k]!r} here" for k in differing)
        return f"the state is of another recipe: {listed}"
    return f"the state is of another run: {name} {found!r} there, {expected!r} here"
