import os

import pytest

from components.storage.checkpoint import Checkpoint
from components.training.loop import loss_metrics, train
from tests.san_core.training.tiny_run import tiny_data, tiny_model, tiny_recipe


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


@pytest.mark.parametrize(("words", "setting"), [("deterministic=true", ":4096:8"), ("", None)])
def test_cublas_is_told_to_repeat_itself_where_the_recipe_says_so(words, setting, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # put back afterwards, whatever the step sets
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    settings = tiny_recipe("demo", f"epochs=1 warmup_epochs=0 {words}")
    train(tiny_model(settings), tiny_data(), settings, seed=0, checkpoint=Checkpoint("", {}))
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == setting
