import errno
import os
from pathlib import Path

import pytest

from components.process.messages import (
    forget_copies,
    name_uris,
    note_copy,
    os_error_message,
    printable,
)


@pytest.fixture(autouse=True)
def nothing_noted():
    with forget_copies():
        yield


def test_uri_stands_for_its_copy_and_what_is_in_it():
    note_copy(Path("/tmp/tmpx1"), "s3://bucket/cuhk/")
    told = name_uris("/tmp/tmpx1/a.png and '/tmp/tmpx1': 3 images; /tmp/tmpx12 is another")
    assert told == "s3://bucket/cuhk/a.png and 's3://bucket/cuhk': 3 images; /tmp/tmpx12 is another"


def test_copy_in_a_copy_has_its_own_uri():
    note_copy(Path("/tmp/room"), "s3://bucket/all")
    note_copy(Path("/tmp/room/pit"), r"minio://other/p\1")
    assert name_uris("/tmp/room/pit/x /tmp/room/y") == r"minio://other/p\1/x s3://bucket/all/y"


def test_copies_of_one_run_mean_nothing_in_the_next():
    with forget_copies():
        note_copy(Path("/tmp/room"), "s3://bucket/all")
    assert name_uris("/tmp/room/y") == "/tmp/room/y"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë\tand 張", "Zoë\tand 張"),
        ("\x1b]0;owned\x07\x1b[2Ja.jpg", "\\x1b]0;owned\\x07\\x1b[2Ja.jpg"),
        ("a\rb\x9bc\x7f", "a\\rb\\x9bc\\x7f"),
        ("gpj.\u202efdp", "gpj.\\u202efdp"),
        ("\udcff.jpg", "\\udcff.jpg"),
        (
            "http://h/k?X-Amz-Signature=s&X-Amz-Date=1",
            "http://h/k?X-Amz-Signature=...&X-Amz-Date=1",
        ),
        ("http://h/k?a=1&sig=s%2Fx more", "http://h/k?a=1&sig=... more"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_its_number(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("is_container", "advice"),
    [(False, ""), (True, '; docker run --user "$(id -u):$(id -g)" runs a step as you')],
)
def test_denied_permission_names_the_user_and_in_a_container_how_to_be_another(
    tmp_path, monkeypatch, is_container, advice
):
    mark = tmp_path / ".dockerenv"
    if is_container:
        mark.touch()
    monkeypatch.setattr("components.process.messages.CONTAINER_MARKS", (mark,))
    error = PermissionError(errno.EACCES, "Permission denied", "/data")
    told = f"/data: Permission denied for user {os.getuid()}{advice}"
    assert os_error_message(error) == told


def test_a_copy_that_found_no_room_names_what_was_written(tmp_path):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/source", None, str(tmp_path / "x"))
    assert os_error_message(error).startswith(f"{tmp_path}/x: no space left (has ")


def test_a_file_in_place_of_a_folder_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError) as raised:
        (tmp_path / "file").mkdir()
    assert os_error_message(raised.value) == f"{tmp_path}/file is a file, but must be a folder"
