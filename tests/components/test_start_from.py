"""Trained models that are trained further."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

import pipeline
from components.__main__ import main
from components.storage.places import open_storage
from components.training.inputs import initial_model
from san_core.model.saved import fingerprint, write_sums
from san_core.model.weights import load_network
from san_core.recipe import recipe_with_overrides
from tests.servers.tampering_proxy import Answer
from tests.tiny import SAN_OVERRIDES, step_command, with_flags, with_outputs_in


def train(tiny, folder, words, *, start_from):
    command = with_outputs_in(step_command("train_san", tiny), folder)
    flags = {"overrides": f"{SAN_OVERRIDES} epochs=2 {words}".replace("epochs=3 ", "")}
    return main(with_flags(command, **flags, start_from=str(start_from)))


def begun(tiny, tmp_path, words, *, people):
    """A network of the tiny run's recipe, changed by words, as its training begins."""
    recipe = recipe_with_overrides(load_network(Path(tiny.model)).recipe, f"init=model {words}")
    return initial_model(
        recipe, num_classes=people, seed=7, folder=tmp_path, start_from=Path(tiny.model)
    )


@pytest.mark.parametrize("people", [3, 500])
def test_encoder_and_decoder_are_those_of_the_model_whatever_the_people(tiny, tmp_path, people):
    trained = load_network(Path(tiny.model)).model
    made = begun(tiny, tmp_path, "", people=people).state_dict()
    for name, tensor in trained.state_dict().items():
        if not name.startswith("classifier."):
            assert torch.equal(made[name], tensor), name
    assert made["classifier.weight"].shape[0] == people


def test_a_baseline_takes_the_encoder_alone(tiny, tmp_path):
    trained = load_network(Path(tiny.model)).model
    made = begun(tiny, tmp_path, "w_rec=0 w_tr=0", people=3)
    assert made.decoder is None
    for name, tensor in trained.encoder.state_dict().items():
        assert torch.equal(made.encoder.state_dict()[name], tensor), name


def test_another_architecture_is_refused_by_its_fields(tiny, tmp_path):
    message = r"another architecture: embedding_dim \d+ there, 96 here; decoder_width 0.5 there"
    with pytest.raises(ValueError, match=message):
        begun(tiny, tmp_path, "embedding_dim=96 decoder_width=0.25", people=3)


@pytest.mark.slow
def test_a_model_is_trained_further_and_says_of_whom_it_knows(tiny, tmp_path):
    assert train(tiny, tmp_path, "init=model", start_from=tiny.model) == 0
    told = json.loads((tmp_path / "model" / "recipe.json").read_text())
    former = json.loads(Path(tiny.model, "recipe.json").read_text())
    assert told["recipe"]["init"] == "model"
    assert told["facts"]["trained_on"] == former["facts"]["trained_on"]
    lines = (tmp_path / "model" / "history.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), Path(tiny.model, "history.jsonl").read_text()
    assert first["epoch"] == 1
    assert first["loss"] < json.loads(last.splitlines()[0])["loss"]
    assert fingerprint(tmp_path / "model") != fingerprint(Path(tiny.model))


def _stop_at_once() -> bool:
    os.kill(os.getpid(), signal.SIGTERM)
    return False


@pytest.fixture
def stopped(tiny, tmp_path, monkeypatch) -> Path:
    """The checkpoint of a training that was stopped in its first epoch."""
    command = with_outputs_in(step_command("train_san", tiny), tmp_path / "stopped")
    monkeypatch.setattr("components.training.loop._timer", lambda _: _stop_at_once)
    assert main(with_flags(command, checkpoint=str(tmp_path / "states"))) == 143
    monkeypatch.undo()
    (state,) = (tmp_path / "states").iterdir()
    return state


def test_a_stopped_training_is_trained_further_from_its_checkpoint(tiny, tmp_path, stopped, capsys):
    assert train(tiny, tmp_path, "init=model", start_from=stopped) == 0
    assert f"weights are loaded from {stopped / 'model'}" in capsys.readouterr().err
    assert train(tiny, tmp_path / "same", "init=model", start_from=stopped / "model") == 0
    assert fingerprint(tmp_path / "model") == fingerprint(tmp_path / "same" / "model")


def test_another_training_is_told_how_to_start_from_a_checkpoint(
    tiny, tmp_path, stopped, monkeypatch, capsys
):
    command = with_outputs_in(step_command("train_san", tiny), tmp_path)
    capsys.readouterr()
    monkeypatch.setattr("components.training.loop._timer", lambda _: _stop_at_once)
    command = with_flags(command, checkpoint=str(stopped.parent), seed="1")
    assert main(command) == 143
    assert f"add --start-from {stopped.as_uri()} and init=model" in capsys.readouterr().err


def test_a_checkpoint_without_a_whole_model_and_several_checkpoints_say_so(
    tiny, tmp_path, stopped, capsys
):
    (stopped / "model" / "SHA256SUMS").unlink()  # written last
    assert train(tiny, tmp_path, "init=model", start_from=stopped) == 1
    told = f"checkpoint {stopped} has no model yet: {stopped}/model is missing or incomplete"
    assert told in capsys.readouterr().err
    shutil.copytree(stopped, stopped.with_name("other"))
    assert train(tiny, tmp_path, "init=model", start_from=stopped.parent) == 1
    told = f"{stopped.parent} holds 2 checkpoints; name one of the folders {stopped.name}, other"
    assert told in capsys.readouterr().err


def test_the_model_of_a_failed_training_is_warned_of_by_either_name(
    tiny, tmp_path, stopped, capsys
):
    described = json.loads((stopped / "model" / "recipe.json").read_text())
    described["facts"]["failed"] = "the loss is not finite"
    (stopped / "model" / "recipe.json").write_text(json.dumps(described))
    write_sums(stopped / "model")
    for place in (stopped / "model", stopped, stopped.parent):
        assert train(tiny, tmp_path, "", start_from=place) == 1
        told = f"{stopped}/model was left by a failed training: the loss is not finite"
        assert told in capsys.readouterr().err


@pytest.fixture
def fetched(tampering_proxy) -> list[str]:
    """The paths of the objects that are read from the server, ever more."""
    paths: list[str] = []

    def listen(answer: Answer) -> bytes:
        if answer.method == "GET" and "list-type=" not in answer.path:
            paths.append(answer.path)
        return answer.body

    tampering_proxy.tamper = listen
    return paths


@pytest.mark.s3
def test_of_checkpoints_in_a_bucket_only_a_model_is_fetched(tiny, tmp_path, s3, fetched, capsys):
    store = open_storage(s3)
    for name in ("one/state.pt", "two/state.pt"):
        store.put_bytes(name, b"large")
    assert train(tiny, tmp_path, "init=model", start_from=s3) == 1
    assert fetched == []
    assert f"{s3} holds 2 checkpoints; name one of the folders one, two" in capsys.readouterr().err
    assert train(tiny, tmp_path, "init=model", start_from=f"{s3}/one") == 1
    told = f"checkpoint {s3}/one has no model yet: {s3}/one/model is missing or incomplete"
    assert told in capsys.readouterr().err
    assert fetched == []
    files = {file.name: file for file in Path(tiny.model).iterdir()}
    for name, file in files.items():
        store.put_file(f"one/model/{name}", file)
    fetched.clear()
    assert train(tiny, tmp_path, "", start_from=f"{s3}/one") == 1  # it has no effect
    assert f"--start-from {s3}/one/model has no effect" in capsys.readouterr().err
    assert {path.rpartition("/model/")[2] for path in fetched} == {*files}


@pytest.mark.parametrize(
    ("words", "start", "message"),
    [
        ("", "{model}", "has no effect with init=none; add init=model to --overrides"),
        ("init=model", "{generator}", "has learned no identities: it is a texture generator"),
        ("init=model", "{empty}", "holds no model: recipe.json is missing"),
        ("init=model", "{onnx}", "is an ONNX file; give the folder of the model"),
    ],
)
def test_invalid_starting_steps_are_reported(tiny, tmp_path, capsys, words, start, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.onnx").write_bytes(b"")
    places = {"empty": tmp_path / "empty", "onnx": tmp_path / "x.onnx"}
    place = start.format(model=tiny.model, generator=tiny.generator, **places)
    assert train(tiny, tmp_path / "out", words, start_from=place) == 1
    assert message in capsys.readouterr().err


def test_without_a_model_a_recipe_that_needs_one_says_so(tiny, tmp_path, capsys):
    command = with_outputs_in(step_command("train_san", tiny), tmp_path)
    assert main(with_flags(command, overrides="init=model")) == 1
    assert "starts from a model; give one with --start-from" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        pipeline.main(["run", "--preset", "demo", "--param", "san_overrides=init=model"])
    assert "which no graph provides; run train_san alone" in capsys.readouterr().err
