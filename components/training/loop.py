"""The training loop of both training steps: epochs, checkpoints, and choice of the best weights."""

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from torch import Tensor

from components.command.code import code_fingerprint
from components.process.machine import device
from components.process.signals import Terminated, defer_stop
from components.process.torchrun import is_first_rank
from components.storage.checkpoint import Checkpoint, no_state_error, read_state
from components.storage.outputs import write_file
from components.training.beside import Beside, history_lines
from components.training.compiler import check_compiler
from components.training.meeting import fetch_state
from components.training.ranks import SINGLE_PROCESS, Ranks
from san_core.checked_json import check_shape
from san_core.model import weights
from san_core.model.encoder import Encoder
from san_core.model.san import SAN
from san_core.model.saved import HISTORY_FILE
from san_core.recipe import Recipe, idle_settings
from san_core.seeds import check_seed
from san_core.training.finiteness import TrainingFailedError
from san_core.training.loop import EpochReport, TrainingData, TrainingStopped, fit
from san_core.training.precision import resolve_precision

log = logging.getLogger(__name__)

History = list[dict[str, Any]]

# The history's name of training accuracy: the share of pictures whose own identity ranks first.
ACCURACY = "accuracy"
# The keys of a record of the history besides the terms of the loss.
_NOT_LOSS_TERMS = ("epoch", "loss", "lr")
_SCORE_PREFIX = "val_"
# The names of loss terms for people who compare runs.
_LOSS_NAMES = {
    "loss": "loss",
    "id": "loss_identity",
    "tri": "loss_triplet",
    "distill": "loss_distillation",
    "rec": "loss_texture",
    "tr": "loss_texture_triplet",  # the triplet ReID constraint on the decoder's maps
    "dense": "loss_place",  # the places that a copying decoder looks at, against dense maps
    "pit": "loss_texture_pit",  # L_Rec of the PIT batches that are mixed in
}


class Validation(NamedTuple):
    """The validation of a network in training: a score, where higher is better.

    Attributes:
        name: such as "mAP"; in the history "val_mAP".
        score: the function that computes it.
        interval: the confidence interval (low, high) of the last score; None if it is unknown.
        of: what is scored, in words.
    """

    name: str
    score: Callable[[SAN], float]
    interval: Callable[[], tuple[float, float] | None] = lambda: None
    of: str = ""


class BestWeights(NamedTuple):
    """The weights that scored best on the validation split.

    If a training failed before its first score, the weights of the last epoch, without a score.
    """

    epoch: int
    score: float | None
    weights: dict[str, Tensor]

    @classmethod
    def of_state(cls, kept: Mapping[str, Any] | None) -> "BestWeights | None":
        """The best weights in a state or an error."""
        return None if kept is None else cls(kept["epoch"], kept["score"], kept["weights"])


class TrainingResult(NamedTuple):
    """The result of training, besides the network with its last weights.

    Attributes:
        history: a record per epoch.
        best: None without validation.
        failure: why training ended early; empty if it did not. Then `best` is set.
        keep_beside: writes a file, by its name, beside the checkpoint.
    """

    history: History
    best: BestWeights | None
    failure: str = ""
    keep_beside: Callable[[str, str], None] = lambda _name, _content: None

    @property
    def best_facts(self) -> dict[str, Any]:
        """The epoch whose weights are the model's, if it is not simply the last."""
        failed = {"failed": self.failure} if self.failure else {}
        if self.best is None:
            return failed
        scored = {} if self.best.score is None else {"best_score": self.best.score}
        return {"best_epoch": self.best.epoch, **scored, **failed}

    @property
    def failure_line(self) -> str:
        """The error of the step after its outputs are written; empty if training succeeded."""
        if not self.failure or self.best is None:
            return ""
        return (
            f"{self.failure}; the best weights until then, of epoch {self.best.epoch}, are written"
            " and marked as failed"
        )

    @property
    def kept_record(self) -> dict[str, Any]:
        """The history's record of the epoch whose weights are the model's."""
        return self.history[-1 if self.best is None else self.best.epoch - 1]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a step was asked to train, whether SAN or SAN-PG.

    Attributes:
        step: its name.
        recipe: what to learn and how.
        seed: of batches and augmentation.
        precision: as in `san_core.training.precision`.
        compiled: whether to train through torch.compile.
        checkpoint: folder or URI for the state of unfinished training; empty keeps none.
        checkpoint_minutes: minutes between checkpoints within an epoch; 0 for none.
        has_start_from: whether the step can train a given model further, with --start-from.

    Raises:
        ValueError: the seed or the minutes are out of their range, the precision is not one for
            this machine, or nothing here compiles.
    """

    step: str
    recipe: Recipe
    seed: int
    precision: str
    compiled: bool
    checkpoint: str
    checkpoint_minutes: float
    has_start_from: bool = False

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not self.checkpoint_minutes >= 0:  # nor is nan
            raise ValueError(
                f"checkpoint_minutes is {self.checkpoint_minutes:g}; give 0 (never) or more"
            )
        resolve_precision(self.precision, device())
        if self.compiled:
            check_compiler(device())

    def open_checkpoint(self, room: Path, inputs: Mapping[str, Any]) -> Checkpoint:
        """The checkpoint of this training. inputs: digests that decide its result too."""
        return Checkpoint(
            self.checkpoint,
            {**self.decisive, **inputs},
            room=room,
            has_start_from=self.has_start_from,
        )

    @cached_property
    def decisive(self) -> dict[str, Any]:
        """The settings that decide the result besides the inputs, as JSON."""
        return {
            "step": self.step,
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "device": device().type,
            "precision": self.precision,
            "code": code_fingerprint(f"components.{self.step}", with_pages=False),
        }


def train(
    model: SAN,
    data: TrainingData,
    settings: TrainingSettings,
    *,
    inputs: Mapping[str, Any],
    room: Path,
    ranks: Ranks = SINGLE_PROCESS,
    validation: Validation | None = None,
    facts: Mapping[str, Any] | None = None,
    teacher: Encoder | None = None,
) -> TrainingResult:
    """Train to the end, from the start or from the checkpoint; one log line per epoch.

    Args:
        model: the network at the start of training.
        data: the training data.
        settings: the settings of training.
        inputs: digests of the artifacts and first weights, as JSON: they decide the result too.
        room: a folder of this node that its processes share until training is done.
        ranks: the processes that train together.
        validation: the validation, if the recipe validates.
        facts: facts of the model, as JSON; models beside the checkpoint have them too.
        teacher: the network whose features a recipe with w_distill distils.

    Returns:
        A record per epoch: epoch, loss, the terms, lr and, if one was due, the validation score.
        Records contain no times, so equal training gives equal histories.

    Raises:
        Terminated: a stop signal arrived; the state after the current batch is saved.
        TrainingFailedError: training failed before the end of its first epoch.
        ValueError: this training is known to fail.
    """
    recipe = settings.recipe
    log.info("recipe: %s", json.dumps(asdict(recipe)))
    if recipe.deterministic:  # cuBLAS reads it at its first product
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    for line in idle_settings(recipe):
        log.warning("%s", line)
    checkpoint = settings.open_checkpoint(room, inputs)
    ranks.make_on_first(checkpoint.check_not_failed)
    kept = fetch_state(ranks, checkpoint)
    facts = {**(facts or {}), "num_classes": model.num_classes}
    keeping = _Keeping(
        checkpoint,
        Beside(checkpoint, recipe, facts, room=room),
        _Begun.read(kept) if kept else _Begun(),
        facts,
    )
    with defer_stop() as stop:
        reports = fit(
            model,
            data,
            recipe,
            seed=settings.seed,
            device=device(),
            state=keeping.begun.take_state(),
            on_state=keeping.take_state,
            on_best=keeping.keep_best,
            evaluate=validation.score if validation else None,
            stop=stop,
            state_due=_timer(settings.checkpoint_minutes) if settings.checkpoint_minutes else None,
            precision=resolve_precision(settings.precision, device()),
            compiled=settings.compiled,
            teacher=teacher,
        )
        try:
            for report in reports:
                scores = _validation_scores(report, validation)
                log.info("%s", _epoch_line(report, recipe, _scores_in_words(scores, validation)))
                keeping.add_epoch(_epoch_record(report, scores))
        except TrainingStopped as stopped:
            keeping.save_state()
            ranks.gather(
                None
            )  # none leaves before the first has saved: its end would end the others
            log.info("stopped %s", stopped)
            raise Terminated(stop.number or signal.SIGTERM) from stopped
        except TrainingFailedError as error:
            return keeping.fail(error)
    return keeping.result()


class _Keeping:
    """What the first process saves during training: states, history and a model."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        beside: Beside,
        begun: "_Begun",
        facts: Mapping[str, Any],
    ) -> None:
        self.begun, self.history, self._best = begun, begun.history, begun.best
        self._checkpoint, self._beside, self._facts = checkpoint, beside, facts
        self._states: list[dict[str, Any]] = []

    def take_state(self, state: dict[str, Any]) -> None:
        """Take the present state; the weights do not change until it is saved."""
        self._states.append(state)
        if state["step"]:  # within an epoch, so there is no report to wait for
            self.save_state()

    def keep_best(self, best: dict[str, Any]) -> None:
        """Save the best weights so far as a model."""
        self._best = best
        if is_first_rank():
            self._beside.keep_model(
                best["weights"],
                self.history,
                best_epoch=best["epoch"],
                best_score=best["score"],
            )

    def add_epoch(self, record: dict[str, Any]) -> None:
        """Add an epoch to the history, and save the state that came with it."""
        self.history.append(record)
        if is_first_rank():
            self._beside.keep_history(self.history)
        self.save_state()

    def save_state(self) -> None:
        """Save the state that was taken, if there is one, and its weights if none were scored."""
        if not self._states:
            return
        state = self._states.pop()
        self._best = state["best"]
        if not is_first_rank():
            return
        epoch = state["epoch"]
        self._checkpoint.save(
            {"epoch": epoch, "fit": state, "history": self.history, "facts": dict(self._facts)}
        )
        if self._best is None:
            self._beside.keep_model(state["average"] or state["model"], self.history)

    def fail(self, error: TrainingFailedError) -> TrainingResult:
        """The result of a failed training, marked as failed.

        Raises:
            TrainingFailedError: there is none, as no epoch had ended.
        """
        kept = error.kept or self._best
        if is_first_rank():
            self._checkpoint.keep_failure(str(error), has_model=kept is not None)
            if kept is not None:
                self._beside.keep_model(
                    kept["weights"], self.history, best_epoch=kept["epoch"], failed=str(error)
                )
        if kept is None:
            raise error
        return TrainingResult(
            self.history, BestWeights.of_state(kept), str(error), self._checkpoint.keep_beside
        )

    def result(self) -> TrainingResult:
        """The result of a complete training."""
        best = BestWeights.of_state(self._best)
        if best is not None:
            log.info("best on the validation split: epoch %d, %.4f", best.epoch, best.score)
        return TrainingResult(self.history, best)


class _Begun:
    """The checkpoint of this training: its history, best weights and state."""

    def __init__(self, kept: Mapping[str, Any] | None = None) -> None:
        self.history: History = list(kept["history"]) if kept else []
        self.best = kept["fit"]["best"] if kept else None
        self._state: dict[str, Any] | None = kept["fit"] if kept else None

    @classmethod
    def read(cls, path: Path) -> "_Begun":
        """The content of a file of `Checkpoint.fetch`.

        Raises:
            ValueError: it is not of this step.
        """
        kept = read_state(path)
        try:
            _check_kept(kept)
        except ValueError as error:
            raise no_state_error(path, str(error)) from error
        log.info("resuming after epoch %s", kept.get("epoch"))
        return cls(kept)

    def take_state(self) -> dict[str, Any] | None:
        """The state, which is released here, as training holds what it needs of it."""
        state, self._state = self._state, None
        return state


class _KeptHistory(TypedDict):
    """The records in a state of the finished epochs."""

    history: list[dict[str, float]]


def _check_kept(kept: Mapping[str, Any]) -> None:
    """Raise ValueError unless a state has the fields of this module; `fit` checks the others."""
    state, told = kept.get("fit"), {"history": kept.get("history")}
    history = check_shape(told, _KeptHistory, where="its epochs")["history"]
    if not isinstance(state, dict) or not {"epoch", "best"} <= state.keys():
        raise ValueError("it tells nothing of a network")
    if any(not {"epoch", "loss", "lr"} <= record.keys() for record in history):
        raise ValueError("an epoch has no loss")
    if [record["epoch"] for record in history] != [*range(1, len(history) + 1)] or (
        state["epoch"] != len(history)
    ):
        raise ValueError("it does not tell of each epoch that is over")


def _timer(minutes: float) -> Callable[[], bool]:
    """A function that returns whether that many minutes have passed since it last returned true."""
    since = time.monotonic()

    def is_over() -> bool:
        nonlocal since
        now = time.monotonic()
        if now - since < 60 * minutes:
            return False
        since = now
        return True

    return is_over


def save_model(
    folder: Path, model: SAN, recipe: Recipe, trained: TrainingResult, *, facts: Mapping[str, Any]
) -> None:
    """Write weights, recipe, facts and history; the model then has the written weights.

    With validation these are the best ones, and the last are written beside them.
    """
    best, told = trained.best.weights if trained.best else None, {**facts, **trained.best_facts}
    if best and trained.failure:  # the last weights are useless
        told["num_classes"] = model.num_classes
        weights.save_weights(folder, best, recipe, facts=told)
    else:
        weights.save_network(folder, model, recipe, facts=told, best_weights=best)
    write_file(folder / HISTORY_FILE, history_lines(trained.history))
    if best:
        model.load_state_dict(best)


def _epoch_record(report: EpochReport, scores: Mapping[str, float]) -> dict[str, Any]:
    """The record of an epoch for the history."""
    return {
        "epoch": report.epoch,
        "loss": report.loss,
        **report.terms,
        "lr": report.lr,
        **({} if report.accuracy is None else {ACCURACY: report.accuracy}),
        **scores,
    }


def _validation_scores(report: EpochReport, validation: Validation | None) -> dict[str, float]:
    if validation is None or report.score is None:
        return {}
    name, interval = _SCORE_PREFIX + validation.name, validation.interval()
    if interval is None:
        return {name: report.score}
    return {name: report.score, **dict(zip(interval_names(name), interval, strict=True))}


def _scores_in_words(scores: Mapping[str, float], validation: Validation | None) -> str:
    """The validation score, its interval and what was scored; empty if none was due."""
    if validation is None or not scores:
        return ""
    name = _SCORE_PREFIX + validation.name
    notes = [validation.of] if validation.of else []
    low, high = interval_names(name)
    if low in scores:
        notes.insert(0, f"95 % {scores[low]:.3f}-{scores[high]:.3f}")
    told = f"  {name} {scores[name]:.4f}"
    return f"{told} ({', '.join(notes)})" if notes else told


def _epoch_line(report: EpochReport, recipe: Recipe, measured: str) -> str:
    terms = ", ".join(
        _term_in_words(term, value, report, recipe) for term, value in report.terms.items()
    )
    learned = "" if report.accuracy is None else f"  identities right {report.accuracy:.0%}"
    left = (recipe.epochs - report.epoch) * report.seconds
    eta = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
    return (
        f"epoch {report.epoch}/{recipe.epochs}  loss {report.loss:.3f} ({terms}){learned}{measured}"
        f"  lr {report.lr:.2g}  {report.images_per_second:.0f} img/s"
        f"  waiting for data {report.waiting_share:.0%}  eta {eta}"
    )


def _term_in_words(term: str, value: float, report: EpochReport, recipe: Recipe) -> str:
    """A term of the loss with its present weight, and the weight that it grows to."""
    weight = report.weights.get("rec" if term == "pit" else term)
    if weight is None:
        return f"{term} {value:.3f}"
    full = recipe.w_tri if term == "tri" else weight
    growing = f" growing to {full:g}" if weight < full else ""
    return f"{term} {value:.3f} x{weight:.3g}{growing}"


def loss_terms(history: History) -> list[str]:
    """The terms of the loss that a history records, including PIT's in epochs without PIT."""
    told = {name for record in history for name in record}
    return [name for name in _LOSS_NAMES if name in told and name not in _NOT_LOSS_TERMS]


def loss_name(term: str) -> str:
    """The name of a loss term for people, such as loss_identity."""
    return _LOSS_NAMES[term]


def loss_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """The loss, its terms, accuracy and validation score of an epoch, by readable names.

    Terms are unweighted.
    """
    named = {told: record[name] for name, told in _LOSS_NAMES.items() if name in record}
    named |= {"accuracy_identity": record[ACCURACY]} if ACCURACY in record else {}
    return named | {n: value for n, value in record.items() if n.startswith(_SCORE_PREFIX)}


def interval_names(score: str) -> tuple[str, str]:
    """The history's names of the ends of a validation score's interval."""
    return f"{score}_low", f"{score}_high"


def score_names(history: History) -> list[str]:
    """The validation scores that a history records: one, or none."""
    told = {name for record in history for name in record if name.startswith(_SCORE_PREFIX)}
    return sorted(told - {edge for name in told for edge in interval_names(name)})
