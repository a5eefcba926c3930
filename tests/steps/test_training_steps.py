"""Options of the training steps: scores, PIT batches, weights, ONNX."""

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
import torchvision

from components import train_san
from components.__main__ import main
from components.storage.folder import LocalStorage
from components.storage.staging import image_set_digest
from san_core.images.imageset import ImageSet
from san_core.images.pixels import decode, resize
from san_core.inference.features import embed
from san_core.model import weights
from san_core.recipe import recipe_with_overrides
from san_core.recipes import RECIPES
from san_core.training.finiteness import TrainingFailedError
from san_core.training.validation import MapEvaluator
from tests.tiny import SAN_OVERRIDES, file_contents, step_command, with_flags, with_outputs_in


def _history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def _trained(tiny, folder, extra="", **flags):
    command = with_outputs_in(step_command("train_san", tiny), folder)
    return with_flags(command, overrides=f"{SAN_OVERRIDES} {extra}", **flags)


# Validation


def test_best_weights_are_the_models_and_the_last_are_kept_beside(tiny, tmp_path, capsys):
    held_out = "identities_per_batch=3 eval_every=1 validation_share=0.1"
    overrides = SAN_OVERRIDES.replace("identities_per_batch=4", held_out)
    command = with_flags(
        with_outputs_in(step_command("train_san", tiny), tmp_path), overrides=overrides
    )
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "validation: 8 images of 2 identities" in said
    assert (
        "validation has 4 queries of 2 identities, and fewer than 100 or 20 give an uncertain"
        in said
    )
    assert re.search(r"val_mAP 0\.\d{4} \(95 % 0\.\d+-\d\.\d+, 4 queries of 2 identities\)", said)
    model = tmp_path / "model"
    scores = [record["val_mAP"] for record in _history(model)]
    assert len(scores) == 3
    facts = weights.load_network(model).facts
    assert facts["best_score"] == max(scores)
    assert facts["best_epoch"] == 1 + scores.index(max(scores))
    assert facts["num_classes"] == 4  # of 6, 2 are held out
    best, last = (
        safetensors.torch.load_file(model / f"{name}.safetensors") for name in ("weights", "last")
    )
    assert best.keys() == last.keys()
    is_last = all(torch.equal(best[name], last[name]) for name in best)
    assert is_last == (facts["best_epoch"] == 3)
    page = (tmp_path / "training_page").read_text()
    assert "val_mAP of 3 validations" in page
    assert page.count("its texture, example") == 8  # of the two people who are held out
    assert f"epoch {facts['best_epoch']} of 3, the best by validation mAP" in page
    losses = json.loads((tmp_path / "losses").read_text())
    kept = _history(model)[facts["best_epoch"] - 1]
    assert losses["val_mAP"] == facts["best_score"]
    assert losses["loss_identity"] == kept["id"]


def test_a_training_that_fails_writes_what_it_had_and_is_not_tried_again(
    tiny, tmp_path, capsys, monkeypatch
):
    class Dying(MapEvaluator):
        def __call__(self, model):
            if self.interval is None:
                return super().__call__(model)
            raise TrainingFailedError("all 8 features of the validation images are zeros")

    monkeypatch.setattr("components.training.san_inputs.MapEvaluator", Dying)
    held_out = "identities_per_batch=3 eval_every=1 validation_share=0.1"
    overrides = SAN_OVERRIDES.replace("identities_per_batch=4", held_out)
    command = with_flags(
        with_outputs_in(step_command("train_san", tiny), tmp_path / "out"),
        overrides=overrides,
        checkpoint=str(tmp_path / "kept"),
    )
    assert main(command) == 1
    failure = "epoch 2: all 8 features of the validation images are zeros"
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        f"train_san: {failure}; the best weights until then, of epoch 1, are written"
    )
    model = tmp_path / "out" / "model"
    assert weights.load_network(model).facts["failed"] == failure
    assert len(_history(model)) == 1
    assert f"<li>{failure}</li>" in (tmp_path / "out" / "training_page").read_text()
    assert "val_mAP" in json.loads((tmp_path / "out" / "losses").read_text())
    (kept,) = (tmp_path / "kept").iterdir()
    assert {path.name for path in kept.iterdir()} >= {"failed.json", "model", "page.html"}
    assert main(command) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"train_san: this training has failed before: {failure}; ")
    extract = with_outputs_in(step_command("extract_features", tiny), tmp_path / "features")
    assert main(with_flags(extract, model=str(kept / "model"))) == 0
    assert f"was left by a failed training: {failure}" in capsys.readouterr().err


def test_model_without_validation_holds_one_set_of_weights(tiny):
    names = file_contents(tiny.root / "model").keys()
    assert names == {"weights.safetensors", "recipe.json", "history.jsonl", "SHA256SUMS"}


def test_generator_is_validated_by_psnr(tiny, tmp_path):
    pit = str(tmp_path / "pit")
    assert (
        main(with_flags(step_command("make_pit", tiny), pit=pit, textures="20")) == 0
    )  # 2 are held out
    command = with_outputs_in(step_command("train_san_pg", tiny), tmp_path)
    overrides = "epochs=3 batch_size=8 warmup_epochs=0 eval_every=2"
    assert main(with_flags(command, pit=pit, overrides=overrides)) == 0
    history = _history(tmp_path / "generator")
    assert ["val_psnr" in record for record in history] == [False, True, True]
    assert weights.load_network(tmp_path / "generator").facts["best_score"] == max(
        record.get("val_psnr", 0) for record in history
    )
    report = json.loads((tmp_path / "generator" / "report.json").read_text())
    assert report["held_out_images"] == 3  # of one texture; the other chose the epoch


def test_one_held_out_texture_cannot_choose_and_report(tiny, tmp_path, capsys):
    command = with_outputs_in(step_command("train_san_pg", tiny), tmp_path)
    overrides = "epochs=1 batch_size=8 warmup_epochs=0 eval_every=1"
    assert main(with_flags(command, overrides=overrides)) == 1
    assert "there is only 1 held-out texture; validation" in capsys.readouterr().err


def test_people_held_out_must_leave_enough_to_train_on(tiny, tmp_path, capsys):
    command = _trained(tiny, tmp_path, "eval_every=1 validation_share=0.9")
    assert main(command) == 1
    assert "but there are 2 identities" in capsys.readouterr().err


# A store that is away


def test_training_outlives_a_store_that_does_not_keep_its_state(
    tiny, tmp_path, monkeypatch, capsys
):
    put, tries = LocalStorage.put_bytes, []

    def away_at_first(self, name, data):
        if name.endswith("run.json"):
            tries.append(name)
            if len(tries) == 1:
                raise ConnectionError("the store is away")
        put(self, name, data)

    monkeypatch.setattr(LocalStorage, "put_bytes", away_at_first)
    command = _trained(tiny, tmp_path, "checkpoint_every=1", checkpoint=str(tmp_path / "state"))
    assert main(command) == 0
    said = capsys.readouterr().err
    assert (
        "the checkpoint after epoch 1 was not written, and training continues: the store is away"
        in said
    )
    assert file_contents(tmp_path / "model") == file_contents(tiny.root / "model")
    (kept,) = (tmp_path / "state").glob("*/history.jsonl")  # by which prune knows the model
    assert kept.read_bytes() == (tmp_path / "model" / "history.jsonl").read_bytes()
    shutil.rmtree(tmp_path / "model")
    assert main(command) == 0  # as after a result that was lost
    assert "resuming after epoch 3" in capsys.readouterr().err


# Batches of paired data


def test_pit_batches_are_mixed_in_where_the_recipe_says_so(tiny, tmp_path, capsys):
    asked = "pit_every=1 batch_size=8"
    assert main(_trained(tiny, tmp_path, asked, pit=tiny.pit)) == 0
    assert all(record["pit"] > 0 for record in _history(tmp_path / "model"))
    capsys.readouterr()
    assert main(_trained(tiny, tmp_path, asked)) == 1
    assert "give paired data with --pit" in capsys.readouterr().err


def test_paired_data_are_not_read_where_the_recipe_mixes_none_in(tiny, tmp_path):
    assert main(_trained(tiny, tmp_path, pit=tiny.pit)) == 0
    assert file_contents(tmp_path / "model") == file_contents(tiny.root / "model")


# Whose state it is


@pytest.mark.parametrize("step", ["train_san", "train_san_pg"])
def test_state_belongs_to_the_artifacts_it_was_made_from(tiny, tmp_path, monkeypatch, step):
    told = {}

    def stopped(*_, inputs, **__):
        told.update(inputs)
        raise KeyboardInterrupt

    monkeypatch.setattr("components.training.loop.train", stopped)
    command = with_outputs_in(step_command(step, tiny), tmp_path)
    if step == "train_san":
        asked = f"{SAN_OVERRIDES} pit_every=1 batch_size=8"
        command = with_flags(command, overrides=asked, pit=tiny.pit)
    assert main(command) == 130
    images, textures = (
        image_set_digest(tiny.root / "pit" / part) for part in ("images", "textures")
    )
    if step == "train_san_pg":
        assert (told["images"], told["textures"]) == (images, textures)
    else:
        assert told["pit"] == [images, textures]
        assert told["dataset"] == image_set_digest(tiny.root / "reid")
        assert told["textures"] == image_set_digest(tiny.root / "textures")
    assert {"pretrained", "generator"} <= told.keys()


# First weights


@pytest.fixture
def publish(tmp_path):
    """Makes a file of weights of an untrained network in torchvision's format."""

    def make(seed):
        path = tmp_path / "resnet18.pth"
        torch.manual_seed(seed)
        torch.save(torchvision.models.resnet18().state_dict(), path)
        return path

    return make


RESNET18 = (
    f"{SAN_OVERRIDES.partition(' ')[2].replace('warmup_epochs=1', '')} arch=resnet18 epochs=1"
    " warmup_epochs=0 lr=1e-8 decoder_width=0.125"
)


@pytest.mark.slow
def test_first_weights_come_from_a_bucket(tiny, tmp_path, publish, s3, capsys):
    from components.storage.places import open_storage

    published = publish(seed=4)
    open_storage(s3).put_file("weights/resnet18.pth", published)
    command = with_outputs_in(step_command("train_san", tiny), tmp_path)
    source = f"{s3}/weights/resnet18.pth"
    assert main(with_flags(command, overrides=f"{RESNET18} pretrained={source}")) == 0
    trained = safetensors.torch.load_file(tmp_path / "model" / "weights.safetensors")
    first = torch.load(published, weights_only=True)
    torch.testing.assert_close(
        trained["encoder.conv1.weight"], first["conv1.weight"], atol=1e-6, rtol=0
    )
    capsys.readouterr()
    absent = f"{s3}/weights/none.pth"
    command = with_outputs_in(step_command("train_san", tiny), tmp_path / "none")
    assert main(with_flags(command, overrides=f"{RESNET18} pretrained={absent}")) == 1
    assert f"{absent} does not exist" in capsys.readouterr().err


def test_other_first_weights_under_the_same_name_are_another_training(
    tiny, tmp_path, publish, monkeypatch
):
    begun = []

    def stopped(network, *_, on_state, **__):
        begun.append(network.encoder.conv1.weight.detach().clone())
        on_state({"epoch": 0, "step": 1, "best": None, "average": None, "model": {}})
        raise KeyboardInterrupt

    monkeypatch.setattr("components.training.loop.fit", stopped)
    for seed in (4, 5):
        source = publish(seed)
        command = with_outputs_in(step_command("train_san", tiny), tmp_path)
        command = with_flags(command, overrides=f"{RESNET18} pretrained={source}")
        assert main(with_flags(command, checkpoint=str(tmp_path / "state"))) == 130
        assert torch.equal(begun[-1], torch.load(source, weights_only=True)["conv1.weight"])
    assert not torch.equal(*begun)
    assert len(list((tmp_path / "state").iterdir())) == 2


def test_damaged_first_weights_are_named_as_they_were_given(tiny, tmp_path, s3, capsys):
    from components.storage.places import open_storage

    open_storage(s3).put_bytes("weights/resnet18.pth", random.Random(0).randbytes(1000))
    uri = f"{s3}/weights/resnet18.pth"
    assert main(_trained(tiny, tmp_path, f"arch=resnet18 pretrained={uri}")) == 1
    assert f"pretrained weights {uri} cannot be read" in capsys.readouterr().err


# ONNX


@pytest.mark.slow
def test_encoder_is_written_as_onnx_on_request(tiny, tmp_path):
    assert main(_trained(tiny, tmp_path, onnx="true")) == 0
    loaded = weights.load_network(tmp_path / "model")
    with ImageSet.open(tiny.root / "reid") as images:
        records = images.records_in_splits("query")
        pictures = np.stack([resize(decode(images.read(r)), (64, 32)) for r in records])
    session = onnxruntime.InferenceSession(
        tmp_path / "model" / "encoder.onnx", providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["embedding"], {"pixels": pictures})
    np.testing.assert_allclose(found, embed(loaded.model, pictures), rtol=1e-3, atol=1e-4)


def test_wrong_precision_is_told_before_anything_is_read(tiny, tmp_path, capsys):
    assert main(_trained(tiny, tmp_path, precision="float8")) == 1
    assert "precision 'float8' is not one of auto, float32" in capsys.readouterr().err


# What belongs together


def _with_atlas(folder, atlas):
    """Let an image set say that it is of another atlas."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["provenance"]["atlas"] = atlas
    path.write_text(json.dumps(manifest))


def test_textures_of_two_atlases_are_never_learned_together(tiny, tmp_path, capsys):
    shutil.copytree(tiny.pit, tmp_path / "pit")
    _with_atlas(tmp_path / "pit" / "textures", "smpl")
    command = _trained(tiny, tmp_path, "pit_every=1 batch_size=8", pit=str(tmp_path / "pit"))
    assert main(command) == 1
    err = capsys.readouterr().err
    assert "textures with different atlases cannot be used together" in err
    assert "pit 'smpl'" in err


def test_unknown_atlas_is_told_of(tiny, tmp_path, capsys):
    shutil.copytree(tiny.pit, tmp_path / "pit")
    for part in ("images", "textures"):
        _with_atlas(tmp_path / "pit" / part, "smpl")
    command = with_outputs_in(step_command("train_san_pg", tiny), tmp_path)
    command = with_flags(
        command, pit=str(tmp_path / "pit"), overrides="epochs=1 batch_size=8 warmup_epochs=0"
    )
    assert main(command) == 0
    err = capsys.readouterr().err
    assert "the atlas of the pit is 'smpl', so mirrored textures are unknown" in err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("pretrained=/nowhere/resnet.pth", "pretrained weights /nowhere/resnet.pth do not exist"),
        ("identities_per_batch=50", "identities_per_batch is 50, but there are 6 identities"),
        ("texture_size=24", "texture"),
    ],
)
def test_mistake_in_a_recipe_is_told_before_anything_is_decoded(
    tiny, tmp_path, capsys, monkeypatch, extra, message
):
    monkeypatch.setattr("components.training.inputs.cache_images", None)  # a call would be an error
    overrides = SAN_OVERRIDES.replace("identities_per_batch=4", "") if "ties_per" in extra else ""
    overrides = f"{overrides or SAN_OVERRIDES} {extra}"
    command = with_flags(
        with_outputs_in(step_command("train_san", tiny), tmp_path), overrides=overrides
    )
    assert main(command) == 1
    assert message in capsys.readouterr().err


def test_only_training_is_shared_by_processes(tiny, tmp_path, monkeypatch, capsys):
    for name, value in (("LOCAL_RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert main(with_outputs_in(step_command("extract_features", tiny), tmp_path)) == 1
    assert "extract_features runs in one" in capsys.readouterr().err


def test_page_of_training_names_losses_in_words(tiny):
    page = (tiny.root / "train_san.html").read_text()
    losses = re.findall(r"alt=\"(\w+ loss); last: [\d.]+, over 3 epochs\"", page)
    assert losses == ["Total loss", "Identity loss", "Triplet loss", "Texture loss"]
    assert "demo with identities_per_batch=4 images_per_identity=2 epochs=3 warmup_epochs=1" in page
    assert "Held-out" not in page
    assert "This recipe holds nobody out (eval_every=0)." in page


def test_event_files_are_an_output_of_their_own(tiny, tmp_path):
    command = [*with_outputs_in(step_command("train_san", tiny), tmp_path), "--tensorboard", "true"]
    assert main(command) == 0
    names = sorted(path.name for path in (tmp_path / "events").iterdir())
    assert names[0] == "events.json"
    assert names[1].startswith("events.out.tfevents.")
    assert file_contents(tmp_path / "model") == file_contents(Path(tiny.model))
    assert (tmp_path / "training_page").read_text() == Path(tiny.root, "train_san.html").read_text()


def test_event_files_are_refused_without_a_place(tiny, capsys):
    assert main([*step_command("train_san", tiny), "--tensorboard", "true"]) == 1
    message = "train_san: --tensorboard true needs a folder for the event files: --events PATH"
    assert message in capsys.readouterr().err


def test_what_a_recipe_has_no_use_for_is_noted_and_textures_are_warned_of(caplog):
    given = {name: Path(name) for name in ("textures", "generator", "pit")}
    with caplog.at_level("INFO"):
        train_san._check_inputs(RECIPES["demo-baseline"], "demo-baseline", **given)
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("WARNING", "recipe 'demo-baseline' has no texture losses: the textures are not used"),
        ("INFO", "recipe 'demo-baseline' uses no generator: the given one is not used"),
        ("INFO", "recipe 'demo-baseline' has pit_every=0: the paired data are not used"),
    ]


def test_what_a_recipe_uses_is_not_noted(caplog):
    recipe = recipe_with_overrides(RECIPES["demo"], "init=encoder pit_every=2")
    given = {name: Path(name) for name in ("textures", "generator", "pit")}
    with caplog.at_level("INFO"):
        train_san._check_inputs(recipe, "demo", **given)
    assert caplog.records == []
