"""Steps and searches by models as ONNX files: as by torch, and without it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.__main__ import main
from components.command.code import ROOT
from san_core.images.imageset import ImageSet
from san_core.images.pixels import decode
from tests.tiny import step_command, with_flags

# Says which packages a process may not have, as where they are not installed.
BLOCKED = ("torch", "torchvision", "safetensors", "kfp")
RUN_BLOCKED = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None
from components.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def run_without_torch(*words):
    return subprocess.run(
        [sys.executable, "-c", RUN_BLOCKED, *words], cwd=ROOT, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    """The encoder and the generator of the tiny run as ONNX files."""
    folder = tmp_path_factory.mktemp("onnx")
    for name, model in (("reid", tiny.model), ("pg", tiny.generator)):
        assert main(["export", "--model", model, "--onnx", str(folder / f"{name}.onnx")]) == 0
    return folder


def features_of(place):
    return np.load(Path(place, "features.npy"))


@pytest.mark.slow
@pytest.mark.parametrize("mirrored", ["false", "true"])
def test_features_without_torch_are_those_of_torch(tiny, exported, tmp_path, mirrored):
    command = with_flags(
        step_command("extract_features", tiny), references="false", mirrored=mirrored
    )
    for name, model in (("torch", tiny.model), ("onnx", exported / "reid.onnx")):
        words = with_flags(command, model=str(model), features=str(tmp_path / name))
        if name == "torch":
            assert main(words) == 0
            continue
        done = run_without_torch(*words)
        assert done.returncode == 0, done.stderr
    found, expected = features_of(tmp_path / "onnx"), features_of(tmp_path / "torch")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    told, of_torch = (
        json.loads((tmp_path / name / "features.json").read_text()) for name in ("onnx", "torch")
    )
    assert told.pop("onnx") != told["model"]
    assert {**told, "sha256": None} == {**of_torch, "sha256": None}


@pytest.mark.slow
def test_textures_without_torch_are_those_of_torch(tiny, exported, tmp_path):
    flags = {"destination": str(tmp_path / "kept"), "generator": str(exported / "pg.onnx")}
    written = str(tmp_path / "written")
    generate = with_flags(step_command("generate_textures", tiny), **flags, written=written)
    done = run_without_torch(*generate)
    assert done.returncode == 0, done.stderr
    sealed = tmp_path / "textures"
    seal = with_flags(step_command("seal_textures", tiny), **flags, textures=str(sealed))
    done = run_without_torch(*seal)
    assert done.returncode == 0, done.stderr
    for made, expected in zip(pictures_of(sealed), pictures_of(tiny.textures), strict=True):
        assert np.abs(made.astype(int) - expected).max() <= 1


def pictures_of(place):
    uri = json.loads(Path(place, "manifest.json").read_text()).get("uri", str(place))
    with ImageSet.open(Path(uri.removeprefix("file://"))) as images:
        return [decode(images.read(record)) for record in images.records]


@pytest.mark.slow
def test_a_folder_with_one_onnx_file_is_the_model(tiny, exported, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copyfile(exported / "reid.onnx", folder / "encoder.onnx")
    command = with_flags(
        step_command("extract_features", tiny),
        references="false",
        model=str(folder),
        features=str(tmp_path / "features"),
    )
    assert main(command) == 0
    assert features_of(tmp_path / "features").shape == features_of(tiny.features).shape


@pytest.mark.slow
def test_unsupported_options_of_an_onnx_file_are_reported(tiny, exported, tmp_path, capsys):
    extract = with_flags(
        step_command("extract_features", tiny), features=str(tmp_path / "f"), references="true"
    )
    assert main(with_flags(extract, model=str(exported / "reid.onnx"))) == 1
    assert "is an ONNX file, which has no untrained encoder" in capsys.readouterr().err
    assert main(with_flags(extract, model=str(exported / "pg.onnx"))) == 1
    assert "pg.onnx has learned no identities: it is a texture gen" in capsys.readouterr().err
    generate = with_flags(
        step_command("generate_textures", tiny),
        written=str(tmp_path / "w"),
        generator=str(exported / "pg.onnx"),
        precision="bfloat16",
    )
    assert main(generate) == 1
    assert "precision bfloat16 is not available for an ONNX file" in capsys.readouterr().err
    done = run_without_torch(*with_flags(extract, references="false"))
    assert done.returncode == 1
    assert f"{tiny.model} needs torch, which is not installed here; an ONNX" in done.stderr


def test_a_file_that_is_no_model_is_named(tiny, tmp_path, capsys):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"nothing of it")
    command = with_flags(
        step_command("extract_features", tiny), model=str(damaged), features=str(tmp_path / "f")
    )
    assert main(command) == 1
    assert f"{damaged} is damaged, or no ONNX file" in capsys.readouterr().err
