"""Parallel runs, which share finished steps."""

import json
import shutil
from pathlib import Path

import pytest

from components.runner import local, state
from components.runner.ir import Task
from components.runner.keys import task_key
from components.runner.screen import Screen
from components.runner.store import Making, Store, run_folders
from tests.components.runner.small_project import done, skipped

FOUND = "skipped (found in the store)"


def found(lines: list[str]) -> list[str]:
    """The tasks that these lines say another run, or a former one, has made."""
    return [line.split()[0] for line in lines if line.endswith(FOUND)]


def only_folder(project: Path, step: str) -> Path:
    (folder,) = Store.of_runs(project / "runs").root.glob(f"{step}/*-*")
    return folder


def test_run_of_another_name_makes_only_what_differs(go, project):
    go()
    lines = go(name="other", arguments={"by": 20})
    assert (found(lines), done(lines)) == (["make"], ["grow", "grow_2"])
    assert (project / "runs/other/make").resolve() == (project / "runs/small/make").resolve()
    assert (project / "runs/other/make").readlink().parts[:2] == ("..", ".store")


def test_setting_that_is_taken_back_is_found_again(go):
    go()
    go(arguments={"by": 20})
    lines = go()
    assert (skipped(lines), found(lines)) == (["make"], ["grow", "grow_2"])
    assert "  number 111  half 55.5" in lines


def test_deleting_one_run_harms_no_other(go, project):
    go()
    go(name="other")
    shutil.rmtree(project / "runs" / "small")
    lines = go(name="other")
    assert (skipped(lines), done(lines)) == (["make", "grow", "grow_2"], [])


def test_step_that_one_run_makes_anew_stays_to_another(go, project):
    go()
    go(name="other")
    old = (project / "runs/other/grow").resolve()
    assert done(go(start="grow")) == ["grow", "grow_2"]
    assert (project / "runs/small/grow").resolve() != old
    assert (old / "result" / "number").read_text() == "11"


def test_failed_repetition_of_a_shared_step_is_made_again_by_its_run_alone(go, project):
    flag = project / "flag"
    options = {"arguments": {"flag": str(flag)}}
    go(**options)
    go(name="other", **options)
    flag.write_text("fail")
    with pytest.raises(local.RunError):
        go(**options, start="grow")
    flag.unlink()
    assert skipped(go(name="other", **options)) == ["make", "grow", "grow_2"]
    assert done(go(**options)) == ["grow"]


def test_step_made_anew_in_vain_keeps_what_was_finished_before(go, project):
    flag = project / "flag"
    options = {"arguments": {"flag": str(flag)}}
    go(**options)
    old = (project / "runs/small/grow").resolve()
    flag.write_text("fail")
    with pytest.raises(local.RunError):
        go(**options, start="grow")
    assert (old / "result/number").read_text() == "11"
    flag.unlink()
    assert done(go(**options)) == ["grow"]
    assert not old.exists()
    logs = [(project / "runs/small/grow" / f"log-{n}.txt").read_text() for n in (1, 2)]
    assert ["too small" in log for log in logs] == [False, True]


def test_damage_to_a_shared_step_is_noticed_by_every_run(go, project):
    go()
    go(name="other")
    (project / "runs/small/grow/result/number").write_text("7")
    assert done(go(name="other")) == ["grow"]
    lines = go()
    assert (skipped(lines), found(lines)) == (["make", "grow_2"], ["grow"])


def test_folder_of_an_older_version_gives_way_to_a_link(go, project):
    go()
    link = project / "runs/small/grow"
    link.unlink()
    (link / "result").mkdir(parents=True)
    assert found(go()) == ["grow"]
    assert link.is_symlink()


class Meanwhile:
    """What happens as soon as a run says that it waits for another one."""

    def __init__(self, monkeypatch, act) -> None:
        self.lines: list[str] = []
        monkeypatch.setattr(Screen, "show_progress", self.note)
        self.act = act

    def note(self, *words: str) -> None:
        if words[-1].startswith("waits for another run"):
            self.lines.append(words[-1])
            if len(self.lines) == 1:
                self.act()


@pytest.mark.parametrize("has_finished", [True, False])
def test_run_waits_for_another_that_makes_the_same(
    go, project, tmp_path, monkeypatch, has_finished
):
    go()
    folder, store = only_folder(project, "make"), Store.of_runs(project / "runs")
    making = store.try_making("make", folder.name)
    assert isinstance(making, Making)
    folder.rename(tmp_path / "made")

    def end() -> None:
        if has_finished:
            (tmp_path / "made").rename(folder)
        making.release()

    meanwhile = Meanwhile(monkeypatch, end)
    lines = go(name="other")
    assert "that makes the same" in meanwhile.lines[0]
    assert ("make" in found(lines), "make" in done(lines)) == (has_finished, not has_finished)


def test_partial_outputs_of_a_killed_run_are_ignored(go, project):
    go()
    folder = only_folder(project, "make")
    (folder / state.STATE_FILE).unlink()
    (folder / "data" / "number").write_text("half")
    lines = go(name="other")
    assert (done(lines), found(lines)) == (["make"], ["grow", "grow_2"])
    assert (project / "runs/other/make/data/number").read_text() == "1"


def key_of(store: Store, **parameters: str) -> str:
    words = [word for name, value in parameters.items() for word in (f"--{name}", value)]
    task = Task("make", "make", ("python", "-m", "components", "make", *words), parameters)
    return task_key(task, store, code="1", inputs={})


def test_no_folder_of_a_run_is_in_a_key(tmp_path):
    store = Store.of_runs(tmp_path)
    mine = key_of(store, destination=str(store.root / "textures"), checkpoint="/here", seed="0")
    moved = Store.of_runs(tmp_path / "moved")
    there = str(moved.root / "textures")
    assert mine == key_of(moved, destination=there, checkpoint="/there", seed="0")
    assert mine != key_of(store, destination="s3://b/textures", checkpoint="/here", seed="0")


def test_order_of_parameters_is_not_in_a_key(tmp_path):
    parameters = {"seed": "0", "identities": "8"}
    words = ("python", "-m", "components", "make")
    keys = {
        task_key(Task("make", "make", words, told), Store.of_runs(tmp_path), code="1", inputs={})
        for told in (parameters, dict(reversed(parameters.items())))
    }
    assert len(keys) == 1


def test_files_and_hidden_folders_beside_runs_are_no_runs(tmp_path):
    for name in ("small", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").touch()
    assert run_folders(tmp_path) == [tmp_path / "small"]
    assert run_folders(tmp_path / "none") == []


def test_same_shards_elsewhere_are_the_same_content(tmp_path):
    for name, uri in (("a", "file:///a"), ("b", "s3://b/c"), ("c", "file:///a")):
        count = 2 if name == "c" else 1
        (tmp_path / name).mkdir()
        content = json.dumps({"uri": uri, "shards": [], "count": count})
        (tmp_path / name / "manifest.json").write_text(content)
    digests = [state.content_digest(tmp_path / name) for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
