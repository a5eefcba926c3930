import errno
import hashlib
import os

import pytest
import torch

from components.storage import checkpoint, retry
from components.storage.checkpoint import Checkpoint, read_state
from components.storage.folder import LocalStorage
from components.storage.retry import Backoff
from san_core.model.saved import SUMS_FILE
from tests.servers.tampering_proxy import without

STATE = {"epoch": 3, "weights": {"a": torch.arange(4.0)}}


@pytest.fixture
def kept_in(tmp_path):
    """Makes the checkpoint of a run: where its states are kept, and everything that decides it."""
    room = tmp_path / "room"
    room.mkdir()

    def make(uri, run_key, *, has_start_from=True):
        return Checkpoint(str(uri), run_key, room=room, has_start_from=has_start_from)

    return make


def loaded(checkpoint):
    path = checkpoint.fetch()
    return None if path is None else read_state(path)


def keep_state_and_model(kept_in, tmp_path, run_key):
    """The folder of a run that gets a state, and a model beside it."""
    kept = kept_in(tmp_path / "kept", run_key)
    kept.save(STATE)
    made = tmp_path / "made"
    made.mkdir()
    for name in ("model.safetensors", SUMS_FILE):
        (made / name).touch()
    kept.keep_model(made)
    (folder,) = (
        path.parent
        for path in (tmp_path / "kept").rglob("run.json")
        if path.read_bytes() == kept.run_key
    )
    return folder


def test_state_comes_back(kept_in, tmp_path):
    kept_in(tmp_path, {"seed": 0}).save(STATE)
    state = loaded(kept_in(tmp_path, {"seed": 0}))
    assert state["epoch"] == 3
    assert torch.equal(state["weights"]["a"], STATE["weights"]["a"])


def test_another_run_does_not_find_it(kept_in, tmp_path):
    kept_in(tmp_path, {"seed": 0}).save(STATE)
    assert loaded(kept_in(tmp_path, {"seed": 1})) is None


RUN = {
    "step": "train_san",
    "recipe": {"lr": 1e-3, "epochs": 2, "milestones": (1, 2)},
    "seed": 0,
    "code": "a" * 64,
}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"recipe": {**RUN["recipe"], "epochs": 3}}, "recipe (epochs 2 there, 3 here)"),
        (
            {"recipe": {**RUN["recipe"], "milestones": ()}},
            "recipe (milestones [1, 2] there, [] here)",
        ),
        ({"seed": 7}, "seed 0 there, 7 here"),
        ({"code": "b" * 64}, "code"),
        ({"code": "b" * 64, "seed": 7}, "code; seed 0 there, 7 here"),
    ],
)
def test_differences_to_a_state_of_another_run_are_logged(kept_in, tmp_path, caplog, other, told):
    folder = keep_state_and_model(kept_in, tmp_path, RUN)
    kept_in(tmp_path / "kept", {**RUN, "step": "train_san_pg", **other}).save(STATE)
    assert kept_in(tmp_path / "kept", {**RUN, **other}).fetch() is None
    place = folder.as_uri()
    assert [record.getMessage() for record in caplog.records] == [
        f"training starts anew: the checkpoint in {place} is of another run of"
        f" train_san, which differs in {told}; to continue it, give the same values as that run;"
        f" to train its model further with other values, add --start-from {place} and"
        " init=model in --overrides"
    ]


@pytest.mark.parametrize(
    ("changed", "has_model", "has_start_from"),
    [({}, True, False), ({"start_from": "c" * 64}, True, True), ({}, False, True)],
    ids=["step without the flag", "flag is given", "no model"],
)
def test_nobody_is_told_to_start_from_a_model_in_vain(
    kept_in, tmp_path, caplog, changed, has_model, has_start_from
):
    run = {**RUN, **changed}
    if has_model:
        keep_state_and_model(kept_in, tmp_path, run)
    else:
        kept_in(tmp_path / "kept", run).save(STATE)
    kept_in(tmp_path / "kept", {**run, "seed": 1}, has_start_from=has_start_from).fetch()
    (record,) = caplog.records
    assert record.getMessage().endswith("; to continue it, give the same values as that run")


def test_the_most_similar_state_is_reported(kept_in, tmp_path, caplog):
    kept_in(tmp_path / "kept", {**RUN, "seed": 1, "code": "b" * 64}).save(STATE)
    nearest = keep_state_and_model(kept_in, tmp_path, {**RUN, "seed": 1})
    kept_in(tmp_path / "kept", RUN).fetch()
    (record,) = caplog.records
    assert "which differs in seed 1 there, 0 here; to continue" in record.getMessage()
    assert f"--start-from {nearest.as_uri()} and" in record.getMessage()


def test_without_other_runs_of_the_step_nothing_is_reported(kept_in, tmp_path, caplog):
    kept_in(tmp_path / "kept", {**RUN, "step": "train_san_pg"}).save(STATE)
    (tmp_path / "kept" / "odd").mkdir()
    for name in ("run.json", "state.pt"):
        (tmp_path / "kept" / "odd" / name).write_bytes(b"{" * 10_000)
    assert kept_in(tmp_path / "kept", RUN).fetch() is None
    assert kept_in(tmp_path / "empty", RUN).fetch() is None
    assert caplog.records == []


def test_the_newest_state_counts(kept_in, tmp_path):
    checkpoint = kept_in(tmp_path, {})
    checkpoint.save(STATE)
    checkpoint.save({"epoch": 4})
    assert loaded(checkpoint) == {"epoch": 4}


def test_without_a_place_nothing_is_kept(kept_in):
    checkpoint = kept_in("", {})
    checkpoint.save(STATE)
    assert loaded(checkpoint) is None


@pytest.mark.parametrize("damage", ["changed", "cut", "empty"])
def test_damaged_state_is_refused(kept_in, tmp_path, damage):
    kept_in(tmp_path / "kept", {}).save(STATE)
    (path,) = (tmp_path / "kept").rglob("state.pt")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes({"changed": data, "cut": data[:-1], "empty": b""}[damage])
    with pytest.raises(ValueError, match=r"state\.pt is damaged; delete it to train anew"):
        kept_in(tmp_path / "kept", {}).fetch()


def few_bytes(action):
    """A method of a store that takes and gives no more than a description is long."""

    def act(self, *args):
        given = action(self, *args)
        assert all(len(data) < 1000 for data in (*args, given) if isinstance(data, bytes))
        return given

    return act


def test_a_state_is_never_whole_in_memory(kept_in, tmp_path, monkeypatch):
    state = {"epoch": 1, "parts": [torch.full((2**18,), float(i)) for i in range(24)]}  # 1 MiB each
    asked = []

    def get_range(self, name, offset, length):
        asked.append(length)
        return honest(self, name, offset, length)

    honest = LocalStorage.get_range
    monkeypatch.setattr(LocalStorage, "get_range", get_range)
    for whole in ("get", "put_bytes"):
        monkeypatch.setattr(LocalStorage, whole, few_bytes(getattr(LocalStorage, whole)))
    checkpoint = kept_in(tmp_path / "kept", {})
    checkpoint.save(state)
    found = loaded(checkpoint)
    assert max(asked) == 8 << 20
    assert all(torch.equal(*pair) for pair in zip(found["parts"], state["parts"], strict=True))
    assert not (tmp_path / "room" / "saving-state.pt").exists()


def test_a_state_has_its_digest_before_it(kept_in, tmp_path):
    kept_in(tmp_path / "kept", {}).save(STATE)
    (path,) = (tmp_path / "kept").rglob("state.pt")
    data = path.read_bytes()
    assert hashlib.sha256(data[64:]).hexdigest().encode() == data[:64]


@pytest.mark.s3
def test_state_is_kept_in_a_bucket(kept_in, s3):
    kept_in(s3, {"seed": 0}).save(STATE)
    state = loaded(kept_in(s3, {"seed": 0}))
    assert torch.equal(state["weights"]["a"], STATE["weights"]["a"])
    assert loaded(kept_in(s3, {"seed": 1})) is None


def test_a_file_that_is_no_state_is_named(kept_in, tmp_path):
    data = b"no state of torch"
    kept_in(tmp_path / "kept", {}).save(STATE)
    (path,) = (tmp_path / "kept").rglob("state.pt")
    path.write_bytes(hashlib.sha256(data).hexdigest().encode() + data)
    with pytest.raises(ValueError, match=r"state\.pt holds no state of training; delete it to"):
        loaded(kept_in(tmp_path / "kept", {}))


@pytest.mark.s3
def test_state_that_cannot_be_kept_is_warned_of_and_the_next_one_tried(
    kept_in, s3, tampering_proxy, monkeypatch, caplog
):
    monkeypatch.setattr(retry, "SHORT_BACKOFF", Backoff(total=0.2, first=0.05))
    checkpoint = kept_in(s3, {})
    port, tampering_proxy.server_port = tampering_proxy.server_port, 1  # nobody is there
    checkpoint.save(STATE)
    assert (
        "the checkpoint after epoch 3 was not written, and training continues: s3://"
        in caplog.messages[-1]
    )
    tampering_proxy.server_port = port
    checkpoint.save({"epoch": 4})
    assert loaded(checkpoint) == {"epoch": 4}


@pytest.mark.s3
def test_first_training_goes_on_where_the_bucket_must_not_be_listed(
    kept_in, s3, tampering_proxy, caplog
):
    tampering_proxy.deny = without("s3:ListBucket")
    assert loaded(kept_in(s3, {})) is None
    assert "there is none (S3 reports that only with s3:ListBucket)" in caplog.text
    kept_in(s3, {}).save(STATE)
    assert loaded(kept_in(s3, {}))["epoch"] == 3


@pytest.mark.s3
@pytest.mark.parametrize("action", ["s3:GetObject", "s3:PutObject"])
def test_an_inaccessible_state_does_not_count_as_missing(kept_in, s3, tampering_proxy, action):
    kept_in(s3, {}).save(STATE)
    tampering_proxy.deny = without("s3:GetObject", action)
    with pytest.raises(PermissionError, match=f"do they allow .*{action}"):
        loaded(kept_in(s3, {}))


class _FullDisk:
    """Takes two writes and no more."""

    def __init__(self):
        self.writes = 0

    def write(self, data):
        self.writes += 1
        if self.writes > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)

    def flush(self):
        pass


def test_training_goes_on_where_scratch_is_full(kept_in, tmp_path, monkeypatch, caplog):
    class FullWriter(checkpoint._HashedWriter):
        def __init__(self, _file):
            super().__init__(_FullDisk())

    monkeypatch.setattr(checkpoint, "_HashedWriter", FullWriter)
    kept_in(tmp_path / "kept", {"seed": 0}).save(STATE)
    assert "the checkpoint after epoch 3 was not written, and training continues" in caplog.text
    assert f"{tmp_path}/room/saving-state.pt: no space left" in caplog.text
    assert list((tmp_path / "room").iterdir()) == []
