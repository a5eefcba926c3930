import errno
import re

import pytest

from components.process.scratch import scratch_folder, temporary_folder


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("SAN_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def test_scratch_lies_where_it_is_said_to_and_goes_in_the_end(tmp_path, scratch):
    with scratch_folder(tmp_path / "out" / "model") as room, temporary_folder() as other:
        (room / "images.npy").write_bytes(b"1")
        assert room.parent == other.parent == scratch
        assert list((tmp_path / "out").iterdir()) == []
    assert list(scratch.iterdir()) == []


def test_scratch_is_by_default_with_temporary_files(tmp_path, monkeypatch):
    monkeypatch.delenv("SAN_SCRATCH")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with scratch_folder(tmp_path / "model") as room:
        assert room.parent == tmp_path / "tmp"


def test_what_a_killed_predecessor_left_is_removed(tmp_path, monkeypatch, scratch):
    with monkeypatch.context() as patch:
        patch.setattr("components.process.scratch.remove_or_warn", lambda _: None)
        with scratch_folder(tmp_path / "model") as room:
            (room / "half").write_text("half")
    assert (room / "half").is_file()
    (tmp_path / "link").symlink_to(tmp_path)
    with scratch_folder(tmp_path / "link" / "model") as again:  # the same output in other words
        assert again == room
        assert list(again.iterdir()) == []
        with scratch_folder(tmp_path / "features") as other:
            assert other != again


def test_folder_that_cannot_be_removed_is_warned_of_and_no_more(tmp_path, nfs, caplog):
    with scratch_folder(tmp_path / "model") as room:
        file = (room / "images.npy").open("w")
    file.close()
    assert f"{room} cannot be removed ([Errno 39] Directory not empty" in caplog.text


def test_full_disk_says_which_variable_names_another(tmp_path):
    with pytest.raises(OSError) as found, scratch_folder(tmp_path / "model") as room:
        raise OSError(errno.ENOSPC, "No space left on device")
    assert found.value.errno == errno.ENOSPC
    assert found.value.filename == str(room)
    hint = r"no space left \(has [\d,.]+ MB\); SAN_SCRATCH names another folder to use"
    assert re.fullmatch(hint, found.value.strerror)


def test_full_disk_elsewhere_is_not_reported_as_scratch(tmp_path):
    with pytest.raises(OSError) as found, scratch_folder(tmp_path / "model"):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "model"))
    assert found.value.filename == str(tmp_path / "model")


def test_folder_of_a_predecessor_that_cannot_be_removed_is_passed_by(tmp_path, nfs):
    with scratch_folder(tmp_path / "model") as room:
        file = (room / "images.npy").open("w")
    with scratch_folder(tmp_path / "model") as other:
        assert other != room
        assert list(other.iterdir()) == []
    file.close()
