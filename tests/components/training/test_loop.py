from components.training.loop import loss_metrics


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
