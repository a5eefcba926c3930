"""What the training steps may be asked for beyond training: scores, PIT batches, weights, ONNX."""

import json
import random

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
import torchvision

from components.__main__ import main
from san_core.features import embed
from san_core.imageset import ImageSet
from san_core.model import weights
from san_core.pixels import decode, resize
from tests.tiny import SAN_OVERRIDES, changed, elsewhere, files, words


def _history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def _trained(tiny, folder, extra="", **flags):
    command = elsewhere(words("train_san", tiny), folder)
    return changed(command, overrides=f"{SAN_OVERRIDES} {extra}", **flags)


# Validation


def test_best_weights_are_the_models_and_the_last_are_kept_beside(tiny, tmp_path, capsys):
    held_out = "identities_per_batch=3 eval_every=1 validation_share=0.4"
    overrides = SAN_OVERRIDES.replace("identities_per_batch=4", held_out)
    command = changed(elsewhere(words("train_san", tiny), tmp_path), overrides=overrides)
    assert main(command) == 0
    assert "validation: 8 images of 2 people" in capsys.readouterr().err
    model = tmp_path / "model"
    scores = [record["val_mAP"] for record in _history(model)]
    assert len(scores) == 3
    facts = weights.load(model).facts
    assert facts["best_score"] == max(scores)
    assert facts["best_epoch"] == 1 + scores.index(max(scores))
    assert facts["num_classes"] == 4  # of 6, 2 are held out
    best, last = (
        safetensors.torch.load_file(model / f"{name}.safetensors") for name in ("weights", "last")
    )
    assert best.keys() == last.keys()
    is_last = all(torch.equal(best[name], last[name]) for name in best)
    assert is_last == (facts["best_epoch"] == 3)
    assert "val_mAP of 3 validations" in (tmp_path / "html").read_text()


def test_model_without_validation_holds_one_set_of_weights(tiny):
    names = files(tiny.root / "model").keys()
    assert names == {"weights.safetensors", "recipe.json", "history.jsonl"}


def test_generator_is_validated_by_psnr(tiny, tmp_path):
    command = elsewhere(words("train_san_pg", tiny), tmp_path)
    overrides = "epochs=3 batch_size=8 warmup_epochs=0 eval_every=2"
    assert main(changed(command, overrides=overrides)) == 0
    history = _history(tmp_path / "generator")
    assert ["val_psnr" in record for record in history] == [False, True, True]
    best = max(record.get("val_psnr", 0) for record in history)
    report = json.loads((tmp_path / "generator" / "report.json").read_text())
    assert report["psnr"] == pytest.approx(best)


def test_people_held_out_must_leave_enough_to_train_on(tiny, tmp_path, capsys):
    command = _trained(tiny, tmp_path, "eval_every=1 validation_share=0.9")
    assert main(command) == 1
    assert "leaves fewer than 2 to train on" in capsys.readouterr().err


# Batches of paired data


def test_pit_batches_are_mixed_in_where_the_recipe_says_so(tiny, tmp_path, capsys):
    asked = "pit_every=1 batch_size=8"
    assert main(_trained(tiny, tmp_path, asked, pit=tiny.pit)) == 0
    assert all(record["pit"] > 0 for record in _history(tmp_path / "model"))
    capsys.readouterr()
    assert main(_trained(tiny, tmp_path, asked)) == 1
    assert "needs paired data (--pit)" in capsys.readouterr().err


def test_paired_data_are_not_read_where_the_recipe_mixes_none_in(tiny, tmp_path):
    assert main(_trained(tiny, tmp_path, pit=tiny.pit)) == 0
    assert files(tmp_path / "model") == files(tiny.root / "model")


# First weights


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file of first weights in torchvision's form, of a network nobody has trained."""
    path = tmp_path_factory.mktemp("published") / "resnet18.pth"
    torch.manual_seed(4)
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


RESNET18 = "arch=resnet18 epochs=1 warmup_epochs=0 lr=1e-8 decoder_width=0.125"


def test_first_weights_come_from_a_path_or_a_bucket(tiny, tmp_path, published, s3, capsys):
    from components.storage import open_storage

    open_storage(s3).put_file("weights/resnet18.pth", published)
    overrides = f"{SAN_OVERRIDES.partition(' ')[2].replace('warmup_epochs=1', '')} {RESNET18}"
    for name, source in (("path", str(published)), ("uri", f"{s3}/weights/resnet18.pth")):
        command = elsewhere(words("train_san", tiny), tmp_path / name)
        assert main(changed(command, overrides=f"{overrides} pretrained={source}")) == 0
    path, uri = (
        safetensors.torch.load_file(tmp_path / name / "model" / "weights.safetensors")
        for name in ("path", "uri")
    )
    assert all(torch.equal(path[name], uri[name]) for name in path)
    first = torch.load(published, weights_only=True)
    torch.testing.assert_close(
        path["encoder.conv1.weight"], first["conv1.weight"], atol=1e-6, rtol=0
    )
    capsys.readouterr()
    absent = f"{s3}/weights/none.pth"
    command = elsewhere(words("train_san", tiny), tmp_path / "none")
    assert main(changed(command, overrides=f"{overrides} pretrained={absent}")) == 1
    assert f"{absent} does not exist" in capsys.readouterr().err


def test_other_first_weights_under_the_same_name_are_another_training(tiny, tmp_path, published):
    path = tmp_path / "first.pth"
    overrides = f"{SAN_OVERRIDES.partition(' ')[2].replace('warmup_epochs=1', '')} {RESNET18}"
    made = []
    for seed in (4, 5):
        torch.manual_seed(seed)
        torch.save(torchvision.models.resnet18().state_dict(), path)
        command = elsewhere(words("train_san", tiny), tmp_path)
        command = changed(
            command, overrides=f"{overrides} pretrained={path}", checkpoint=str(tmp_path / "state")
        )
        assert main(command) == 0
        made.append(files(tmp_path / "model")["weights.safetensors"])
    assert made[0] != made[1]
    assert len(list((tmp_path / "state").iterdir())) == 2


def test_damaged_first_weights_are_named_as_they_were_given(tiny, tmp_path, s3, capsys):
    from components.storage import open_storage

    open_storage(s3).put_bytes("weights/resnet18.pth", random.Random(0).randbytes(1000))
    uri = f"{s3}/weights/resnet18.pth"
    assert main(_trained(tiny, tmp_path, f"arch=resnet18 pretrained={uri}")) == 1
    assert f"pretrained weights {uri} cannot be read" in capsys.readouterr().err


# ONNX


def test_encoder_is_written_as_onnx_on_request(tiny, tmp_path):
    assert main(_trained(tiny, tmp_path, onnx="true")) == 0
    loaded = weights.load(tmp_path / "model")
    with ImageSet.open(tiny.root / "reid") as images:
        records = images.of_split("query")
        pictures = np.stack([resize(decode(images.read(r)), (64, 32)) for r in records])
    session = onnxruntime.InferenceSession(
        tmp_path / "model" / "encoder.onnx", providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["embedding"], {"pixels": pictures})
    np.testing.assert_allclose(found, embed(loaded.model, pictures), rtol=1e-3, atol=1e-4)


def test_wrong_precision_is_told_before_anything_is_read(tiny, tmp_path, capsys):
    assert main(_trained(tiny, tmp_path, precision="float8")) == 1
    assert "precision 'float8' is none of auto, float32" in capsys.readouterr().err
