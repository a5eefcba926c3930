"""What is needed no more: shown, and deleted if that is asked for, here and in a bucket."""

import fcntl
import json
import shutil
from pathlib import Path

import pytest

from components.__main__ import main
from components.runner.folder import LOCK_FILE
from components.runner.store import Store
from components.storage.places import open_storage
from tests.components.experiments.made_runs import make_run

OLD, NEW = {"mAP": 0.25}, {"mAP": 0.5}


def put_training(place: str, name: str, *, epochs: int, over: int) -> None:
    """A state of training as the steps keep it, with a model beside it."""
    storage = open_storage(place)
    key = {"step": "train_san", "recipe": {"epochs": epochs}}
    storage.put_bytes(f"{name}/run.json", json.dumps(key).encode())
    storage.put_bytes(f"{name}/state.pt", b"state")
    storage.put_bytes(f"{name}/history.jsonl", b"{}\n" * over)
    storage.put_bytes(f"{name}/model/recipe.json", b"{}")


def put_textures(place: str, name: str, *, is_sealed: bool = True) -> str:
    """A set of textures; returns where it is."""
    storage = open_storage(place)
    for file in ("shards/0.tar", "shards/0.json", *(["manifest.json"] if is_sealed else [])):
        storage.put_bytes(f"{name}/{file}", b"{}")
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
    assert said[1].startswith("1 in all, ")
    assert said[1].endswith("; --yes true deletes them")
    store = Store.of_runs(tmp_path)
    assert len(store.all_folders()) == 3
    assert prune("--runs", str(tmp_path), "--yes", "true") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("deleted 1 in all, ")
    assert set(store.all_folders()) == set(store.links())
    assert prune("--runs", str(tmp_path), "--yes") == 0
    assert capsys.readouterr().out == "there is nothing that could go\n"


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
    assert "prune: run a is under way (process 123); prune when it has" in capsys.readouterr().err


def point_at(run: Path, place: str) -> None:
    """Let a run's last step point to textures."""
    (run / "evaluate" / "report" / "manifest.json").write_text(json.dumps({"uri": place}))


def check_places(runs: Path, place: str, *words: str) -> None:
    """Unfinished trainings, sets that are not sealed and those in use stay; the others go."""
    make_run(runs / "a", OLD)
    put_training(place, "finished", epochs=3, over=3)
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
    put_textures(str(store / "textures"), "unused")
    assert prune("--runs", str(tmp_path), "--yes", "true") == 0
    said = capsys.readouterr().out
    assert "textures of no run here: file://" in said
    assert not list(store.glob("checkpoints/*")) + list(store.glob("textures/*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--what", "steps", "--at", "/x"], "--what steps is of the store of the runs here"),
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
