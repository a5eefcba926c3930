"""Failing trainings, and the files beside the state of a running one."""

import json
import os
import signal
from pathlib import Path

import pytest

from components.process.signals import Terminated
from components.training.loop import Validation, train
from components.training.report import failure_sections
from san_core.model.weights import load_network
from san_core.training.finiteness import TrainingFailedError
from tests.components.training.test_loop import settings
from tests.san_core.training.tiny_run import tiny_data, tiny_model, tiny_recipe


class Scores:
    """A validation that has a score for every epoch until they end, and is told to look."""

    def __init__(self, *scores, look=lambda: None):
        self.left, self.look, self.calls = list(scores), look, 0

    def __call__(self, _model):
        self.calls += 1
        self.look()
        if not self.left:
            raise TrainingFailedError("all 9 features of the validation images are zeros")
        return self.left.pop(0)


def run(tmp_path, scores, words="eval_every=1", *, recipe="demo-baseline", facts=None):
    recipe = tiny_recipe(recipe, words)
    return train(
        tiny_model(recipe),
        tiny_data(),
        settings(recipe, checkpoint=str(tmp_path / "kept")),
        inputs={},
        room=tmp_path,
        validation=Validation("mAP", scores) if scores else None,
        facts=facts or {"seed": 0},
    )


def beside(tmp_path) -> Path:
    (folder,) = (tmp_path / "kept").iterdir()
    return folder


def test_a_training_that_fails_gives_what_was_best_and_keeps_it(tmp_path):
    trained = run(tmp_path, Scores(0.5, 0.25))
    assert trained.failure == "epoch 3: all 9 features of the validation images are zeros"
    assert (trained.best.epoch, trained.best.score, len(trained.history)) == (1, 0.5, 2)
    assert trained.failure_line.endswith("of epoch 1, are written and marked as failed")
    assert trained.best_facts["failed"] == trained.failure
    kept = load_network(beside(tmp_path) / "model")
    assert kept.facts["failed"] == trained.failure
    assert all(
        (value == trained.best.weights[name]).all()
        for name, value in kept.model.state_dict().items()
    )
    assert len((beside(tmp_path) / "model" / "history.jsonl").read_text().splitlines()) == 2


def test_the_same_training_is_not_tried_in_vain(tmp_path):
    run(tmp_path, Scores(0.5))
    again = Scores(0.5)
    with pytest.raises(ValueError, match="this training has failed before: epoch 2: all 9"):
        run(tmp_path, again)
    assert again.calls == 0
    (beside(tmp_path) / "failed.json").unlink()
    assert run(tmp_path, Scores(0.5, 0.6)).failure == ""  # of epochs 2 and 3


def test_another_seed_is_another_training(tmp_path):
    run(tmp_path, Scores(0.5))
    assert run(tmp_path, Scores(0.5, 0.6, 0.7), "eval_every=1 lr=1e-3").failure == ""


def test_before_the_first_score_the_last_epoch_is_kept(tmp_path):
    trained = run(tmp_path, Scores(), "eval_every=2")
    assert (trained.best.epoch, trained.best.score) == (1, None)
    assert trained.kept_record == trained.history[0]
    assert "best_score" not in load_network(beside(tmp_path) / "model").facts


def test_a_training_that_goes_on_and_fails_at_once_keeps_what_it_went_on_from(tmp_path):
    def end(_model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # in epoch 2, after the state of epoch 1
        run(tmp_path, end, "eval_every=2")
    assert run(tmp_path, Scores(), "eval_every=2").best.epoch == 1


def test_a_training_that_fails_in_its_first_epoch_leaves_a_line_alone(tmp_path):
    with pytest.raises(TrainingFailedError, match="epoch 1: all 9 features"):
        run(tmp_path, Scores())
    assert not (beside(tmp_path) / "model").exists()
    with pytest.raises(ValueError, match=r"zeros; change the recipe or the seed, or delete .*fail"):
        run(tmp_path, Scores())


def test_history_and_the_best_model_are_there_while_training_runs(tmp_path):
    seen = []

    def look():
        history = beside(tmp_path) / "history.jsonl" if (tmp_path / "kept").exists() else None
        lines = history.read_text().splitlines() if history and history.exists() else []
        model = history and history.parent / "model"
        facts = load_network(model).facts if model and model.exists() else {}
        seen.append((len(lines), facts.get("best_epoch"), facts.get("seed")))

    run(tmp_path, Scores(0.5, 0.25, 0.75, look=look))
    assert seen == [(0, None, None), (1, 1, 0), (2, 1, 0)]
    lines = (beside(tmp_path) / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    assert load_network(beside(tmp_path) / "model").facts["best_epoch"] == 3


@pytest.mark.parametrize("words", ["", "ema=0.5"])
def test_a_stopped_training_leaves_a_model_of_its_last_weights(tmp_path, words, monkeypatch):
    stops = iter([False] * 4 + [True] * 9)

    def stop_soon(*_):
        if next(stops):
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    monkeypatch.setattr("components.training.loop._timer", lambda _: stop_soon)
    recipe = tiny_recipe("demo-baseline", words)
    asked = settings(recipe, checkpoint=str(tmp_path / "kept"), checkpoint_minutes=1.0)
    model = tiny_model(recipe)
    with pytest.raises(Terminated):
        train(model, tiny_data(), asked, inputs={}, room=tmp_path, facts={"seed": 0})
    kept = load_network(beside(tmp_path) / "model")
    assert kept.recipe == recipe
    if not words:
        assert all(
            (value == kept.model.state_dict()[name]).all()
            for name, value in model.state_dict().items()
        )


def test_where_no_state_is_kept_nothing_lies_beside_it(tmp_path):
    recipe = tiny_recipe("demo-baseline", "epochs=2")
    train(tiny_model(recipe), tiny_data(), settings(recipe), inputs={}, room=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_page_says_first_that_its_training_failed():
    (section,) = failure_sections("epoch 3: all features are zeros")
    assert "epoch 3: all features are zeros" in section.body
    assert failure_sections("") == []
