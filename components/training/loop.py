"""What the two training steps share: running epochs, keeping state, choosing the best weights."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from components.process.machine import device
from components.process.signals import Terminated, defer_sigterm
from components.process.torchrun import is_first_rank
from components.storage.checkpoint import Checkpoint
from components.storage.outputs import write_file
from san_core.model import weights
from san_core.model.san import SAN
from san_core.recipe import Recipe
from san_core.training.loop import EpochReport, TrainingData, TrainingStopped, fit
from san_core.training.precision import Precision

log = logging.getLogger(__name__)

History = list[dict[str, Any]]

# What a record of the history holds beside the terms of the loss.
_NOT_LOSS_TERMS = ("epoch", "loss", "lr")
_SCORE_PREFIX = "val_"
# What a term of the loss is called where a person compares runs, who may not know our short names.
_LOSS_NAMES = {
    "loss": "loss",
    "id": "loss_identity",
    "tri": "loss_triplet",
    "rec": "loss_texture",
    "tr": "loss_texture_triplet",  # the triplet ReID constraint on the decoder's maps
    "pit": "loss_texture_pit",  # L_Rec of the batches of PIT that are mixed in
}


class Validation(NamedTuple):
    """How a network in training is scored: by what, and the function, higher being better."""

    name: str  # such as "mAP"; in the history "val_mAP"
    score: Callable[[SAN], float]


class BestWeights(NamedTuple):
    """The weights that scored best on the validation split."""

    epoch: int
    score: float
    weights: dict[str, Tensor]


class TrainingResult(NamedTuple):
    """What training left behind, beside the network with its last weights."""

    history: History
    best: BestWeights | None  # None where nothing was validated

    @property
    def best_facts(self) -> dict[str, Any]:
        """Which epoch's weights are kept as the model's, where it is not simply the last."""
        if self.best is None:
            return {}
        return {"best_epoch": self.best.epoch, "best_score": self.best.score}

    @property
    def kept_record(self) -> dict[str, Any]:
        """The history's record of the epoch whose weights are the model's."""
        return self.history[-1 if self.best is None else self.best.epoch - 1]


def train(
    model: SAN,
    data: TrainingData,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Checkpoint,
    validation: Validation | None = None,
    precision: Precision = "auto",
    compiled: bool = False,
    checkpoint_minutes: float = 0.0,
) -> TrainingResult:
    """Train to the end, or on to the end from the checkpoint; one log line an epoch.

    checkpoint_minutes: how often a state is kept in the middle of epochs too; 0 for never.

    Returns:
        A record per epoch: epoch, loss, the terms, lr and, where one was due, the validation score.
        Nothing in it tells how fast it went, so equal training gives equal histories.

    Raises:
        Terminated: SIGTERM came; the state after the batch at hand is kept.
    """
    log.info("recipe: %s", json.dumps(asdict(recipe)))
    if recipe.deterministic:  # cuBLAS reads it at its first product
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    kept = checkpoint.load()
    history: History = list(kept["history"]) if kept else []
    best = kept["fit"]["best"] if kept else None
    states: list[dict[str, Any]] = []

    def save_checkpoint() -> None:
        nonlocal best
        state = states.pop()  # of the weights as they are now: nothing moves them meanwhile
        best = state["best"]
        if is_first_rank():
            checkpoint.save({"epoch": state["epoch"], "fit": state, "history": history})

    def take_state(state: dict[str, Any]) -> None:
        states.append(state)
        if state["step"]:  # in the middle of an epoch, which has no report to wait for
            save_checkpoint()

    with defer_sigterm() as stop:
        reports = fit(
            model,
            data,
            recipe,
            seed=seed,
            device=device(),
            state=kept["fit"] if kept else None,
            on_state=take_state,
            evaluate=validation.score if validation else None,
            stop=stop,
            state_due=_timer(checkpoint_minutes) if checkpoint_minutes else None,
            precision=precision,
            compiled=compiled,
        )
        try:
            for report in reports:
                scores = _validation_scores(report, validation)
                log.info("%s", _epoch_line(report, recipe, scores))
                history.append(
                    {
                        "epoch": report.epoch,
                        "loss": report.loss,
                        **report.terms,
                        "lr": report.lr,
                        **scores,
                    }
                )
                if states:
                    save_checkpoint()
        except TrainingStopped as stopped:
            if states:
                save_checkpoint()
            log.info("stopped %s", stopped)
            raise Terminated from stopped
    if best is None:
        return TrainingResult(history, None)
    log.info("best on the validation split: epoch %d, %.4f", best["epoch"], best["score"])
    return TrainingResult(history, BestWeights(best["epoch"], best["score"], best["weights"]))


def _timer(minutes: float) -> Callable[[], bool]:
    """A function that says whether so many minutes are over since it last said so."""
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
    """Write weights, recipe, facts and history; the model is left with the weights that are kept.

    Those are the best ones where something was validated, and then the last lie beside them.
    """
    best = trained.best.weights if trained.best else None
    weights.save_network(
        folder, model, recipe, facts={**facts, **trained.best_facts}, best_weights=best
    )
    lines = "".join(json.dumps(record) + "\n" for record in trained.history)
    write_file(folder / "history.jsonl", lines)
    if best:
        model.load_state_dict(best)


def _validation_scores(report: EpochReport, validation: Validation | None) -> dict[str, float]:
    if validation is None or report.score is None:
        return {}
    return {_SCORE_PREFIX + validation.name: report.score}


def _epoch_line(report: EpochReport, recipe: Recipe, scores: dict[str, float]) -> str:
    terms = " ".join(f"{name} {value:.3f}" for name, value in report.terms.items())
    left = (recipe.epochs - report.epoch) * report.seconds
    eta = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
    measured = "".join(f"  {name} {value:.4f}" for name, value in scores.items())
    return (
        f"epoch {report.epoch}/{recipe.epochs}  loss {report.loss:.3f} ({terms}){measured}"
        f"  lr {report.lr:.2g}  {report.images_per_second:.0f} img/s"
        f"  waiting for data {report.waiting_share:.0%}  eta {eta}"
    )


def loss_terms(history: History) -> list[str]:
    """The terms of the loss that a history records."""
    return [n for n in history[0] if n not in _NOT_LOSS_TERMS and not n.startswith(_SCORE_PREFIX)]


def loss_name(term: str) -> str:
    """What a term of the loss is called where people read it, such as loss_identity."""
    return _LOSS_NAMES[term]


def loss_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """The loss, its terms and the validation score of an epoch, under names that say what they are.

    Terms are as they were before they were weighted.
    """
    named = {told: record[name] for name, told in _LOSS_NAMES.items() if name in record}
    return named | {n: value for n, value in record.items() if n.startswith(_SCORE_PREFIX)}


def score_names(history: History) -> list[str]:
    """The validation scores that a history records: one, or none."""
    return sorted({n for record in history for n in record if n.startswith(_SCORE_PREFIX)})
