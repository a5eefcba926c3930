import gc
import math
import os
import weakref

import pytest
import torch

from components.process.signals import Terminated
from components.training import loop
from components.training.loop import (
    BestWeights,
    TrainingResult,
    TrainingSettings,
    Validation,
    _scores_in_words,
    _validation_scores,
    loss_metrics,
    loss_terms,
    save_model,
    score_names,
    train,
)
from components.training.ranks import Ranks
from components.training.report import curves_section
from san_core.training.loop import EpochReport, TrainingStopped
from tests.san_core.training.tiny_run import tiny_data, tiny_model, tiny_recipe

EPOCH = EpochReport(2, 1.0, {"id": 1.0}, 0.1, 1.0, 1.0, 0.0)


def test_metrics_of_training_are_losses_by_name_and_the_validation_score():
    record = {"epoch": 3, "loss": 6.0, "id": 1.0, "tri": 2.0, "rec": 3.0, "tr": 4.0, "pit": 5.0}
    told = loss_metrics({**record, "lr": 0.1, "val_mAP": 0.5})
    assert told == {
        "loss": 6.0,
        "loss_identity": 1.0,
        "loss_triplet": 2.0,
        "loss_texture": 3.0,
        "loss_texture_triplet": 4.0,
        "loss_texture_pit": 5.0,
        "val_mAP": 0.5,
    }
    assert loss_metrics({"epoch": 1, "loss": 1.0, "rec": 1.0, "lr": 0.1}) == {
        "loss": 1.0,
        "loss_texture": 1.0,
    }


def settings(recipe, **changes):
    asked = {"precision": "auto", "compiled": False, "checkpoint": "", "checkpoint_minutes": 0.0}
    return TrainingSettings(
        **{"step": "train_san", "recipe": recipe, "seed": 0, **asked, **changes}
    )


@pytest.mark.parametrize("seed", [-1, 2**63, 2**80])
def test_a_seed_that_no_generator_takes_is_refused(seed):
    with pytest.raises(ValueError, match=f"seed is {seed}: it must be 0 to {2**63 - 1}"):
        settings(tiny_recipe("demo-baseline"), seed=seed)


@pytest.mark.parametrize("minutes", [-1.0, -0.001, math.nan, -math.inf])
def test_minutes_that_no_clock_counts_are_refused(minutes):
    with pytest.raises(
        ValueError, match=rf"checkpoint_minutes is {minutes:g}; give 0 \(never\) or mo"
    ):
        settings(tiny_recipe("demo-baseline"), checkpoint_minutes=minutes)


def test_terms_that_start_after_the_first_epoch_are_included():
    history = [{"epoch": 1, "loss": 2.0, "id": 1.0, "lr": 0.1}]
    history.append({"epoch": 2, "loss": 2.0, "id": 1.0, "pit": 0.5, "lr": 0.1, "val_mAP": 0.5})
    assert loss_terms(history) == ["id", "pit"]


def test_a_state_that_was_loaded_is_not_held_while_training_goes_on(tmp_path, monkeypatch):
    recipe, seen = tiny_recipe("demo-baseline"), []
    kept = {"epoch": 1, "history": [], "fit": {"epoch": 0, "best": None, "large": torch.zeros(3)}}
    monkeypatch.setattr(loop, "read_state", lambda _: kept)
    monkeypatch.setattr(loop.Checkpoint, "fetch", lambda _: tmp_path / "state.pt")
    large = weakref.ref(kept["fit"]["large"])

    def fit(*_, state, **__):
        assert state["large"] is not None
        kept.clear()
        return reports()

    def reports():
        gc.collect()
        seen.append(large())
        yield EPOCH

    monkeypatch.setattr(loop, "fit", fit)
    train(tiny_model(recipe), tiny_data(), settings(recipe), inputs={}, room=tmp_path)
    assert seen == [None]


def test_processes_that_are_stopped_leave_when_the_state_is_kept(tmp_path, monkeypatch):
    done = []

    class Several(Ranks):
        def gather(self, word):
            done.append("met")
            return [word]

    def fit(*_, on_state, **__):
        on_state({"epoch": 0, "step": 0, "best": None, "average": None, "model": {}})
        raise TrainingStopped("in epoch 1")
        yield

    monkeypatch.setattr(loop, "fit", fit)
    monkeypatch.setattr(loop.Checkpoint, "save", lambda *_: done.append("saved"))
    monkeypatch.setattr(loop.Beside, "keep_model", lambda *_, **__: None)
    recipe = tiny_recipe("demo-baseline")
    with pytest.raises(Terminated):
        train(
            tiny_model(recipe),
            tiny_data(),
            settings(recipe),
            inputs={},
            room=tmp_path,
            ranks=Several(),
        )
    assert done[done.index("saved") :] == ["saved", "met"]


RECORD = {"epoch": 1, "loss": 1.0, "lr": 0.1}


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ([1, 2], ""),
        ({}, r" \(its epochs: history is None; it must be a list\)"),
        ({"history": [3], "fit": {}}, r" \(its epochs: history\[0\] is 3; it must be an object\)"),
        (
            {"history": [{**RECORD, "loss": "x"}], "fit": {}},
            r" \(its epochs: history\[0\]\.loss is",
        ),
        ({"history": [], "fit": [1]}, r" \(it tells nothing of a network\)"),
        ({"history": [], "fit": {"epoch": 0}}, r" \(it tells nothing of a network\)"),
        ({"history": [{}], "fit": {"epoch": 1, "best": None}}, r" \(an epoch has no loss\)"),
        ({"history": [RECORD], "fit": {"epoch": 3, "best": None}}, r" \(it does not tell of each"),
        ({"history": [RECORD] * 2, "fit": {"epoch": 2, "best": None}}, r" \(it does not tell of e"),
    ],
)
def test_a_checkpoint_file_that_is_not_a_state_is_named(tmp_path, kept, told):
    torch.save(kept, tmp_path / "state.pt")
    with pytest.raises(
        ValueError, match=rf"state\.pt holds no state of training{told}.*; delete it"
    ):
        loop._Begun.read(tmp_path / "state.pt")


@pytest.mark.parametrize(("words", "setting"), [("deterministic=true", ":4096:8"), ("", None)])
def test_cublas_is_told_to_repeat_itself_where_the_recipe_says_so(
    words, setting, monkeypatch, tmp_path
):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # put back afterwards, whatever the step sets
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    recipe = tiny_recipe("demo", f"epochs=1 warmup_epochs=0 {words}")
    train(tiny_model(recipe), tiny_data(), settings(recipe), inputs={}, room=tmp_path)
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == setting


@pytest.mark.parametrize(
    "change",
    [
        {"step": "train_san_pg"},
        {"recipe": tiny_recipe("demo-baseline", "lr=0.5")},
        {"seed": 1},
        {"precision": "float32"},
        {"inputs": {"dataset": "b"}},
        {"code": "other"},
        {"device": torch.device("meta")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_decides_the_result_decides_whose_state_it_is(tmp_path, monkeypatch, change):
    def place(*, inputs=None, code="ours", device=torch.device("cpu"), **changes):  # noqa: B008
        monkeypatch.setattr(loop, "code_fingerprint", lambda *_, **__: code)
        asked = settings(
            changes.pop("recipe", tiny_recipe("demo-baseline")),
            **{"checkpoint": str(tmp_path), **changes},
        )
        monkeypatch.setattr(loop, "device", lambda: device)
        return asked.open_checkpoint(tmp_path, inputs or {"dataset": "a"})._read_from.uri

    assert place() == place()
    assert place() != place(**change)


def test_the_weights_that_are_kept_are_those_of_the_model_left(tmp_path):
    recipe = tiny_recipe("demo-baseline")
    model, better = tiny_model(recipe, seed=0), tiny_model(recipe, seed=1).state_dict()
    best = BestWeights(epoch=1, score=0.5, weights=better)
    history = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]
    save_model(tmp_path, model, recipe, TrainingResult(history, best), facts={})
    # encoder.onnx and the pictures of the page are made of the model after this
    assert all(torch.equal(value, better[name]) for name, value in model.state_dict().items())


def test_a_page_is_drawn_though_the_last_epoch_had_no_pit_batch():
    history = [
        {"epoch": 1, "loss": 2.0, "id": 2.0, "pit": 0.5, "lr": 0.1},
        {"epoch": 2, "loss": 1.0, "id": 1.0, "lr": 0.1},
    ]
    drawn = str(curves_section(history).body)
    assert "Identity loss; last: 1.000, over 2 epochs" in drawn
    assert "Texture pit loss; last: 0.500, over 2 epochs" in drawn


def test_the_line_of_an_epoch_names_the_scored_people_and_the_interval():
    of = "64 queries of 20 people"
    validation = Validation("mAP", lambda _: 0.5, lambda: (0.41, 0.6), of)
    scores = _validation_scores(EPOCH._replace(score=0.5), validation)
    assert scores == {"val_mAP": 0.5, "val_mAP_low": 0.41, "val_mAP_high": 0.6}
    told = _scores_in_words(scores, validation)
    assert told == "  val_mAP 0.5000 (95 % 0.410-0.600, 64 queries of 20 people)"
    history = [{"epoch": n, "loss": 1.0, "id": 1.0, "lr": 0.1, **scores} for n in (1, 2)]
    assert score_names(history) == ["val_mAP"]
    assert loss_metrics(history[0])["val_mAP_low"] == 0.41
    plain = [{**record, "val_mAP_low": 0.5, "val_mAP_high": 0.5} for record in history]
    assert curves_section(history).body != curves_section(plain).body


def test_a_score_without_an_interval_is_logged_alone():
    validation = Validation("psnr", lambda _: 21.5)
    scores = _validation_scores(EPOCH._replace(score=21.5), validation)
    assert _scores_in_words(scores, validation) == "  val_psnr 21.5000"


def test_the_line_of_an_epoch_shows_current_weights_and_accuracy():
    recipe = tiny_recipe("demo", "triplet_ramp_epochs=2 w_rec=5")
    weights = {"id": 1.0, "tri": 0.75, "rec": 5.0}
    terms = {"id": 1.25, "tri": 0.5, "rec": 0.125, "pit": 0.25}
    report = EpochReport(1, 2.25, terms, 0.1, 9.0, 1.0, 0.0, None, weights, 0.875)
    line = loop._epoch_line(report, recipe, "")
    assert line.startswith(
        "epoch 1/3  loss 2.250 (id 1.250 x1, tri 0.500 x0.75 growing to 1, rec 0.125 x5,"
        " pit 0.250 x5)  identities right 88%  lr 0.1"
    )
    assert loss_metrics({"epoch": 1, "loss": 1.0, "accuracy": 0.5, "lr": 0.1}) == {
        "loss": 1.0,
        "accuracy_identity": 0.5,
    }


def test_the_page_draws_how_many_identities_are_known_by_heart():
    history = [{"epoch": n, "loss": 1.0, "id": 1.0, "lr": 0.1, "accuracy": n / 4} for n in (1, 2)]
    section = curves_section(history)
    assert "Training accuracy of identities; last: 50.0%" in section.body
    assert "the network overfits" in section.lead
    plain = curves_section([{"epoch": 1, "loss": 1.0, "rec": 1.0, "lr": 0.1}])
    assert "accuracy" not in str(plain.body) + plain.lead
