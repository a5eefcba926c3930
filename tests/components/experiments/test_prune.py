"""Unneeded files: listed, and deleted on request, locally and in a bucket."""

import fcntl
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from components.__main__ import main
from components.experiments.prune import _comparable
from components.runner.folder import LOCK_FILE
from components.runner.store import Store
from components.storage.places import open_storage
from san_core.images.texture_set import TextureSettings
from tests.components.experiments.made_runs import make_run

OLD, NEW = {"mAP": 0.25}, {"mAP": 0.5}


def put_training(place: str, name: str, *, epochs: int, over: int) -> None:
    """A state of training as the steps keep it, with a model beside it."""
    storage = open_storage(place)
    key = {"step": "train_san", "recipe": {"epochs": epochs}}
    storage.put_bytes(f"{name}/run.json", json.dumps(key).encode())
    storage.put_bytes(f"{name}/state.pt", b"state")
    storage.put_bytes(f"{name}/history.jsonl", history_of(name, over))
    put_model(place, f"{name}/model", history_of(name, over))


def history_of(name: str, epochs: int) -> bytes:
    return json.dumps({"loss": name}).encode() + b"\n" * epochs


def put_model(place: str, name: str, history: bytes) -> None:
    """What a training has made."""
    storage = open_storage(place)
    storage.put_bytes(f"{name}/history.jsonl", history)
    storage.put_bytes(f"{name}/weights.safetensors", b"weights")


def put_textures(place: str, name: str, *, is_sealed: bool = True) -> str:
    """A set of textures; returns where it is."""
    settings = asdict(TextureSettings("aa", "bb", "train", 64))
    return put_set(place, name, {"settings": settings} if is_sealed else None)


def put_set(place: str, name: str, provenance: dict[str, Any] | None) -> str:
    """A set of images, with a manifest if it is finished; returns where it is."""
    storage = open_storage(place)
    for file in ("shards/0.tar", "shards/0.json"):
        storage.put_bytes(f"{name}/{file}", b"{}")
    if provenance is not None:
        told = json.dumps({"provenance": provenance}).encode()
        storage.put_bytes(f"{name}/manifest.json", told)
    return f"{storage.uri}/{name}"


def names(place: str) -> set[str]:
    """The folders that are left in a place."""
    return {stat.name.partition("/")[0] for stat in open_storage(place).list()}


def prune(*words: str) -> int:
    return main(["prune", *words])


def test_steps_of_no_run_are_shown_and_then_deleted(tmp_path, capsys):
    make_run(tmp_path / "a", OLD)
    make_run(tmp_path / "b", NEW)
    shutil.rmtree(tmp_path / "b")
    assert prune("--runs", str(tmp_path)) == 0
    said = capsys.readouterr().out.splitlines()
    assert "step evaluate, of no run: " in said[0]
    assert said[1].startswith("1 in total, ")
    assert said[1].endswith("; --yes true deletes them")
    store = Store.of_runs(tmp_path)
    assert len(store.all_folders()) == 3
    assert prune("--runs", str(tmp_path), "--yes", "true") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("deleted 1 in total, ")
    assert set(store.all_folders()) == set(store.links())
    assert prune("--runs", str(tmp_path), "--yes") == 0
    assert capsys.readouterr().out == "there is nothing to delete\n"


def test_step_that_a_container_may_write_to_stays(tmp_path, capsys):
    make_run(tmp_path / "a", OLD)
    shutil.rmtree(tmp_path / "a")
    first, _ = Store.of_runs(tmp_path).all_folders()
    (first / "container").write_text("id")
    assert prune("--runs", str(tmp_path), "--yes", "true") == 0
    assert Store.of_runs(tmp_path).all_folders() == [first]


def test_nothing_is_deleted_while_a_run_goes_on(tmp_path, capsys):
    make_run(tmp_path / "a", OLD)
    with (tmp_path / "a" / LOCK_FILE).open("w") as lock:
        lock.write("123")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert prune("--runs", str(tmp_path), "--yes", "true") == 1
    assert "prune: run a is active (process 123); prune when it has" in capsys.readouterr().err


def point_at(run: Path, place: str) -> None:
    """Let a run's last step point to textures."""
    (run / "evaluate" / "report" / "manifest.json").write_text(json.dumps({"uri": place}))


def check_places(runs: Path, place: str, *words: str) -> None:
    """Unfinished trainings, sets that are not sealed and those in use stay; the others go."""
    make_run(runs / "a", OLD)
    put_training(place, "finished", epochs=3, over=3)
    put_model(str(runs / "a" / "evaluate"), "report", history_of("finished", 3))
    put_training(place, "going-on", epochs=3, over=2)
    point_at(runs / "a", put_textures(place, "used"))
    put_textures(place, "unused")
    put_textures(place, "unsealed", is_sealed=False)
    every = {"finished", "going-on", "used", "unused", "unsealed"}
    assert prune(*words) == 0
    assert names(place) == every
    assert prune(*words, "--what", "textures", "--yes", "true") == 0
    assert names(place) == every - {"unused"}
    assert prune(*words, "--yes", "true") == 0
    assert names(place) == every - {"unused", "finished"}


def test_only_finished_trainings_and_unused_textures_go_from_a_folder(tmp_path, capsys):
    runs, place = tmp_path / "runs", tmp_path / "kept"
    check_places(runs, str(place), "--runs", str(runs), "--at", str(place))
    assert "checkpoint of train_san, finished after 3 epochs: file://" in capsys.readouterr().out
    assert not (place / "finished").exists()


@pytest.mark.s3
def test_only_finished_trainings_and_unused_textures_go_from_a_bucket(tmp_path, s3):
    check_places(tmp_path, s3, "--runs", str(tmp_path), "--at", s3)


def test_what_lies_in_the_store_of_the_runs_is_looked_at_without_a_place(tmp_path, capsys):
    make_run(tmp_path / "a", OLD)
    store = Store.of_runs(tmp_path).root
    put_training(str(store / "checkpoints"), "finished", epochs=1, over=1)
    put_model(str(tmp_path / "a" / "evaluate"), "report", history_of("finished", 1))
    put_textures(str(store / "textures"), "unused")
    assert prune("--runs", str(tmp_path), "--yes", "true") == 0
    said = capsys.readouterr().out
    assert "textures of no run here: file://" in said
    assert not list(store.glob("checkpoints/*")) + list(store.glob("textures/*"))


def test_only_textures_go_among_image_sets(tmp_path):
    put_set(str(tmp_path), "reid", {"dataset": "market1501", "counts": {}})
    put_set(str(tmp_path), "pit/images", {"made_by": "make_pit", "settings": "few"})
    put_textures(str(tmp_path), "textures")
    assert prune("--runs", str(tmp_path / "runs"), "--at", str(tmp_path), "--yes", "true") == 0
    assert names(str(tmp_path)) == {"reid", "pit"}


@pytest.mark.parametrize("scheme", ["file", "path"])
def test_textures_that_a_manifest_in_the_place_points_to_stay(tmp_path, scheme):
    used = put_textures(str(tmp_path), "kept/used")
    put_textures(str(tmp_path), "kept/unused")
    told = used if scheme == "file" else str(tmp_path / "kept" / "used")
    (tmp_path / "sealed").mkdir()
    (tmp_path / "sealed" / "manifest.json").write_text(json.dumps({"uri": told}))
    assert prune("--runs", str(tmp_path / "runs"), "--at", str(tmp_path), "--yes", "true") == 0
    assert names(str(tmp_path / "kept")) == {"used"}


@pytest.mark.parametrize("pruned", ["link", "disk"])
def test_textures_in_use_stay_whatever_link_leads_to_them(tmp_path, pruned):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    make_run(tmp_path / "runs" / "a", OLD)
    other = {"link": "disk", "disk": "link"}[pruned]
    point_at(tmp_path / "runs" / "a", put_textures(str(tmp_path / other), "used"))
    words = ["--runs", str(tmp_path / "runs"), "--at", str(tmp_path / pruned), "--yes", "true"]
    assert prune(*words) == 0
    assert names(str(tmp_path / "disk")) == {"used"}


def test_one_bucket_is_one_place_by_either_scheme():
    assert _comparable("minio://b/x/") == _comparable("s3://b/x")
    assert _comparable("gs://b/x") == "gs://b/x"


@pytest.mark.parametrize("place", ["", "kept"])
def test_state_of_a_training_without_its_model_stays_and_is_reported(tmp_path, capsys, place):
    make_run(tmp_path / "a", OLD)
    where = str(tmp_path / place if place else Store.of_runs(tmp_path).root / "checkpoints")
    put_training(where, "lost", epochs=2, over=2)
    words = ["--runs", str(tmp_path), *(["--at", where] if place else []), "--yes", "true"]
    assert prune(*words) == 0
    line, summary = capsys.readouterr().out.splitlines()
    assert "checkpoint of train_san, finished after 2 epochs: file://" in line
    assert line.endswith("lost; it stays: no model of this training is known here")
    assert summary == "there is nothing to delete"
    assert names(where) == {"lost"}


def test_state_goes_where_its_model_lies_in_the_same_place(tmp_path):
    put_training(str(tmp_path), "states/done", epochs=2, over=2)
    put_model(str(tmp_path), "artifacts/model", history_of("states/done", 2))
    assert prune("--runs", str(tmp_path / "runs"), "--at", str(tmp_path), "--yes", "true") == 0
    assert names(str(tmp_path)) == {"artifacts"}


@pytest.mark.parametrize("is_in_run", [True, False])
def test_damaged_manifest_stops_everything_and_is_named(tmp_path, capsys, is_in_run):
    make_run(tmp_path / "runs" / "a", OLD)
    place = tmp_path / "kept"
    put_textures(str(place), "textures")
    run = tmp_path / "runs" / "a" / "evaluate" / "report"
    broken = (run if is_in_run else place) / "manifest.json"
    broken.write_text('{"uri": ')
    words = ["--runs", str(tmp_path / "runs"), "--at", str(place), "--yes", "true"]
    assert prune(*words) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("prune: ")
    assert "manifest.json is not JSON" in said[0]
    assert names(str(place)) >= {"textures"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--what", "steps", "--at", "/x"], "--what steps applies to the store of local runs"),
        (["--what", "nodes"], "--what nodes needs --at, the pipeline root on Kubeflow"),
        (["--at", ""], "--at is empty; give a folder or a URI"),
        (["--at", "ftp://x"], "is neither a folder nor a file:///"),
        (["--yes", "maybe"], "invalid boolean value: 'maybe'"),
    ],
)
def test_wrong_words_are_refused(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        prune("--runs", str(tmp_path), *words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_here", [True, False])
def test_features_of_single_workers_go_once_all_have_finished(tmp_path, capsys, is_here):
    place = str(tmp_path / (".store/features" if is_here else "kept"))
    storage = open_storage(place)
    for name in ("a/of-2/0", "a/of-2/1", "a/of-3/1", "b/of-2/0"):
        for file in ("features.npy", "features.json"):
            storage.put_bytes(f"{name}/{file}", b"x")
    storage.put_bytes("c/something", b"x")
    where = ["--runs", str(tmp_path)] if is_here else ["--at", place]
    assert prune(*where, "--what", "features") == 0
    said = capsys.readouterr().out
    assert "features of 2 of 2 workers: " in said
    assert "features of 1 of 2 workers: " in said
    assert "/b; it stays: the other workers have not finished" in said
    assert names(place) == {"a", "b", "c"}
    assert prune(*where, "--yes", "true") == 0
    assert names(place) == {"b", "c"}


def put_left_by_nodes(place: str, number: int, history: bytes) -> str:
    """What nodes have trained and no pod has fetched; returns its folder."""
    name = f"san-nodes/san-train-san-{number:016x}"
    put_model(place, f"{name}/model", history)
    open_storage(place).put_bytes(f"{name}/losses", b"{}")
    return name


@pytest.mark.parametrize("is_root", [True, False])
def test_outputs_of_nodes_go_if_their_model_can_be_had_again(tmp_path, capsys, is_root):
    place = str(tmp_path / "root")
    within = place if is_root else f"{place}/deep"
    put_training(within, "san-checkpoints/a", epochs=2, over=2)
    shutil.rmtree(Path(within, "san-checkpoints", "a", "model"))
    resumable = put_left_by_nodes(within, 1, history_of("san-checkpoints/a", 2))
    put_model(within, "pipeline/model", history_of("b", 2))
    handed_on = put_left_by_nodes(within, 2, history_of("b", 2))
    only_copy = put_left_by_nodes(within, 3, history_of("c", 2))
    half_sent = put_left_by_nodes(within, 4, history_of("b", 2))
    open_storage(within).put_bytes(f"{half_sent}/model/unfinished.json", b"{}")
    words = ["--runs", str(tmp_path / "runs"), "--at", place]
    assert prune(*words, "--what", "nodes") == 0
    said = capsys.readouterr().out
    assert said.count("outputs of nodes: file://") == 4
    assert f"{only_copy}; it stays: neither its model nor a checkpoint of it is known" in said
    assert f"{half_sent}; it stays: a node is sending it, or was stopped meanwhile" in said
    assert prune(*words, "--what", "nodes", "--yes") == 0
    assert not Path(within, resumable).exists()
    assert not Path(within, handed_on).exists()
    assert Path(within, only_copy, "model", "history.jsonl").exists()
    assert Path(within, half_sent, "losses").exists()


def test_checkpoint_stays_while_only_nodes_have_its_model(tmp_path, capsys):
    place = str(tmp_path / "root")
    put_training(place, "san-checkpoints/a", epochs=2, over=2)
    shutil.rmtree(tmp_path / "root" / "san-checkpoints" / "a" / "model")
    put_left_by_nodes(place, 1, history_of("san-checkpoints/a", 2))
    words = ["--runs", str(tmp_path / "runs"), "--at", place, "--what", "checkpoints"]
    assert prune(*words, "--yes") == 0
    assert "it stays: no model of this training is known here" in capsys.readouterr().out
    assert (tmp_path / "root" / "san-checkpoints" / "a" / "run.json").exists()
