"""Torchrun's processes as steps see them; how they train together is in test_two_processes."""

import pytest

from components.process.torchrun import is_first_rank
from components.training import ranks


def _torchrun(monkeypatch, **words):
    for name, value in words.items():
        monkeypatch.setenv(name, value)


def test_process_alone_is_the_first_and_makes_everything(monkeypatch, tmp_path):
    for name in ("LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert is_first_rank()
    with ranks.process_group() as found, found.shared_scratch_folder(tmp_path / "model") as room:
        assert found.make_on_first(lambda: 5) == 5
        assert room.is_dir()
    assert not room.exists()


def test_second_process_is_not_the_first(monkeypatch):
    _torchrun(monkeypatch, LOCAL_RANK="1")
    assert not is_first_rank()


def test_processes_on_several_machines_are_refused(monkeypatch):
    _torchrun(monkeypatch, LOCAL_RANK="0", WORLD_SIZE="8", LOCAL_WORLD_SIZE="4")
    with (
        pytest.raises(ValueError, match=r"8 processes on several machines \(4 on this one\)"),
        ranks.process_group(),
    ):
        pass
