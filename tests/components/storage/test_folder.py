"""Folders as stores: files that killed writers leave behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.command.code import ROOT
from components.storage.folder import PARTIAL_SUFFIX, LocalStorage
from components.storage.texture_store import delete_other_shards

DIE = """
import os, signal, sys
from pathlib import Path
from components.storage.folder import LocalStorage
with LocalStorage(Path(sys.argv[1]))._open_replacement("shards/a.tar") as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def left_behind(tmp_path):
    """A file that a killed writer has left, some time ago."""
    done = subprocess.run([sys.executable, "-c", DIE, str(tmp_path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    (partial,) = (tmp_path / "shards").iterdir()
    assert partial.read_bytes() == b"half"
    return _aged(partial)


def _aged(path, hours=24):
    then = time.time() - hours * 3600
    os.utime(path, (then, then))
    return path


def test_what_a_killed_writer_has_left_goes_when_something_is_put(tmp_path, left_behind):
    LocalStorage(tmp_path).put_bytes("shards/b.tar", b"whole")
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["b.tar"]
    assert not left_behind.exists()


def test_prune_removes_what_killed_writers_have_left(tmp_path, left_behind):
    assert delete_other_shards(LocalStorage(tmp_path), {}) == 1
    assert not left_behind.exists()


def test_what_is_being_written_stays_however_long_it_takes(tmp_path):
    storage = LocalStorage(tmp_path)
    with storage._open_replacement("a") as file:
        (partial,) = tmp_path.iterdir()
        _aged(partial)
        assert storage.sweep() == LocalStorage(tmp_path).sweep() == 0
        LocalStorage(tmp_path).put_bytes("b", b"b")
        file.write(b"a")
    assert storage.get("a") == b"a"


def test_hidden_files_of_others_stay(tmp_path):
    (tmp_path / ".a.settings").touch()
    _aged(tmp_path / ".a.settings")
    LocalStorage(tmp_path).put_bytes("a", b"a")
    assert (tmp_path / ".a.settings").exists()


def test_a_file_is_locked_until_it_has_its_name(tmp_path, monkeypatch):
    chmod = Path.chmod

    def sweep_meanwhile(path, mode):
        _aged(path)
        assert LocalStorage(tmp_path).sweep() == 0
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", sweep_meanwhile)
    LocalStorage(tmp_path).put_bytes("a", b"a")
    assert LocalStorage(tmp_path).get("a") == b"a"


def test_what_lay_still_for_an_hour_stays_when_something_is_put(tmp_path):
    # Another node, whose locks are not seen here, may still write it.
    partial = tmp_path / f".a.{PARTIAL_SUFFIX}"
    partial.touch()
    _aged(partial, hours=1)
    LocalStorage(tmp_path).put_bytes("b", b"b")
    assert partial.exists()
    assert LocalStorage(tmp_path).sweep() == 1


def test_what_is_read_beyond_an_objects_end_is_refused_with_both_places(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.put_bytes("a", b"0123")
    assert storage.get_range("a", 1, 3) == b"123"
    with pytest.raises(OSError, match="a ends at 4, before byte 6"):
        storage.get_range("a", 2, 4)
