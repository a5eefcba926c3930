"""Checks of several nodes at their start; the other nodes are simulated."""

import contextlib
import os
import re

import pytest
import torch

from components.process.messages import forget_copies, note_copy
from components.process.signals import Terminated
from components.storage.checkpoint import Checkpoint
from components.training import meeting
from components.training.ranks import Ranks
from san_core.images.shard import canonical_json

HERE = "node 0 (here)"


class TwoNodes(Ranks):
    """The first node; the second gives other words than it, in turn."""

    def __init__(self, *others):
        super().__init__()
        object.__setattr__(self, "others", list(others))

    def gather(self, word):
        if isinstance(word, tuple) and isinstance(word[0], str):
            return [word, ("node 1 (there)", self.others.pop(0))]
        return [word]


@pytest.fixture
def several(monkeypatch):
    monkeypatch.setattr(meeting, "has_several_nodes", lambda: True)
    monkeypatch.setattr(meeting, "describe_self", lambda: HERE)


def _check(ranks, outputs, checkpoint=""):
    meeting._check_places_shared(ranks, outputs, checkpoint=checkpoint)


def test_folders_that_all_nodes_see_are_taken_and_left_as_they_were(several, tmp_path):
    outputs = {"model": tmp_path / "model", "losses": tmp_path / "losses.json"}
    _check(TwoNodes(["model", "losses", "checkpoint"]), outputs, str(tmp_path / "states"))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_marks_do_not_stay(several, tmp_path):
    stale, young = (tmp_path / f".san-meeting-{name}" for name in ("stale", "young"))
    stale.touch()
    young.touch()
    os.utime(stale, (0, 0))
    _check(TwoNodes(["model"]), {"model": tmp_path / "model"})
    assert [*tmp_path.iterdir()] == [young], "another training may be meeting there"


def test_marks_do_not_stay_if_a_stop_comes_as_they_are_made(several, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise Terminated

    monkeypatch.setattr(meeting, "_remove_stale_marks", stop)
    with pytest.raises(Terminated):
        _check(TwoNodes(["model"]), {"model": tmp_path / "model"})
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("seen", "name"), [(["model"], "checkpoint"), (["checkpoint"], "model"), ([], "checkpoint")]
)
def test_folder_of_one_node_alone_is_refused(several, tmp_path, seen, name):
    place = {"model": tmp_path, "checkpoint": tmp_path / "states"}[name]
    with pytest.raises(ValueError, match="give a URI such as s3://BUCKET/PREFIX, or a") as e:
        _check(TwoNodes(seen), {"model": tmp_path / "model"}, str(tmp_path / "states"))
    assert f"{name} is in {place}, a folder that node 1 (there) does not share" in str(e.value)


def test_outputs_in_a_bucket_are_shared_by_all_nodes(several, tmp_path):
    with forget_copies():
        note_copy(tmp_path / "room" / "model", "s3://san/model")
        _check(TwoNodes([]), {"model": tmp_path / "room" / "model"}, "s3://san/states")
    assert not (tmp_path / "room").exists()


def test_one_node_alone_goes_on_from_its_state(tmp_path):
    checkpoint = Checkpoint(str(tmp_path / "states"), {"seed": 1}, room=tmp_path)
    checkpoint.save({"epoch": 2})
    assert meeting.fetch_state(Ranks(), checkpoint) == tmp_path / "state.pt"


def test_nodes_that_would_train_different_things_are_refused(several, tmp_path):
    mine, theirs = (Checkpoint("", {"seed": seed}, room=tmp_path) for seed in (1, 2))
    with pytest.raises(ValueError, match="differ in seed 2 there, 1 here: give all nodes") as e:
        meeting.fetch_state(TwoNodes(theirs.run_key), mine)
    assert str(e.value).startswith(f"node 1 (there) would train something else than {HERE}, ")


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        ({"step": "train_san_pg"}, "step train_san_pg there, train_san here"),
        ({"recipe": {"eval_every": 0}}, r"recipe \(eval_every 0 there, 5 here\)"),
        ({"seed": 2}, "seed 2 there, 1 here"),
        ({"precision": "float32"}, "precision float32 there, auto here"),
        ({"torch": "1.0"}, f"torch 1.0 there, {re.escape(torch.__version__)} here"),
    ],
)
def test_nodes_with_different_commands_are_refused_before_anything_is_read(
    several, monkeypatch, theirs, told
):
    mine = {"step": "train_san", "recipe": {"eval_every": 5}, "seed": 1, "precision": "auto"}
    other = canonical_json({**mine, "torch": torch.__version__, **theirs})

    @contextlib.contextmanager
    def two_nodes(_step, *, keeps_state):
        assert not keeps_state
        yield TwoNodes(other)

    monkeypatch.setattr(meeting, "process_group", two_nodes)
    with (
        pytest.raises(ValueError, match=f"differ in {told}: give all nodes the same command"),
        meeting.meet("train_san", {}, checkpoint="", settings=mine),
    ):
        pytest.fail("they have met")


@pytest.mark.parametrize("is_kept", [True, False])
def test_nodes_that_found_different_states_are_refused(several, tmp_path, is_kept):
    checkpoint = Checkpoint(str(tmp_path / "states"), {"seed": 1}, room=tmp_path)
    if is_kept:
        checkpoint.save({"epoch": 2})
    with pytest.raises(ValueError, match="has found another state of training"):
        meeting.fetch_state(TwoNodes(checkpoint.run_key, "0123456789ab"), checkpoint)
