"""Models that are there: taken by hand, and scored by the graph `score`."""

import json
import shutil
from pathlib import Path

import pytest

import pipeline
from components.__main__ import main
from san_core.model.saved import fingerprint
from tests.tiny import file_contents, step_command, with_flags


def take(source, output):
    return main(["take_model", "--model", str(output), "--source", str(source)])


def test_what_is_taken_are_the_files_of_the_model(tiny, tmp_path):
    assert take(tiny.model, tmp_path / "model") == 0
    found, given = file_contents(tmp_path / "model"), file_contents(Path(tiny.model))
    assert found.keys() == given.keys()
    assert {n: one for n, one in found.items() if n != "SHA256SUMS"} == {
        n: one for n, one in given.items() if n != "SHA256SUMS"
    }
    embed = with_flags(
        step_command("extract_features", tiny),
        model=str(tmp_path / "model"),
        features=str(tmp_path / "features"),
    )
    assert main(embed) == 0
    kept = Path(tiny.features, "features.npy").read_bytes()
    assert (tmp_path / "features" / "features.npy").read_bytes() == kept


def test_a_damaged_model_is_not_taken(tiny, tmp_path, capsys):
    shutil.copytree(tiny.model, tmp_path / "damaged")
    weights = tmp_path / "damaged" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert take(tmp_path / "damaged", tmp_path / "model") == 1
    assert "is damaged: its sha256 is not that of SHA256SUMS" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{generator}", "has learned no identities: it is a texture generator"),
        ("{empty}", "holds no model: recipe.json is missing"),
        ("", "--source is empty; give the folder or URI of a model"),
    ],
)
def test_what_is_no_model_is_named(tiny, tmp_path, capsys, source, message):
    (tmp_path / "empty").mkdir()
    place = source.format(generator=tiny.generator, empty=tmp_path / "empty")
    assert take(place, tmp_path / "model") == 1
    assert message in capsys.readouterr().err


def test_a_model_without_sums_is_taken_with_a_warning(tiny, tmp_path, capsys):
    shutil.copytree(tiny.model, tmp_path / "old")
    (tmp_path / "old" / "SHA256SUMS").unlink()
    assert take(tmp_path / "old", tmp_path / "model") == 0
    assert "has no SHA256SUMS, so damage cannot be detected" in capsys.readouterr().err
    assert (tmp_path / "model" / "SHA256SUMS").exists()


@pytest.mark.slow
def test_an_onnx_file_is_taken_with_its_sum(tiny, tmp_path, capsys):
    file, model = tmp_path / "reid.onnx", tmp_path / "model"
    assert main(["export", "--model", tiny.model, "--onnx", str(file)]) == 0
    assert take(file, model) == 0
    assert set(file_contents(model)) == {"reid.onnx", "SHA256SUMS"}
    content = bytearray((model / "reid.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (model / "reid.onnx").write_bytes(content)
    embed = with_flags(
        step_command("extract_features", tiny),
        model=str(model),
        features=str(tmp_path / "f"),
        references="false",
    )
    assert main(embed) == 1
    assert "reid.onnx is damaged: its sha256 is not that of SHA256SUMS" in capsys.readouterr().err


@pytest.mark.slow
def test_the_graph_score_judges_a_model_that_is_there(tiny, tmp_path, capsys):
    words = ["identities=24", "image_height=64", f"model={tiny.model}"]
    command = ["run", "--preset", "demo", "--name", "scored", "--runs", str(tmp_path)]
    command += [word for pair in words for word in ("--param", pair)]
    assert pipeline.main(command) == 0
    report = json.loads((tmp_path / "scored" / "evaluate" / "report" / "report.json").read_text())
    assert report["provenance"]["model"] == fingerprint(Path(tiny.model))
    assert not (tmp_path / "scored" / "train_san").exists()
    capsys.readouterr()
    assert pipeline.main(command) == 0
    assert "take_model ... skipped (unchanged)" in capsys.readouterr().out


@pytest.mark.slow
def test_the_graph_score_judges_an_onnx_file(tiny, tmp_path, capsys):
    file = tmp_path / "reid.onnx"
    assert main(["export", "--model", tiny.model, "--onnx", str(file)]) == 0
    words = ["identities=24", "image_height=64", f"model={file}"]
    command = ["run", "--preset", "demo", "--graph", "score", "--name", "s", "--runs"]
    command += [str(tmp_path), *(word for pair in words for word in ("--param", pair))]
    assert pipeline.main(command) == 0, capsys.readouterr()
    report = json.loads((tmp_path / "s" / "evaluate" / "report" / "report.json").read_text())
    assert report["provenance"]["onnx"] == fingerprint(file)


def test_a_graph_without_its_model_says_so(capsys, tmp_path):
    command = ["run", "--preset", "demo", "--graph", "score", "--runs", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        pipeline.main(command)
    assert stopped.value.code == 2
    assert "--param model=VALUE is needed" in capsys.readouterr().err
    assert pipeline.main([*command, "--param", f"model={tmp_path / 'none'}"]) == 1
    assert "model " in capsys.readouterr().err
