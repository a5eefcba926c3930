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
