"""Models out of states of training, and ONNX files out of models."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from components.__main__ import main
from components.command import export
from components.training.loop import Validation, train
from san_core.data.batches.augmentation import normalise_images
from san_core.model.saved import fingerprint
from san_core.model.weights import load_network
from tests.components.training.test_loop import settings
from tests.san_core.training.tiny_run import tiny_data, tiny_model, tiny_recipe


@pytest.fixture
def kept(tmp_path):
    """Trains with a state, and gives its folder."""

    def run(words="", scores=()):
        recipe, left = tiny_recipe("demo-baseline", words), list(scores)
        train(
            tiny_model(recipe),
            tiny_data(),
            settings(recipe, checkpoint=str(tmp_path / "kept")),
            inputs={},
            room=tmp_path,
            validation=Validation("mAP", lambda _: left.pop(0)) if scores else None,
            facts={"recipe": "demo-baseline", "seed": 0},
        )
        return max((tmp_path / "kept").iterdir(), key=lambda path: path.stat().st_mtime)

    return run


def equal(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_state_becomes_the_model_that_lies_beside_it(kept, tmp_path, capsys):
    state = kept()
    command = ["export", "--from-state", str(state), "--model", str(tmp_path / "model")]
    assert main(command) == 0
    assert capsys.readouterr().out.endswith("model: 3 of 3 epochs, the weights are the last\n")
    made, beside = load_network(tmp_path / "model"), load_network(state / "model")
    assert made.facts == beside.facts == {"recipe": "demo-baseline", "seed": 0, "num_classes": 8}
    assert equal(made.model.state_dict(), beside.model.state_dict())
    lines = (tmp_path / "model" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    assert (tmp_path / "model" / "SHA256SUMS").exists()


def test_the_best_weights_of_a_state_are_the_models(kept, tmp_path, capsys):
    state = kept("eval_every=1", scores=(0.5, 0.75, 0.25))
    place = str(state / "state.pt")
    assert main(["export", "--from-state", place, "--model", str(tmp_path / "model")]) == 0
    assert "the weights are the best, of epoch 2" in capsys.readouterr().out
    made = load_network(tmp_path / "model")
    assert (made.facts["best_epoch"], made.facts["best_score"]) == (2, 0.75)
    assert equal(made.model.state_dict(), load_network(state / "model").model.state_dict())
    assert (tmp_path / "model" / "last.safetensors").exists()


def test_a_state_of_before_there_were_facts_and_averages_is_read(kept, tmp_path, monkeypatch):
    state = kept()

    def read_old(path):
        found = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        del found["facts"], found["fit"]["average"]
        return found

    monkeypatch.setattr("components.storage.checkpoint.read_state", read_old)
    assert main(["export", "--from-state", str(state), "--model", str(tmp_path / "model")]) == 0
    assert load_network(tmp_path / "model").facts == {"num_classes": 8, "seed": 0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from-state", "{empty}"], "holds no state of training (state.pt)"),
        (["--from-state", "{two}"], "holds 2 checkpoints; name one of the folders a, b"),
        (["--from-state", "{damaged}"], "is damaged; delete it to train anew"),
        ([], "give --from-state or --onnx"),
        (["--onnx", "s3://bucket/x.onnx"], "--onnx s3://bucket/x.onnx: name a local file"),
        (["--onnx", "{empty}/x.onnx"], "holds no model: recipe.json is missing"),
    ],
)
def test_what_cannot_be_exported_ends_in_one_line(tmp_path, capsys, words, message):
    for name in ("empty", "two/a", "two/b", "damaged"):
        (tmp_path / name).mkdir(parents=True)
        if name != "empty":
            (tmp_path / name / "state.pt").write_bytes(bytes(100))
    places = {name: str(tmp_path / name) for name in ("empty", "two", "damaged")}
    given = [word.format(**places) for word in words]
    assert main(["export", "--model", str(tmp_path / "model"), *given]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("export: ")
    assert message in line
    assert not (tmp_path / "model").exists()


def session_of(file):
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def test_both_layouts_give_the_features_of_the_model_and_tell_what_they_are(tiny, tmp_path, capsys):
    files = {layout: tmp_path / f"{layout}.onnx" for layout in ("nhwc-uint8", "nchw-float")}
    for layout, file in files.items():
        words = ["--model", tiny.model, "--onnx", str(file), "--layout", layout]
        assert main(["export", *words]) == 0
        assert f"{file}: {layout}, differs from torch by " in capsys.readouterr().out
    loaded = load_network(Path(tiny.model))
    pixels = np.random.default_rng(1).integers(0, 256, (7, 64, 32, 3), np.uint8)
    images = normalise_images(torch.tensor(pixels))
    (by_pixels,) = session_of(files["nhwc-uint8"]).run(None, {"pixels": pixels})
    (by_images,) = session_of(files["nchw-float"]).run(None, {"images": images.numpy()})
    with torch.inference_mode():
        expected = loaded.model.encoder(images).embedding.numpy()
    np.testing.assert_allclose(by_images, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_pixels, by_images, rtol=1e-4, atol=1e-5)
    told = session_of(files["nchw-float"]).get_modelmeta().custom_metadata_map
    assert json.loads(told.pop("description")) == json.loads(
        Path(tiny.model, "recipe.json").read_text()
    )
    assert told == {
        "layout": "nchw-float",
        "input_size": "64x32",
        "mean": "0.485 0.456 0.406",
        "std": "0.229 0.224 0.225",
        "colours": "RGB",
        "metric": "cosine",
        "recipe": "demo",
        "sha256": fingerprint(Path(tiny.model)),
    }


@pytest.mark.slow
def test_a_generator_is_exported_too(tiny, tmp_path):
    file = tmp_path / "pg.onnx"
    assert main(["export", "--model", tiny.generator, "--onnx", str(file)]) == 0
    onnx.checker.check_model(onnx.load(file))


def test_a_file_that_computes_something_else_is_not_kept(tiny, tmp_path, capsys, monkeypatch):
    honest = export._run_file
    monkeypatch.setattr(export, "_run_file", lambda file, given: honest(file, given) + 0.01)
    words = ["--model", tiny.model, "--onnx", str(tmp_path / "reid.onnx")]
    assert main(["export", *words]) == 1
    assert (
        "the ONNX file does not compute the same as torch: outputs dif" in capsys.readouterr().err
    )
    assert not (tmp_path / "reid.onnx").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "recipe.json", "photograph.jpg"])
def test_an_export_replaces_no_file_of_another_kind(tiny, tmp_path, capsys, name):
    model = shutil.copytree(tiny.model, tmp_path / "model")
    file = model / name
    if not file.exists():
        file.write_bytes(b"mine")
    before = file.read_bytes()
    assert main(["export", "--model", str(model), "--onnx", str(file)]) == 1
    assert f"--onnx {file} exists and its name does not end in .onnx" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_an_onnx_file_is_no_model_to_export(tmp_path, capsys):
    file = tmp_path / "encoder.onnx"
    file.write_bytes(b"")
    words = ["--model", str(file), "--onnx", str(tmp_path / "made.onnx")]
    assert main(["export", *words]) == 1
    assert capsys.readouterr().err == (
        f"export: {file} is an ONNX file; give the folder of the model\n"
    )
