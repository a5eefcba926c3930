"""The training loop of SAN, its baseline and SAN-PG, which differ in the recipe's losses.

On one CPU machine with one number of threads, equal seeds give equal bytes, undisturbed or resumed:
batches and augmentation depend only on (seed, epoch, batch), so a position is enough to resume.
Legend: B batch.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from san_core.data.batches import augmentation, sampler
from san_core.data.batches.dense import dense_targets
from san_core.data.batches.loader import (
    BatchLoader,
    LoadedBatch,
    Wanted,
    loading_ahead,
    make_buffers,
)
from san_core.data.batches.shares import check_shares
from san_core.data.batches.training_data import TrainingData as TrainingData
from san_core.data.batches.training_data import check_training_data
from san_core.model.encoder import Encoder, to_channels_last
from san_core.model.randomness import drawing_from
from san_core.model.san import SAN, SANOutput
from san_core.recipe import Recipe
from san_core.seeds import derive_seed
from san_core.training import objective, schedule
from san_core.training.averaging import WeightAverage
from san_core.training.distributed import (
    World,
    broadcast_from_first,
    current_world,
    distribute_network,
    largest_of_processes,
)
from san_core.training.finiteness import FiniteFlags, LateCheck, TrainingFailedError
from san_core.training.optimisation import freeze_decoder, make_optimisation, set_trunk_frozen
from san_core.training.precision import (
    AUTOCAST_TYPES,
    Precision,
    autocast_type,
    convolution_arithmetic,
    repeatable_arithmetic,
)
from san_core.training.state import State, check_conditions, check_position, check_tensors
from san_core.training.sums import LossSums

# Errors of torch for a state that is not an optimiser's.
_FOREIGN_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError)


class EpochReport(NamedTuple):
    """Means over one epoch."""

    epoch: int  # epochs finished, 1 ... recipe.epochs
    loss: float  # the weighted sum that was minimised, without PIT batches
    # unweighted, those that count: "id", "tri", "distill", "rec", "tr", "dense", "pit"; each over
    # the batches that have it
    terms: dict[str, float]
    lr: float  # the encoder's, at the epoch's last batch
    images_per_second: float  # wall time
    seconds: float  # wall time
    waiting_share: float  # the part of that time in which training waited for batches
    score: float | None = None  # of the validation split, if the epoch was validated
    weights: Mapping[str, float] = {}  # of the terms in the sum, at the epoch's last batch
    accuracy: float | None = (
        None  # share of training pictures whose own identity had the highest logit
    )


class TrainingStopped(Exception):  # noqa: N818 - nothing is wrong: training was asked to stop, and did
    """Training stopped because `stop` returned true, after its state was passed to `on_state`."""


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
    state_due: Callable[[], bool] | None = None,
    on_best: Callable[[State], None] | None = None,
    precision: Precision = "auto",
    compiled: bool = False,
    teacher: Encoder | None = None,
) -> Iterator[EpochReport]:
    """Train `model` in place, yielding a report after every epoch.

    The call itself checks everything; training runs while the reports are iterated. Where
    torch.distributed has been initialised, each process calls this alike, with its own network,
    which takes the weights of the first process's network, and trains on its share of every batch
    (see `san_core.training.distributed`).

    Args:
        model: the network of `recipe`; moved to `device`, left in training mode. If the recipe
            keeps an average of weights, the model gets it after the last report.
        data: with labels if the recipe has identity losses, textures if it has a decoder, and PIT
            if it mixes in PIT batches.
        recipe: what to learn and how.
        seed: the seed of batches, augmentation and dropped branches; torch's global generators stay
            unchanged.
        device: where to train.
        state: a state that `on_state` received in an earlier run with the same recipe, seed, number
            of images and precision. Training resumes at its position; with precision "auto" it
            keeps the arithmetic it began with. Readable by torch.load(weights_only=True). Only the
            best weights are held after it is read.
        on_state: called every `checkpoint_every` epochs, at the end and before `TrainingStopped`,
            ahead of the epoch's report, in every process (one copy is enough). The state refers to
            the live weights: save or copy it before returning. Its "best" holds the epoch, score
            and weights of the best validation so far, None where there was none.
        evaluate: scores the network on a validation split, higher is better, every `eval_every`
            epochs and at the end; may leave it in evaluation mode. With several processes the first
            calls it and the others wait.
        stop: called after every batch; once it returns true, training raises `TrainingStopped`.
            Several processes stop together as soon as it is true in one.
        state_due: called after every batch, by the first of several processes; if it returns true,
            `on_state` is called there too, in the middle of an epoch ("step" is not 0).
        on_best: receives a state's "best" whenever a validation is better than all before, in every
            process.
        precision: full or mixed; "auto" is mixed on CUDA alone, and not with the recipe's
            `full_precision`. A step that overflows float16 is left out and does not count.
        compiled: whether torch.compile makes the network faster, after minutes of preparation.
        teacher: the encoder of SAN-PG, from which a recipe with w_distill learns features; moved to
            `device`, otherwise unchanged. A state does not hold it.

    Raises:
        ValueError: data, model, recipe, precision and state do not match, or several processes are
            to compile.
        TrainingFailedError: a loss, gradient or score is not finite (the message names epoch, batch
            and term; it comes one batch later, but before any state is saved), or `evaluate` raises
            it.
        TrainingStopped: see `stop`.
    """
    _check_fit_arguments(model, data, recipe, evaluate)
    _check_teacher(teacher, model, recipe)
    _check_compiled(compiled=compiled)
    if recipe.full_precision and precision == "auto":
        precision = "float32"
    run = _TrainingRun(model, data, recipe, seed, torch.device(device), precision)
    if state is not None:
        run.restore(state)
    run.prepare_network(compiled=compiled)
    run.prepare_teacher(teacher)
    requests = _Requests(stop, state_due if on_state else None, on_state, on_best)
    return run.train_epochs(evaluate, requests)


_KEEP_STATE, _STOP = 1, 2  # requests after a batch; 0 is none


class _Requests(NamedTuple):
    """The callbacks that may stop a training within an epoch or receive its states."""

    stop: Callable[[], bool] | None
    state_due: Callable[[], bool] | None
    on_state: Callable[[State], None] | None
    on_best: Callable[[State], None] | None

    def after_batch(self, world: World, device: torch.device) -> int:
        """The request, equal in all processes: any may stop; only the first asks for states."""
        if self.stop is None and self.state_due is None:
            return 0
        is_due = self.state_due is not None and world.rank == 0 and self.state_due()
        is_stopped = self.stop is not None and self.stop()
        own = _STOP if is_stopped else _KEEP_STATE if is_due else 0
        return largest_of_processes(own, world, device)


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
        self.precision, self.autocast_dtype = precision, autocast_type(precision, device)
        if recipe.stale_gradients and self.autocast_dtype is not None:
            raise ValueError(
                f"stale_gradients needs float32 weights, but precision {precision} computes with "
                "copies of them: choose precision float32"
            )
        to_channels_last(model.to(device))
        self.model, self.data, self.recipe = model, data, recipe
        self.seed, self.device, self.world = seed, device, current_world()
        self._prepare_optimisation()
        self.network: Callable[..., SANOutput] = model
        self.mirror = _device_mirror(data, device)
        self.pit_mirror = None if data.pit is None else _device_mirror(data.pit, device)
        self.texel_mirror = (
            None if data.texel_mirror is None else torch.tensor(data.texel_mirror, device=device)
        )
        self.buffers = augmentation.BufferPool()
        self.batch_buffers = [make_buffers(device) for _ in range(2)]
        self.epochs_finished = self.batch_index = (
            0  # finished epochs, and batches of the current one
        )
        self.sums, self.late = LossSums(device), LateCheck(device)
        self.best: State | None = None
        self.average: WeightAverage | None = None
        self._kept_average: dict[str, Tensor] | None = None
        self.teacher: Encoder | None = None

    def _prepare_optimisation(self) -> None:
        if not self.recipe.train_decoder:
            freeze_decoder(self.model)
        self.may_overflow = self.autocast_dtype is torch.float16
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.may_overflow)
        self.optimisation = make_optimisation(self.model, self.recipe, scaler)

    def prepare_network(self, *, compiled: bool) -> None:
        """Make the callable that trains, distributed and compiled if asked for."""
        network = distribute_network(self.model, self.recipe, self.world, self.device)
        self.network = torch.compile(network) if compiled else network
        if self.recipe.ema:  # of weights that all processes have by now
            self.average = WeightAverage(self.model, self.recipe.ema)
            if self._kept_average is not None:
                self.average.load_state_dict(self._kept_average)
            self._kept_average = None

    def prepare_teacher(self, teacher: Encoder | None) -> None:
        """Set the encoder to learn features from, if there is one."""
        if teacher is not None:
            to_channels_last(teacher.to(self.device)).eval().requires_grad_(False)
        self.teacher = teacher

    def train_epochs(
        self, evaluate: Callable[[SAN], float] | None, requests: "_Requests"
    ) -> Iterator[EpochReport]:
        on_state, sound = requests.on_state, None
        if self.epochs_finished and self.best is None:  # resumed from a state
            with self._averaged():
                sound = self._kept_weights(None)
        while self.epochs_finished < self.recipe.epochs:
            try:
                report = self._train_epoch(requests)
                if evaluate is not None and self._is_due_or_last(self.recipe.eval_every):
                    before = self.best
                    report = report._replace(score=self._validate(evaluate))
                    if requests.on_best and self.best is not None and self.best is not before:
                        requests.on_best(self.best)
            except TrainingStopped:
                if on_state is not None:
                    on_state(self._checkpoint_state())
                raise
            except TrainingFailedError as error:
                error.kept = self.best or sound
                raise
            if self.best is None:
                with self._averaged():
                    sound = self._kept_weights(None)
            if on_state is not None and self._is_due_or_last(self.recipe.checkpoint_every):
                on_state(self._checkpoint_state())
            yield report
        if self.average is not None:
            self.average.keep()

    def restore(self, state: State) -> None:
        """Resume from a state.

        Raises:
            ValueError: it belongs to another training, or is not a state.
        """
        check_position(state)
        if self.precision == "auto" and state["precision"] in AUTOCAST_TYPES:
            self.autocast_dtype = AUTOCAST_TYPES[
                state["precision"]
            ]  # this machine's may be another
            self._prepare_optimisation()
        check_conditions(state, self._resume_conditions())
        own = self.model.state_dict()
        check_tensors("network", state.get("model"), own)
        self.model.load_state_dict(state["model"])
        try:
            self.optimisation.load_state_dict(state["optimisation"])
            self.sums.load_state_dict(state["sums"])
        except _FOREIGN_ERRORS as error:
            raise ValueError(
                "the training state belongs to another optimiser than the recipe's"
            ) from error
        self.epochs_finished, self.batch_index = state["epoch"], state["step"]
        self._check_restored_position()
        if state["best"]:
            check_tensors("best network", state["best"].get("weights"), own)
        self.best = state["best"]
        if self.recipe.ema:
            check_tensors("averaged network", state.get("average"), own)
        self._kept_average = state.get("average")

    def _check_restored_position(self) -> None:
        """Raise ValueError if the state's position is beyond the end of this training."""
        is_over = self.epochs_finished >= self.recipe.epochs
        last = 0 if is_over else len(self._epoch_batches())
        if self.epochs_finished > self.recipe.epochs or self.batch_index > last:
            raise ValueError(
                f"the training state was saved in epoch {self.epochs_finished + 1} after batch"
                f" {self.batch_index}, which this training does not have"
            )

    def _resume_conditions(self) -> State:
        recipe = dataclasses.asdict(self.recipe)
        recipe["milestones"] = list(self.recipe.milestones)
        return {
            "recipe": recipe,
            "seed": self.seed,
            "images": len(self.data.images),
            "pit_images": 0 if self.data.pit is None else len(self.data.pit.images),
            "precision": "tf32"
            if self.precision == "tf32"
            else str(self.autocast_dtype or torch.float32),
        }

    def _checkpoint_state(self) -> State:
        return {
            **self._resume_conditions(),
            "epoch": self.epochs_finished,
            "step": self.batch_index,
            "sums": self.sums.state_dict(),
            "model": self.model.state_dict(),
            "optimisation": self.optimisation.state_dict(),
            "best": self.best,
            "average": None if self.average is None else self.average.state_dict(),
        }

    def _is_due_or_last(self, interval: int) -> bool:
        return self.epochs_finished % interval == 0 or self.epochs_finished == self.recipe.epochs

    def _train_epoch(self, requests: "_Requests") -> EpochReport:
        started, first = time.perf_counter(), self.batch_index
        self.model.train()
        is_frozen = self.epochs_finished < self.recipe.frozen_epochs
        set_trunk_frozen(self.model.encoder, frozen=is_frozen)
        if not self.recipe.train_decoder:
            freeze_decoder(self.model)
        batches = self._epoch_batches()
        with (
            convolution_arithmetic(self.precision, self.device),
            repeatable_arithmetic(wanted=self.recipe.deterministic),
            loading_ahead(self._wanted_batches(batches), self.recipe, self.batch_buffers) as loader,
        ):
            while self.batch_index < len(batches):
                self._train_batch(loader, len(batches))
                self.batch_index += 1
                self.late.read(but_last=1)
                self._answer(requests, is_last=self.batch_index == len(batches))
        self._check_finite()
        means = self._epoch_means()
        seconds = time.perf_counter() - started
        last = self.epochs_finished + (len(batches) - 1) / len(batches)
        done = (len(batches) - first) * batches.shape[1]
        self.epochs_finished, self.batch_index = self.epochs_finished + 1, 0
        self.sums = LossSums(self.device)
        accuracy = means.pop("accuracy", None)
        return EpochReport(
            epoch=self.epochs_finished,
            loss=means.pop("loss"),
            terms=means,
            lr=self.recipe.lr * schedule.learning_rate_share(self.recipe, last),
            images_per_second=done / seconds,
            seconds=seconds,
            waiting_share=loader.seconds_waited / seconds,
            weights=schedule.loss_weights(self.recipe, last),
            accuracy=accuracy,
        )

    def _answer(self, requests: "_Requests", *, is_last: bool) -> None:
        """After a batch, stop or hand out a state if requested; after the last batch, only stop.

        Raises:
            TrainingStopped: a stop was requested.
        """
        asked = requests.after_batch(self.world, self.device)
        if not asked:
            return
        self._check_finite()
        if asked == _STOP:
            raise TrainingStopped(
                f"in epoch {self.epochs_finished + 1} after batch {self.batch_index}"
            )
        if not is_last and requests.on_state is not None:
            requests.on_state(self._checkpoint_state())

    def _check_finite(self) -> None:
        """Raise TrainingFailedError if a loss was not finite, or the network no longer is.

        The last batch's loss does not show the effect of its step. A state is made only after this
        check.
        """
        self.late.read()
        flags = FiniteFlags()
        for name, values in self.model.state_dict().items():
            flags.note(name, values)
        found = flags.stacked().tolist()
        if not all(found):
            raise TrainingFailedError(
                f"epoch {self.epochs_finished + 1} batch {self.batch_index}: "
                f"{flags.name_of(found.index(False))} is no longer finite"
            )

    def _epoch_means(self) -> dict[str, float]:
        try:
            return self.sums.means()
        except ZeroDivisionError:
            raise TrainingFailedError(
                f"epoch {self.epochs_finished + 1}: every batch overflowed float16; train with "
                "precision bfloat16 or float32"
            ) from None

    def _epoch_batches(self) -> NDArray[np.int64]:
        return _batches_of_epoch(self.data, self.recipe, seed=self.seed, epoch=self.epochs_finished)

    def _wanted_batches(self, batches: NDArray[np.int64]) -> list[Wanted]:
        """The remaining batches of the epoch, with PIT batches in between."""
        together = self.recipe.images_per_identity if self.recipe.forms_triplets else 1
        wanted = []
        for index in range(self.batch_index, len(batches)):
            main = self._wanted("main", self.data, batches[index], together, index, "augmentation")
            done = self.epochs_finished * len(batches) + index
            takes = schedule.takes_textures(self.recipe, self.epochs_finished, done)
            wanted.append(main._replace(has_textures=takes, textured=self._textured(main)))
            number = self._pit_batch_after(index, len(batches))
            if number is not None:
                assert self.data.pit is not None  # checked with the recipe
                rows = self._pit_rows(self.data.pit, number)
                wanted.append(
                    self._wanted("pit", self.data.pit, rows, 1, index, "PIT augmentation")
                )
        return wanted

    def _wanted(
        self,
        source: str,
        data: TrainingData,
        rows: NDArray[np.int64],
        group_size: int,
        index: int,
        purpose: str,
    ) -> Wanted:
        """This process's share of a batch, to be augmented as the whole batch would be."""
        rank, size = self.world
        mine = sampler.rows_of_rank(rows, rank=rank, size=size, group_size=group_size)
        seed = (self.seed, self.epochs_finished, index, purpose)
        return Wanted(source, data, rows, mine, rank * len(mine), seed)

    def _textured(self, main: Wanted) -> NDArray[np.int64] | None:
        """The places of a ReID batch that have texture losses; None where all have."""
        share, recipe = self.recipe.texture_share, self.recipe
        if share == 1:
            return None
        together = recipe.images_per_identity if recipe.forms_triplets else 1
        return sampler.places_of_share(len(main.rows), share, group_size=together)

    def _pit_batch_after(self, index: int, epoch_length: int) -> int | None:
        """The PIT batch due after a batch of the epoch, counted from the start of training."""
        every, done = self.recipe.pit_every, self.epochs_finished * epoch_length + index + 1
        if not every or not schedule.has_texture_losses(self.recipe, self.epochs_finished):
            return None
        return done // every - 1 if done % every == 0 else None

    def _pit_rows(self, pit: TrainingData, number: int) -> NDArray[np.int64]:
        size = min(self.recipe.batch_size, len(pit.images))
        epoch, place = divmod(number, len(pit.images) // size)
        seed = derive_seed(self.seed, "PIT")
        rows = sampler.shuffled_batches(len(pit.images), batch_size=size, seed=seed, epoch=epoch)
        picked: NDArray[np.int64] = rows[place]
        return picked

    def _train_batch(self, loader: BatchLoader, epoch_length: int) -> None:
        """One step on the batch at hand, and on a PIT batch where one is due."""
        progress = self.epochs_finished + self.batch_index / epoch_length
        self.optimisation.set_progress(progress)
        weights, flags = schedule.loss_weights(self.recipe, progress), FiniteFlags()
        self._train_main_batch(loader.next(), weights, flags)
        if self._pit_batch_after(self.batch_index, epoch_length) is not None:
            self._train_pit_batch(loader.next(), weights, flags)
        if self.average is not None:
            self.average.update()
        if not self.may_overflow:  # otherwise steps that overflowed are left out
            place = f"epoch {self.epochs_finished + 1} batch {self.batch_index + 1}"
            self.late.add(place, flags)

    def _train_main_batch(
        self, loaded: LoadedBatch, weights: dict[str, float], flags: FiniteFlags
    ) -> None:
        batch, before = self._augment(loaded, self.mirror), self._statistics()
        output, batch = self._forward(batch), batch._replace(hints=self._hints(batch.images))
        terms = objective.loss_terms(output, batch, self.recipe, self.world, flags)
        finite = flags.all_finite()
        loss = self.optimisation.step(terms, weights, flags)
        self._restore_statistics(before, unless=finite)
        self._add_to_sums({"loss": loss, **terms}, counts=finite)
        accuracy = objective.identity_accuracy(output, batch.labels, self.world)
        if accuracy is not None:
            self.sums.add(("accuracy",), accuracy[None], counts=finite)

    def _add_to_sums(self, values: dict[str, Tensor], *, counts: Tensor) -> None:
        """Add a batch's values; texture terms separately, because other batches may lack them."""
        texture = [name for name in values if name in ("rec", "tr", "dense")]
        rest = [name for name in values if name not in texture]
        for names in (rest, texture) if texture else (rest,):
            self.sums.add(names, torch.stack([values[name] for name in names]), counts=counts)

    def _train_pit_batch(
        self, loaded: LoadedBatch, weights: dict[str, float], flags: FiniteFlags
    ) -> None:
        """A step on L_Rec of a PIT batch."""
        batch, before = self._augment(loaded, self.pit_mirror), self._statistics()
        assert batch.targets is not None  # checked with the recipe
        output, own = self._forward(batch, identities=False), FiniteFlags()
        term = objective.reconstruction_term(output, batch.targets, self.world, own)
        finite = own.all_finite()
        self.optimisation.step({"rec": term}, weights, own)
        self._restore_statistics(before, unless=finite)
        flags.take(own, prefix="PIT batch: ")
        self.sums.add(("pit",), term[None], counts=finite)

    def _statistics(self) -> list[Tensor]:
        """The running statistics, if the next forward pass may overflow float16."""
        return [buffer.clone() for buffer in self.model.buffers()] if self.may_overflow else []

    def _restore_statistics(self, before: list[Tensor], *, unless: Tensor) -> None:
        """Restore them if the pass overflowed: a skipped step must have no effect."""
        for kept, buffer in zip(before, self.model.buffers(), strict=False):
            buffer.copy_(torch.where(unless, buffer, kept))

    def _forward(self, batch: objective.Batch, *, identities: bool = True) -> SANOutput:
        purpose = "drop path" if identities else "PIT drop path"
        with self._drawing(purpose), self._autocast():
            return self.network(
                batch.images,
                identities=identities,
                textures=batch.targets is not None,
                textured=batch.part and batch.part.rows,
            )

    def _hints(self, images: Tensor) -> Tensor | None:
        """The teacher's f_e4 of the pictures as they were augmented; None without a teacher."""
        if self.teacher is None:
            return None
        with torch.no_grad(), self._autocast():
            return self.teacher.stage_maps(images)[3]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None
        )

    def _drawing(self, purpose: str) -> AbstractContextManager[None]:
        """Within the block, what the network draws follows from seed, epoch, batch and process."""
        if not self.recipe.drop_path:
            return nullcontext()
        place = (self.seed, self.epochs_finished, self.batch_index, self.world.rank, purpose)
        return drawing_from(derive_seed(*place), self.device)

    def _augment(
        self, loaded: LoadedBatch, mirror: augmentation.TextureMirror | None
    ) -> objective.Batch:
        images = augmentation.augment_images(
            loaded.pixels, loaded.draws, self.recipe, large=loaded.large, pool=self.buffers
        )
        if loaded.texels is None:
            return objective.Batch(images, loaded.labels, None)
        dense = None
        if loaded.dense is not None:
            dense = dense_targets(
                loaded.dense, loaded.draws, self.recipe, texel_mirror=self.texel_mirror
            )
        targets = augmentation.texture_targets(
            loaded.texels,
            loaded.draws.flipped if loaded.part is None else loaded.part.flipped,
            mirror=mirror,
            flip_textures=self.recipe.flip_textures,
            pool=self.buffers,
        )
        return objective.Batch(images, loaded.labels, targets, dense, loaded.part)

    def _validate(self, evaluate: Callable[[SAN], float]) -> float:
        """The validation score, equal in all processes; the weights are kept if it is the best."""
        with self._averaged():
            return self._score(evaluate)

    def _averaged(self) -> AbstractContextManager[None]:
        """Within the block the network has the average as its weights, if it has one."""
        return nullcontext() if self.average is None else self.average.in_place()

    def _score(self, evaluate: Callable[[SAN], float]) -> float:
        own, failed = math.nan, None
        if self.world.rank == 0:
            try:
                own = evaluate(self.model)
            except TrainingFailedError as error:  # the others must not wait for a score
                failed = TrainingFailedError(f"epoch {self.epochs_finished}: {error}")
        score = broadcast_from_first(own, self.world, self.device)
        if failed:
            raise failed
        if not math.isfinite(score):
            raise TrainingFailedError(
                f"epoch {self.epochs_finished}: the validation score is {score}"
            )
        if self.best is None or score > self.best["score"]:
            self.best = self._kept_weights(score)
        return score

    def _kept_weights(self, score: float | None) -> State:
        """The current weights on the host, with their epoch."""
        weights = {n: t.detach().cpu().clone() for n, t in self.model.state_dict().items()}
        return {"epoch": self.epochs_finished, "score": score, "weights": weights}


def _batches_of_epoch(
    data: TrainingData, recipe: Recipe, *, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The row numbers of every batch of an epoch: (batches, images)."""
    if recipe.forms_triplets and data.labels is not None:
        return sampler.identity_batches(
            data.labels,
            identities=recipe.identities_per_batch,
            images=recipe.images_per_identity,
            seed=seed,
            epoch=epoch,
        )
    return sampler.shuffled_batches(
        len(data.images), batch_size=recipe.batch_size, seed=seed, epoch=epoch
    )


def _device_mirror(data: TrainingData, device: torch.device) -> augmentation.TextureMirror | None:
    return (
        None if data.mirror is None else augmentation.TextureMirror.from_matrix(data.mirror, device)
    )


def _check_fit_arguments(
    model: SAN,
    data: TrainingData,
    recipe: Recipe,
    evaluate: Callable[[SAN], float] | None,
) -> None:
    check_training_data(data, recipe)
    if (model.decoder is None) == recipe.needs_decoder:
        raise ValueError("the model does not match the recipe: only one of them has a decoder")
    if recipe.needs_identities and model.num_classes != data.num_classes:
        raise ValueError(
            f"the model has {model.num_classes} classes, the data {data.num_classes} identities"
        )
    pit = None if data.pit is None else len(data.pit.images)
    check_batches_divide(recipe, images=len(data.images), pit_images=pit)
    _check_learning_rate(data, recipe)
    if (evaluate is None) == (recipe.eval_every > 0):
        found = "there is no" if evaluate is None else "there is a"
        raise ValueError(f"recipe eval_every is {recipe.eval_every}, but {found} validation")


def _check_teacher(teacher: Encoder | None, model: SAN, recipe: Recipe) -> None:
    if (teacher is None) == (recipe.w_distill > 0):
        found = "there is no" if teacher is None else "there is a"
        raise ValueError(f"recipe w_distill is {recipe.w_distill:g}, but {found} teacher")
    if teacher is None:
        return
    theirs, own = (
        (each.arch, each.channels[3], each.strides[3]) for each in (teacher, model.encoder)
    )
    if theirs[1:] != own[1:]:
        there, here = (f"{arch} (f_e4 {c} channels, stride {s})" for arch, c, s in (theirs, own))
        raise ValueError(f"w_distill compares maps of one size: {there} there, {here} here")


def _check_learning_rate(data: TrainingData, recipe: Recipe) -> None:
    """Raise ValueError if the training would be over before warm-up leaves a learning rate of 0."""
    if recipe.epochs > 1 or not recipe.warmup_epochs:
        return
    if len(_batches_of_epoch(data, recipe, seed=0, epoch=0)) == 1:
        raise ValueError(
            "training has only one batch, and warm-up begins at a learning rate of 0:"
            " nothing would be learned; set warmup_epochs=0, or train for more epochs"
        )


def _check_compiled(*, compiled: bool) -> None:
    if compiled and current_world().size > 1:
        raise ValueError(
            "compiled needs a single process: torch.compile breaks the graph at every batch "
            "normalisation that processes share (pytorch issue 161302)"
        )


def check_batches_divide(recipe: Recipe, *, images: int, pit_images: int | None = None) -> None:
    """Raise ValueError unless the present processes can train together.

    Args:
        recipe: the recipe to train; every batch must divide equally among them.
        images: to train on.
        pit_images: those of paired data, where such batches are mixed in.
    """
    check_shares(recipe, current_world().size, images=images, pit_images=pit_images)
