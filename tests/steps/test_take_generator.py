"""Existing generators: the shipped one and a user's, by hand and in the pipeline."""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from components.__main__ import main
from components.command.code import ROOT
from components.storage.sources import file_versions, read_places
from san_core.images.imageset import ImageSet, read_manifest
from san_core.images.pixels import decode
from san_core.model import weights
from san_core.shipped.generator import SHIPPED_FOLDER
from san_core.synthesis.person.atlas import ATLAS_NAME
from tests.tiny import file_contents, step_command, with_flags, with_outputs_in
from tools.generator.__main__ import _argument_parser, _steps, write_generator

ARTIFACT = ("recipe.json", "weights.safetensors")


@pytest.fixture
def damaged(tmp_path):
    """A copy of the generator that ships, one bit of its weights turned over."""
    folder = tmp_path / "damaged"
    shutil.copytree(SHIPPED_FOLDER, folder)
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    return folder


def test_the_generator_that_ships_is_small_and_says_what_it_is():
    loaded = weights.load_network(SHIPPED_FOLDER)
    assert loaded.facts["atlas"] == ATLAS_NAME
    assert loaded.recipe.image_size == (128, 64)
    assert (SHIPPED_FOLDER / "weights.safetensors").stat().st_size <= 12e6
    card = (SHIPPED_FOLDER / "MODEL_CARD.md").read_text("utf-8")
    for name in ARTIFACT:
        assert hashlib.sha256((SHIPPED_FOLDER / name).read_bytes()).hexdigest() in card
    people = len(loaded.facts["trained_on"]["people"]) // len("0001196813b6")
    assert people == 9_000
    assert f"10,000 people were rendered. One in 10 was held out, so that {people:,} were" in card


def test_the_defaults_of_the_tool_are_those_of_what_ships():
    steps = _steps(_argument_parser().parse_args([]))
    commands = [shlex.join(["python", "-m", "components", *words]) for words in steps]
    card = (SHIPPED_FOLDER / "MODEL_CARD.md").read_text("utf-8")
    assert re.findall("^    (python .+)", card, re.MULTILINE) == commands


def test_empty_source_is_not_the_current_folder(tiny, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tiny.generator)
    assert main(["take_generator", "--generator", str(tmp_path / "g"), "--source", ""]) == 1
    assert "--source is empty; give a folder, a URI or the word shipped" in capfd.readouterr().err
    assert not (tmp_path / "g").exists()


def test_the_tool_keeps_of_a_trained_generator_what_ships(tiny, tmp_path):
    write_generator(
        Path(tiny.generator), tmp_path, how=[["make_pit", "--seed=0"], ["train_san_pg"]], people=40
    )
    assert set(file_contents(tmp_path)) == {*ARTIFACT, "SHA256SUMS", "MODEL_CARD.md"}
    kept, trained = weights.load_network(tmp_path), weights.load_network(Path(tiny.generator))
    assert kept.recipe == trained.recipe
    for name, value in trained.model.state_dict().items():
        torch.testing.assert_close(kept.model.state_dict()[name], value, rtol=1e-3, atol=1e-5)
    card = (tmp_path / "MODEL_CARD.md").read_text("utf-8")
    assert "python -m components make_pit --seed=0\n" in card
    assert (
        "\n40 people were rendered. One in 10 was held out, so that 36 were trained on.\n" in card
    )
    report = json.loads(Path(tiny.generator, "report.json").read_bytes())
    assert f"PSNR {report['psnr']:.2f} dB, and {report['psnr_of_mean_texture']:.2f} dB" in card


def test_an_installed_package_has_the_generator(tmp_path):
    command = ["-c", "from setuptools import setup; setup()"]
    command += ["egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib", str(tmp_path)]
    subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, check=True)
    installed = tmp_path / SHIPPED_FOLDER.relative_to(ROOT)
    for name in (*ARTIFACT, "SHA256SUMS", "MODEL_CARD.md"):
        assert (installed / name).read_bytes() == (SHIPPED_FOLDER / name).read_bytes()


def test_a_step_that_takes_the_shipped_generator_is_run_again_when_that_changes():
    (place,) = read_places({"source": "shipped"}, "take_generator")
    watched = {name for name, _, _ in file_versions(place.uri)}
    assert {"weights.safetensors", "recipe.json"} <= watched


def test_a_folder_that_is_called_shipped_is_a_folder_to_every_other_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "mine.jpg").touch()
    (place,) = read_places({"source": "shipped"}, "prepare_reid")
    assert [name for name, _, _ in file_versions(place.uri)] == ["mine.jpg"]


def test_what_is_taken_may_lie_in_a_folder_that_is_called_shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["take_generator", "--generator", "shipped/generator"]) == 0
    assert (tmp_path / "shipped" / "generator" / "weights.safetensors").is_file()


def test_the_shipped_generator_paints_a_data_set(tiny, tmp_path):
    paint = with_flags(step_command("generate_textures", tiny), generator="shipped")
    paint = with_flags(paint, written=str(tmp_path / "written"), destination=str(tmp_path / "kept"))
    seal = with_flags(step_command("seal_textures", tiny), generator="shipped")
    seal = with_flags(seal, textures=str(tmp_path / "sealed"), destination=str(tmp_path / "kept"))
    assert main(paint) == 0
    assert main(seal) == 0
    sealed = read_manifest(tmp_path / "sealed")
    assert sealed["provenance"]["atlas"] == ATLAS_NAME
    with ImageSet.open(Path(sealed["uri"].removeprefix("file://"))) as textures:
        assert decode(textures.read(textures.records[0])).shape == (128, 128, 3)


def test_what_is_taken_is_what_was_trained(tiny, tmp_path):
    taken = tmp_path / "taken"
    assert main(["take_generator", "--source", tiny.generator, "--generator", str(taken)]) == 0
    trained = file_contents(Path(tiny.generator))
    kept = file_contents(taken)
    assert set(kept) == {*ARTIFACT, "report.json", "SHA256SUMS"}
    del kept["SHA256SUMS"]  # of what was taken alone
    assert all(kept[name] == trained[name] for name in kept)


def test_the_shipped_generator_is_taken_with_its_card(tmp_path):
    assert main(["take_generator", "--generator", str(tmp_path / "taken")]) == 0
    assert set(file_contents(tmp_path / "taken")) == {*ARTIFACT, "SHA256SUMS", "MODEL_CARD.md"}
    assert weights.fingerprint(tmp_path / "taken") == weights.fingerprint(SHIPPED_FOLDER)


@pytest.mark.parametrize("step", ["generate_textures", "seal_textures", "take_generator"])
def test_a_damaged_generator_is_refused_in_one_line(tiny, tmp_path, capsys, damaged, step):
    if step == "take_generator":
        command = [step, "--source", str(damaged), "--generator", str(tmp_path / "taken")]
    else:
        command = with_flags(
            with_outputs_in(step_command(step, tiny), tmp_path), generator=str(damaged)
        )
    assert main(command) == 1
    (line,) = (one for one in capsys.readouterr().err.splitlines() if one.startswith(step))
    assert line.endswith("weights.safetensors is damaged: its sha256 is not that of SHA256SUMS")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{model}", "is not a texture generator; train_san_pg makes one"),
        ("/nowhere", "/nowhere holds no model: recipe.json is missing"),
        ("./shipped", "shipped holds no model: recipe.json is missing"),
    ],
)
def test_what_is_no_generator_is_not_taken(tiny, tmp_path, monkeypatch, capsys, source, message):
    monkeypatch.chdir(tmp_path)
    place = source.format(model=tiny.model)
    assert main(["take_generator", "--source", place, "--generator", str(tmp_path / "g")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "g").exists()


def test_a_folder_called_shipped_is_named_as_a_folder(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    paint = with_outputs_in(
        with_flags(step_command("generate_textures", tiny), generator="./shipped"), tmp_path
    )
    assert main(paint) == 1
    assert "shipped holds no model" in capsys.readouterr().err


@pytest.mark.slow
def test_the_pipeline_runs_on_the_shipped_generator_without_training_one(tmp_path):
    small = "epochs=2 warmup_epochs=1 identities_per_batch=4 images_per_identity=2"
    params = ["generator=shipped", "identities=9", "image_height=64", f"san_overrides={small}"]
    command = ["pipeline.py", "run", "--preset", "demo", "--runs", str(tmp_path)]
    command += [word for param in params for word in ("--param", param)]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = {path.name for path in (tmp_path / "demo").iterdir() if path.is_dir()}
    assert {"take_generator", "train_san", "evaluate"} <= steps
    assert not {"make_pit", "train_san_pg"} & steps
    report = json.loads((tmp_path / "demo/evaluate/report/report.json").read_bytes())
    assert 0 < report["mAP"] <= 1
