"""`pipeline.py run` of a name that has a record: its parameters are kept."""

from pathlib import Path
from typing import Any

import pytest

from components.experiments.record import Request, begun_record, read_run, write_record
from components.runner import local
from components.runner.containers import ContainerLauncher, bind_places
from components.storage.sources import file_versions
from pipeline import main

KEPT = {"dataset": "synthetic", "identities": 24, "san_recipe": "demo-baseline", "seed": 3}


@pytest.fixture
def ran(monkeypatch) -> list[dict[str, Any]]:
    """What `run` hands to the local runner."""
    calls: list[dict[str, Any]] = []

    def run(document: dict[str, Any], arguments: dict[str, Any], **options: Any) -> None:
        name = document["pipelineInfo"]["name"]
        calls.append({"pipeline": name, "arguments": arguments, **options})

    monkeypatch.setattr(local, "run_pipeline", run)
    return calls


@pytest.fixture
def runs(tmp_path) -> Path:
    """A folder with a run `a` of the baseline."""
    (tmp_path / "a").mkdir()
    request = Request("baseline", KEPT, "process", "san-pipeline:{target}")
    write_record(tmp_path / "a", begun_record(request, []))
    return tmp_path


def test_run_without_a_preset_changes_only_what_is_given(ran, runs):
    words = ["--name", "a", "--from", "train_san", "--param", "seed=4"]
    assert main(["run", "--runs", str(runs), *words]) == 0
    (call,) = ran
    assert (call["pipeline"], call["start"]) == ("san-baseline", "train_san")
    checkpoint = str(runs / ".store" / "checkpoints")
    assert call["arguments"] == {**KEPT, "seed": 4, "checkpoint": checkpoint}


def test_run_of_another_name_takes_parameters_of_one(ran, runs):
    assert main(["run", "--runs", str(runs), "--of", "a", "--name", "b"]) == 0
    assert ran[0]["folder"] == runs / "b"
    assert ran[0]["arguments"]["identities"] == 24


def test_preset_replaces_what_a_run_has_kept(ran, runs):
    words = ["--name", "a", "--preset", "demo-baseline"]
    assert main(["run", "--runs", str(runs), *words]) == 0
    assert ran[0]["arguments"]["identities"] == 192


def test_generator_that_is_given_takes_the_place_of_training_one(ran, runs):
    request = Request("full", {**KEPT, "pit_textures": 8}, "process", "san-pipeline:{target}")
    write_record(runs / "a", begun_record(request, []))
    words = ["--name", "a", "--param", "generator=shipped"]
    assert main(["run", "--runs", str(runs), *words]) == 0
    assert ran[0]["pipeline"] == "san-ready"
    assert "pit_textures" not in ran[0]["arguments"]


def test_all_parameters_are_kept_but_for_the_places_that_runs_share(ran, runs):
    words = ["--preset", "demo", "--param", f"destination={runs}/mine", "--name", "a"]
    assert main(["run", "--runs", str(runs), *words]) == 0
    with ran[0]["record"]([]):
        kept = read_run(runs / "a").record.request
    assert kept.graph == "full"
    assert kept.parameters["destination"] == f"{runs}/mine"
    assert kept.parameters["protocol"] == "auto"
    assert "checkpoint" not in kept.parameters


def test_place_in_a_run_stays_a_link_and_its_content_is_in_the_key(ran, runs, monkeypatch):
    monkeypatch.chdir(runs)
    for number in (1, 2):
        (runs / f".store/train_san/{number}/model").mkdir(parents=True)
        (runs / f".store/train_san/{number}/model/weights").write_text("1" * number)
    (runs / "elsewhere/deep").mkdir(parents=True)
    (runs / "up").symlink_to("elsewhere/deep")
    link = runs / "a/train_san"
    keys = []
    for number in (1, 2):
        link.unlink(missing_ok=True)
        link.symlink_to(f"../.store/train_san/{number}")
        words = ["--preset", "demo", "--name", "scored", "--runs", str(runs)]
        place = ["a/train_san/model", "up/../../a/train_san/model"][number - 1]
        assert main(["run", *words, "--param", f"model={place}"]) == 0
        assert ran[-1]["arguments"]["model"] == str(link / "model")
        keys.append(file_versions(ran[-1]["arguments"]["model"]))
    assert keys[0] != keys[1]
    written = [runs / "scored", runs / ".store"]
    assert link / "model" in bind_places(ran[-1]["arguments"], written)


def test_containers_and_their_image_are_kept_too(ran, runs):
    request = Request("baseline", KEPT, "docker", "mine:{target}")
    write_record(runs / "a", begun_record(request, []))
    assert main(["run", "--runs", str(runs), "--name", "a"]) == 0
    assert isinstance(ran[0]["launcher"], ContainerLauncher)
    with ran[0]["record"]([]):
        kept = read_run(runs / "a").record.request
    assert (kept.runner, kept.image, kept.parameters["image_height"]) == (
        "docker",
        "mine:{target}",
        256,
    )
    assert main(["run", "--runs", str(runs), "--name", "a", "--runner", "process"]) == 0
    assert not isinstance(ran[1]["launcher"], ContainerLauncher)
