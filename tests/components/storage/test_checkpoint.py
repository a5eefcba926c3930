import pytest
import torch

from components.storage.checkpoint import Checkpoint

STATE = {"epoch": 3, "weights": {"a": torch.arange(4.0)}}


def test_state_comes_back(tmp_path):
    Checkpoint(str(tmp_path), {"seed": 0}).save(STATE)
    state = Checkpoint(str(tmp_path), {"seed": 0}).load()
    assert state["epoch"] == 3
    assert torch.equal(state["weights"]["a"], STATE["weights"]["a"])


def test_another_run_does_not_find_it(tmp_path):
    Checkpoint(str(tmp_path), {"seed": 0}).save(STATE)
    assert Checkpoint(str(tmp_path), {"seed": 1}).load() is None


RUN = {"step": "train_san", "recipe": {"lr": 1e-3, "epochs": 2}, "seed": 0, "code": "a" * 64}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"recipe": {"lr": 1e-3, "epochs": 3}}, "recipe (epochs 2 there, 3 here)"),
        ({"seed": 7}, "seed 0 there, 7 here"),
        ({"code": "b" * 64}, "code"),
        ({"code": "b" * 64, "seed": 7}, "code; seed 0 there, 7 here"),
    ],
)
def test_a_state_of_another_run_is_told_with_what_differs(tmp_path, caplog, other, told):
    Checkpoint(str(tmp_path), RUN).save(STATE)
    Checkpoint(str(tmp_path), {**RUN, "step": "train_san_pg", **other}).save(STATE)
    assert Checkpoint(str(tmp_path), {**RUN, **other}).load() is None
    (folder,) = (
        path.parent.name
        for path in tmp_path.rglob("run.json")
        if b'"train_san"' in path.read_bytes()
    )
    assert [record.getMessage() for record in caplog.records] == [
        f"training starts anew: the state in {tmp_path.as_uri()}/{folder} is of another run of"
        f" train_san, which differs in {told}; to go on from it, give what that run was given"
    ]


def test_of_several_states_the_nearest_is_told(tmp_path, caplog):
    Checkpoint(str(tmp_path), {**RUN, "seed": 1, "code": "b" * 64}).save(STATE)
    Checkpoint(str(tmp_path), {**RUN, "seed": 1}).save(STATE)
    Checkpoint(str(tmp_path), RUN).load()
    (record,) = caplog.records
    assert "which differs in seed 1 there, 0 here; to go on" in record.getMessage()


def test_where_no_other_run_of_the_step_is_known_nothing_is_told(tmp_path, caplog):
    Checkpoint(str(tmp_path), {**RUN, "step": "train_san_pg"}).save(STATE)
    (tmp_path / "odd").mkdir()
    for name in ("run.json", "state.pt"):
        (tmp_path / "odd" / name).write_bytes(b"{" * 10_000)
    assert Checkpoint(str(tmp_path), RUN).load() is None
    assert Checkpoint(str(tmp_path / "empty"), RUN).load() is None
    assert caplog.records == []


def test_the_newest_state_counts(tmp_path):
    checkpoint = Checkpoint(str(tmp_path), {})
    checkpoint.save(STATE)
    checkpoint.save({"epoch": 4})
    assert checkpoint.load() == {"epoch": 4}


def test_without_a_place_nothing_is_kept():
    checkpoint = Checkpoint("", {})
    checkpoint.save(STATE)
    assert checkpoint.load() is None


def test_damaged_state_is_refused(tmp_path):
    Checkpoint(str(tmp_path), {}).save(STATE)
    (path,) = tmp_path.rglob("state.pt")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"state\.pt is damaged; delete it to train anew"):
        Checkpoint(str(tmp_path), {}).load()


@pytest.mark.s3
def test_state_is_kept_in_a_bucket(s3):
    Checkpoint(s3, {"seed": 0}).save(STATE)
    state = Checkpoint(s3, {"seed": 0}).load()
    assert torch.equal(state["weights"]["a"], STATE["weights"]["a"])
    assert Checkpoint(s3, {"seed": 1}).load() is None
