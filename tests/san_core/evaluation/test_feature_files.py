"""Features in a folder: they are read back as written, and changed files are refused."""

import errno
import json
import os
import pickle

import numpy as np
import pytest

from san_core.evaluation.feature_files import FeatureFiles, write_features
from san_core.images.shard import Record

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)
RECORDS = [
    Record(f"{i}é.jpg", i, 0, "query" if i < 2 else "gallery", 0, 0, 1, "") for i in range(4)
]
PROVENANCE = {"dataset": "d", "model": "m", "seed": 3}


@pytest.fixture
def folder(tmp_path):
    told = {**PROVENANCE, "metric": "cosine"}
    write_features(tmp_path, {"features": ROWS, "untrained": -ROWS}, RECORDS, provenance=told)
    return tmp_path


def without_sums(folder):
    told = json.loads((folder / "features.json").read_bytes())
    del told["sha256"]
    (folder / "features.json").write_text(json.dumps(told))
    return FeatureFiles(folder)


def test_what_is_written_is_read(folder):
    files = FeatureFiles(folder)
    assert (files.provenance, files.metric, files.is_summed) == (PROVENANCE, "cosine", True)
    assert files.records(RECORDS, ["query", "gallery"]) == RECORDS
    assert np.array_equal(files.rows("features", 4), ROWS)
    assert np.array_equal(files.rows("untrained", 4), -ROWS)


def test_equal_features_give_equal_bytes(folder, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    told = {**PROVENANCE, "metric": "cosine"}
    write_features(again, {"features": ROWS, "untrained": -ROWS}, RECORDS, provenance=told)
    for file in again.iterdir():
        assert file.read_bytes() == (folder / file.name).read_bytes()
    np.save(again / "plain.npy", ROWS)
    assert (again / "plain.npy").read_bytes() == (folder / "features.npy").read_bytes()


def test_swapped_rows_and_lines_are_noticed(folder):
    np.save(folder / "features.npy", ROWS[::-1].copy())
    lines = (folder / "index.csv").read_text().splitlines()
    (folder / "index.csv").write_text("\n".join([lines[0], *lines[:0:-1]]))
    files = FeatureFiles(folder)
    with pytest.raises(ValueError, match=r"features\.npy is damaged: its sha256 is not that of"):
        files.rows("features", 4)
    with pytest.raises(ValueError, match=r"index\.csv is damaged: its sha256 is not that of feat"):
        files.records(RECORDS, ["query"])


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (ROWS.astype(np.float64), r"features.npy is float64 \(4, 3\); expected float32 with 4 row"),
        (ROWS[:3], r"features.npy is float32 \(3, 3\); expected float32 with 4 rows"),
        (ROWS.ravel(), r"features.npy is float32 \(12,\); expected float32 with 4 rows"),
        (np.asfortranarray(ROWS), r"features.npy is in Fortran order"),
    ],
)
def test_features_of_another_form_are_refused(folder, matrix, message):
    np.save(folder / "features.npy", matrix)
    with pytest.raises(ValueError, match=message):
        without_sums(folder).rows("features", 4)


@pytest.mark.parametrize(
    "content",
    [b"", b"junk", pickle.dumps([1]), b"\x93NUMPY\x01\x00\x76\x00" + b"{" * 118],
    ids=["empty", "junk", "pickle", "header"],
)
def test_what_is_no_array_is_refused_without_advice_to_unpickle(folder, content):
    (folder / "features.npy").write_bytes(content)
    with pytest.raises(
        ValueError,
        match=r"features\.npy is damaged: it is not a whole \.npy file "
        r"of",
    ):
        without_sums(folder).rows("features", 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a,b\n1,2\n", r"index\.csv has no column 'name'; its first line holds 'a', 'b'"),
        (b"", r"index\.csv has no column 'name'; its first line holds nothing"),
        (b"name;pid\n0.jpg;1\n", r"index\.csv has no column 'name'; its .* holds 'name;pid'"),
        (b"name\n0\xc3\xa9.jpg\n0\xc3\xa9.jpg\n", r"index\.csv names 0é\.jpg more than once"),
        (
            b"name\n0\xc3\xa9.jpg\n",
            r"index\.csv lacks 1 of the 2 images of splits query, such",
        ),
        (b"\xff\xfe", r"index\.csv is damaged: 'utf-8' codec"),
    ],
)
def test_an_index_of_other_images_is_refused(folder, text, message):
    (folder / "index.csv").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        without_sums(folder).records(RECORDS, ["query"])


def test_an_index_that_a_spreadsheet_has_saved_is_read(folder):
    saved = (folder / "index.csv").read_text().replace("\n", "\r\n")
    (folder / "index.csv").write_bytes(b"\xef\xbb\xbf" + saved.encode())
    assert without_sums(folder).records(RECORDS, ["query", "gallery"]) == RECORDS


@pytest.mark.parametrize("name", ["features.json", "features.npy", "index.csv"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()

    def read_all():
        files = FeatureFiles(folder)
        return files.records(RECORDS, ["query"]), files.rows("features", 4)

    with pytest.raises(FileNotFoundError, match=name):
        read_all()


def test_a_disk_without_room_for_features_is_named(tmp_path, monkeypatch):
    """Not by SIGBUS, in the middle of them."""

    def no_room(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    told = {**PROVENANCE, "metric": "cosine"}
    with pytest.raises(OSError, match=r"no space left \(needs 0\.2 kB, has .* MB\).*features\.npy"):
        write_features(tmp_path, {"features": ROWS}, RECORDS, provenance=told)
