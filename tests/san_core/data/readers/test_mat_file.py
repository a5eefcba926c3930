"""Files of MATLAB that were made to harm, or by other programs: refused in one line each."""

import fcntl
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from san_core.data.readers import mat_file
from san_core.data.readers.cuhk03 import listing
from san_core.data.readers.mat_file import read_variables
from san_core.data.tree import open_tree
from tests.san_core.data.readers.cuhk03_file import write_protocol, write_release

CONFIG = "cuhk03_new_protocol_config_labeled.mat"
SECRET = b"a token of this machine".ljust(3 * 4 * 10)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "cuhk03"
    write_release(root)
    write_protocol(root, "labeled")
    return root


@pytest.fixture
def release(whole, tmp_path):
    (tmp_path / "secret").write_bytes(SECRET)
    return shutil.copytree(whole, tmp_path / "cuhk03")


def test_a_file_is_read_whatever_locks_its_file_system_has(release):
    # As NFS without a daemon for locks does, another's lock refuses one.
    with (release / "cuhk03_release/cuhk-03.mat").open("r+b") as held, open_tree(release) as tree:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert listing(tree, {}).images[0].read().startswith(b"\x89PNG")


@contextmanager
def opened(release: Path) -> Iterator[h5py.File]:
    with h5py.File(release / "cuhk03_release" / "cuhk-03.mat", "r+") as file:
        yield file


def put_in_place(file: h5py.File, made: h5py.Dataset | h5py.Group) -> None:
    """Let the first image of the first person be another thing."""
    cell = file[file["labeled"][0, 0]]
    cells = cell[()]
    cells[0, 0] = made.ref
    cell[...] = cells


def read_everything(release: Path, **options: str) -> None:
    with open_tree(release) as tree:
        for image in listing(tree, options).images:
            image.read()


def other_files(file: h5py.File, secret: Path) -> h5py.Dataset:
    where = [(str(secret), 0, len(SECRET))]
    return file.create_dataset("x", (3, 4, 10), np.uint8, external=where)


def virtual(file: h5py.File, secret: Path) -> h5py.Dataset:
    layout = h5py.VirtualLayout((3, 4, 10), np.uint8)
    layout[:] = h5py.VirtualSource(str(secret), "x", (3, 4, 10))
    return file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize("make", [other_files, virtual])
def test_bytes_of_other_files_never_become_pixels(release, tmp_path, make):
    with opened(release) as file:
        put_in_place(file, make(file, tmp_path / "secret"))
    with pytest.raises(ValueError, match=r"1_001_1_01\.png: its data is in other files, which are"):
        read_everything(release)


@pytest.mark.parametrize(
    "link",
    [h5py.SoftLink("/labeled"), h5py.ExternalLink("/etc/hostname", "/x")],
    ids=["soft", "external"],
)
@pytest.mark.parametrize("where", ["x", "#refs#/x", "a/b/c"])
def test_a_file_with_links_is_refused_wherever_they_are(release, link, where):
    with opened(release) as file:
        file[where] = link
    with pytest.raises(ValueError, match=rf"'{where}' is a link to another file or place"):
        read_everything(release)


def test_the_cells_themselves_must_be_in_the_file(release, tmp_path):
    with opened(release) as file:
        del file["labeled"]
        where = [(str(tmp_path / "secret"), 0, 8)]
        file.create_dataset("labeled", (1, 1), h5py.ref_dtype, external=where)
    with pytest.raises(ValueError, match="labeled: its data is in other files"):
        read_everything(release)


Change = Callable[[h5py.File], None]


def replaced(name: str, **kinds: object) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **kinds)

    return change


def with_image(**kinds: object) -> Change:
    return lambda file: put_in_place(file, file.create_dataset("x", **kinds))


def with_null_reference(file: h5py.File) -> None:
    cell = file[file["labeled"][0, 0]]
    cells = cell[()]
    cells[0, 0] = h5py.Reference()
    cell[...] = cells


def with_flat_cells(file: h5py.File) -> None:
    flat = file.create_dataset("x", data=file[file["labeled"][0, 0]][0], dtype=h5py.ref_dtype)
    file["labeled"][0, 0] = flat.ref


def with_tests(numbers: np.ndarray) -> Change:
    def change(file: h5py.File) -> None:
        file["testsets"][0, 0] = file.create_dataset("x", data=numbers).ref

    return change


MALFORMED: dict[str, tuple[Change, str]] = {
    "float image": (with_image(data=np.zeros((3, 4, 9))), "float64 .*, not an image of bytes"),
    "empty image": (with_image(shape=(3, 0, 9), dtype=np.uint8), "not an image of bytes"),
    "a group": (lambda file: put_in_place(file, file.create_group("x")), "it is a group, not"),
    "null reference": (with_null_reference, r"1_001_1_01\.png: "),
    "flat cells": (with_flat_cells, "pair 1 of labeled: it is object .*, not a cell array"),
    "strings": (replaced("labeled", data=["a", "b"]), "labeled: .*, not a cell array"),
    "numbers": (replaced("labeled", data=np.zeros((1, 5))), "labeled: .*, not a cell array"),
    "a scalar": (replaced("labeled", data=5), "labeled: .*, not a cell array"),
    "huge image": (
        with_image(shape=(3, 100_000, 100_000), dtype=np.uint8, chunks=(3, 10, 10)),
        "it has 30,000,000,000 bytes; at most 67,108,864 are read",
    ),
    "huge chunk": (
        with_image(
            shape=(3, 4, 9), maxshape=(3, None, None), dtype=np.uint8, chunks=(3, 9_000, 9_000)
        ),
        "it has 243,000,000 bytes",
    ),
    "huge cells": (
        replaced("labeled", shape=(1, 2**32), dtype=h5py.ref_dtype, chunks=(1, 8)),
        "labeled: it has 34,359,738,368 bytes",
    ),
}
MALFORMED_TESTS: dict[str, tuple[Change, str]] = {
    "NaN": (with_tests(np.full((2, 2), np.nan)), "testsets: it has numbers that are not whole"),
    "halves": (with_tests(np.full((2, 2), 1.5)), "testsets: it has numbers that are not whole"),
    "flat": (with_tests(np.ones(4)), "testsets: .*, not a matrix of numbers"),
    "columns": (with_tests(np.ones((3, 2))), "it has 3 columns; it must have two, pair and person"),
    "text": (replaced("testsets", data=["x"]), "testsets: .*, not a cell array"),
    "few": (replaced("testsets", shape=(1, 0), dtype=h5py.ref_dtype), "testsets: it has 0"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_file_is_refused_in_one_line(release, kind):
    change, message = MALFORMED[kind]
    with opened(release) as file:
        change(file)
    with pytest.raises(ValueError, match=message):
        read_everything(release)


@pytest.mark.parametrize("kind", MALFORMED_TESTS)
def test_a_malformed_list_of_tests_is_refused_in_one_line(release, kind):
    change, message = MALFORMED_TESTS[kind]
    with opened(release) as file:
        change(file)
    with pytest.raises(ValueError, match=rf"(?s)no classic split 1 in .*{message}"):
        read_everything(release, classic="1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.full((8, 1), np.nan)}, "entries that are not whole numbers"),
        ({"labels": np.array(["a"] * 8)}, "entries that are not whole numbers"),
        ({"train_idx": np.array([[0]])}, "its lists do not match"),
        ({"filelist": np.zeros((8, 1))}, "filelist holds entries that are not names"),
        ({"filelist": np.array([[1], [2]], dtype=object)}, "filelist holds entries that are not"),
        ({"query_idx": {"a": 1}}, "entries that are not whole numbers"),
    ],
)
def test_malformed_settings_are_refused_in_one_line(release, changes, message):
    config = scipy.io.loadmat(release / CONFIG) | changes
    kept = {name: value for name, value in config.items() if not name.startswith("__")}
    scipy.io.savemat(release / CONFIG, kept)
    with pytest.raises(ValueError, match=rf"{CONFIG} is not the file of the new .*{message}"):
        read_everything(release)


def packed_element(content: bytes) -> bytes:
    packed = zlib.compress(content, 9)
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed


def test_what_unpacks_without_limit_is_refused_before_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(mat_file, "MOST_BYTES", 1 << 20)
    (tmp_path / "a.mat").write_bytes(packed_element(bytes(2 << 20)))
    with pytest.raises(ValueError, match=r"what is packed in it: it is more than 1,048,576 bytes"):
        read_variables(tmp_path / "a.mat", ["labels"])


def test_a_variable_that_no_machine_holds_is_refused_by_its_size(tmp_path):
    name, shape = b"labels\0\0", struct.pack("<IIII", 5, 8, 2**31 - 1, 2**20)
    flags = struct.pack("<IIII", 6, 8, 1, 0)
    content = flags + shape + struct.pack("<II", 1, 6) + name + struct.pack("<II", 2, 0)
    element = struct.pack("<II", 14, len(content)) + content
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + element)
    with pytest.raises(ValueError, match=r"labels is declared as \(2147483647, 1048576\)"):
        read_variables(tmp_path / "a.mat", ["labels"])
