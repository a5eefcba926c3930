"""The demo's whole path as a person runs it, tiny, on a folder in Market-1501's layout."""

import json
import shutil

import numpy as np
import pytest
import torch

from components.__main__ import main as components
from pipeline import main
from san_core.images.pixels import encode_jpeg
from san_core.model.weights import load_network
from san_core.shipped.generator import SHIPPED_FOLDER
from tests.tiny import file_contents

SMALL = {
    "pit_textures": "6",
    "pit_meshes": "3",
    "image_height": "64",
    "pg_overrides": "texture_from=copy w_dense=1 epochs=2 batch_size=8",
    "san_overrides": "epochs=2 warmup_epochs=1 identities_per_batch=4 images_per_identity=2",
}


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """Six people to train on, four to test on, two cameras; a distractor and a piece of junk."""
    return _write_market(tmp_path_factory.mktemp("Market-1501-v15.09.15"), tested=(2, 3))


def _write_market(root, *, tested):
    """A folder in the layout of Market-1501. tested: frames of gallery people by each camera."""
    for folder, people, frames in (
        ("bounding_box_train", range(2, 14, 2), (1, 2)),
        ("query", range(1, 9, 2), (1,)),
        ("bounding_box_test", (-1, 0, *range(1, 9, 2)), tested),
    ):
        (root / folder).mkdir()
        (root / folder / "Thumbs.db").write_bytes(b"litter, as in the published archive")
        for pid in people:
            for camera in (1, 2):
                for frame in frames:
                    person = f"{pid:04d}" if pid >= 0 else "-1"
                    name = f"{person}_c{camera}s1_{frame:06d}_01.jpg"
                    (root / folder / name).write_bytes(_picture(pid, camera, frame))
    return root


def _picture(pid, camera, frame):
    rng = np.random.default_rng([pid + 1, 7])
    image = np.full((128, 64, 3), 40 * camera, np.uint8)
    image[20:70, 16:48], image[70:120, 20:44] = rng.integers(0, 256, (2, 3), np.uint8)
    noise = np.random.default_rng([pid + 1, camera, frame]).integers(0, 30, image.shape, np.uint8)
    return encode_jpeg(image // 2 + noise, quality=90)


def _run(market, runs, *words):
    values = {"dataset": "market1501", "source": str(market), **SMALL}
    params = [word for name, value in values.items() for word in ("--param", f"{name}={value}")]
    return main(["run", "--preset", "demo", "--runs", str(runs), *params, *words])


@pytest.mark.slow
def test_the_whole_pipeline_runs_on_a_folder_of_market1501(market, tmp_path, capsys):
    status, said = _run(market, tmp_path), capsys.readouterr()
    assert status == 0, said
    page = tmp_path / "demo" / "evaluate" / "report_page.html"
    assert f"evaluate: {page}" in said.out
    report = json.loads((tmp_path / "demo/evaluate/report/report.json").read_bytes())
    assert (report["num_query"], report["num_gallery"], report["num_skipped"]) == (8, 24, 0)
    assert (report["num_distractors"], report["num_junk"], report["num_cameras"]) == (4, 4, 2)
    assert f"mAP {report['mAP']:.1%}" in said.out
    assert set(report["references"]) == {"untrained encoder", "colour histogram"}

    assert _run(market, tmp_path) == 0
    said = capsys.readouterr().out
    assert said.count("skipped (unchanged)") == 10  # nine steps, one in two workers
    assert "done in" not in said

    assert _run(market, tmp_path, "--only", "evaluate") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ... ")[0] for line in lines if " ... done" in line] == ["evaluate"]

    longer = SMALL["san_overrides"].replace("epochs=2 ", "epochs=3 ", 1)
    words = ["run", "--runs", str(tmp_path), "--name", "other"]
    assert main([*words, "--of", "demo", "--param", f"san_overrides={longer}"]) == 0
    said = capsys.readouterr().out
    trained = {"check_reid", "train_san", "extract_features", "evaluate"}
    assert {line.split()[0] for line in said.splitlines() if " ... done in" in line} == trained
    assert said.count("skipped (found in the store)") == 6
    assert components(["compare", "demo", "other", "--runs", str(tmp_path)]) == 0
    assert "SAN: epochs" in (tmp_path / "compare-demo-vs-other.html").read_text()

    shutil.rmtree(tmp_path / "demo")
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out.count("skipped (unchanged)") == 10


@pytest.mark.slow
def test_the_small_presets_start_as_the_shipped_encoder_with_and_without_textures(tmp_path, capsys):
    still = "epochs=1 warmup_epochs=0 lr=1e-12 decoder_lr=1e-12 weight_decay=0"
    words = f"{still} identities_per_batch=4 images_per_identity=2"

    def run(preset):
        given = ["--param", "identities=6", "--param", f"san_overrides={words}"]
        status = main(["run", "--preset", preset, "--runs", str(tmp_path), *given])
        said = capsys.readouterr()
        assert status == 0, said
        return said.out

    run("small")
    assert not [path for path in (tmp_path / "small").iterdir() if "textures" in path.name]
    assert run("small-san").count("skipped (found in the store)") == 2  # people and generator
    start = load_network(SHIPPED_FOLDER).model.encoder.conv1.weight
    for preset, losses in (("small", ("id", "tri")), ("small-san", ("id", "tri", "rec", "tr"))):
        trained = load_network(tmp_path / preset / "train_san" / "model")
        assert trained.recipe.active_losses == losses
        assert torch.allclose(trained.model.encoder.conv1.weight, start, rtol=0, atol=1e-6)
        report = tmp_path / preset / "evaluate" / "report" / "report.json"
        assert "untrained encoder" in json.loads(report.read_bytes())["references"]


@pytest.mark.slow
def test_two_feature_workers_make_the_features_of_one(tiny, tmp_path, capsys):
    (tmp_path / "market").mkdir()
    market = _write_market(tmp_path / "market", tested=range(2, 10))  # more than a batch of 64
    given = {"model": tiny.model, "dataset": "market1501", "source": market, "references": "false"}
    params = [word for name, value in given.items() for word in ("--param", f"{name}={value}")]

    def run(name, *words):
        words = ["--name", name, "--runs", str(tmp_path / "runs"), *words]
        assert main(["run", "--preset", "demo", "--graph", "score", *params, *words]) == 0
        return capsys.readouterr().out

    run("one")
    several = ["--param", "feature_workers=2"]
    run("two", *several)
    runs = tmp_path / "runs"
    whole = file_contents(runs / "one" / "extract_features" / "features")
    assert file_contents(runs / "two" / "seal_features" / "features") == whole
    scores = "evaluate/report/report.json"
    assert (runs / "one" / scores).read_bytes() == (runs / "two" / scores).read_bytes()
    assert run("two", *several).count("skipped (unchanged)") == 6

    # A worker that is started again takes its part; one whose part is gone makes it again
    (lost,) = (runs / ".store" / "features").glob("*/of-2/1")
    shutil.rmtree(lost)
    run("two", *several, "--from", "extract_features")
    logs = [(runs / "two" / f"extract_features-{n}" / "log.txt").read_text() for n in (0, 1)]
    assert ["where it is finished" in log for log in logs] == [True, False]
    assert file_contents(runs / "two" / "seal_features" / "features") == whole
