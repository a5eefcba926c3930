"""CUHK03 in miniature, byte by byte as it is published: MATLAB 7.3 by h5py, MATLAB 5 by scipy."""

from pathlib import Path

import h5py
import numpy as np
import scipy.io

PEOPLE_PER_PAIR = (3, 1, 1, 1, 1)  # in each of the five pairs of cameras
# Images that are not there: (pair, person, number), from 1.
MISSING_IMAGES = {(1, 2, 5), (1, 2, 9), (1, 2, 10), (2, 1, 6)}
SPLITS = [[(1, 1), (3, 1)], [(1, 2), (2, 1)]] + [[(5, 1), (1, 3)]] * 18
HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jun  2 2014 HDF5 schema 1.00 ."


def image_pixels(kind: str, pair: int, person: int, number: int) -> np.ndarray:
    """The pixels of an image, (H, W, 3) uint8 RGB; each has a height and colours of its own."""
    height, width = 9 + number, 4
    pixels = np.arange(height * width * 3).reshape(height, width, 3)
    shift = 7 * pair + 31 * person + 3 * number + (100 if kind == "detected" else 0)
    return ((pixels + shift) % 256).astype(np.uint8)


def write_release(root: Path) -> None:
    """cuhk03_release/cuhk-03.mat with both kinds of images and the 20 splits."""
    path = root / "cuhk03_release" / "cuhk-03.mat"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        pool = file.create_group("#refs#")
        for kind in ("detected", "labeled"):
            cells = [_write_pair(pool, kind, pair + 1, n) for pair, n in enumerate(PEOPLE_PER_PAIR)]
            _write_cell(file, kind, np.array([cells], dtype=object))
        tests = [_write_array(pool, np.array(s, float).T, "double") for s in SPLITS]
        _write_cell(file, "testsets", np.array([tests], dtype=object))
    with path.open("r+b") as raw:
        raw.write(HEADER.ljust(116) + bytes(8) + b"\x00\x02IM")


def _write_pair(pool: h5py.Group, kind: str, pair: int, people: int) -> h5py.Reference:
    """A cell of people x 10 images; on disk its axes are reversed."""
    cells = np.empty((10, people), dtype=object)
    for person in range(people):
        for number in range(10):
            place = (pair, person + 1, number + 1)
            cells[number, person] = _write_image(
                pool, None if place in MISSING_IMAGES else image_pixels(kind, *place)
            )
    return _write_cell(pool, f"{kind}{pair}", cells).ref


def _write_image(pool: h5py.Group, pixels: np.ndarray | None) -> h5py.Reference:
    if pixels is None:  # as MATLAB writes []: the sizes as content, and a mark
        found = pool.create_dataset(f"i{len(pool)}", data=np.array([0, 0], np.uint64))
        found.attrs["MATLAB_empty"] = np.uint8(1)
        found.attrs["MATLAB_class"] = np.bytes_("double")
        return found.ref
    return _write_array(pool, pixels.transpose(2, 1, 0), "uint8")


def _write_array(pool: h5py.Group, content: np.ndarray, kind: str) -> h5py.Reference:
    found = pool.create_dataset(f"i{len(pool)}", data=content, compression="gzip")
    found.attrs["MATLAB_class"] = np.bytes_(kind)
    return found.ref


def _write_cell(group: h5py.Group, name: str, references: np.ndarray) -> h5py.Dataset:
    found = group.create_dataset(name, data=references, dtype=h5py.ref_dtype)
    found.attrs["MATLAB_class"] = np.bytes_("cell")
    return found


# The new protocol in miniature: file, person, and which list names it.
PROTOCOL_ROWS = [
    ("1_001_1_01.png", 1, "train"),
    ("1_001_2_06.png", 1, "train"),
    ("1_002_1_01.png", 2, "query"),
    ("1_002_1_02.png", 2, "gallery"),
    ("1_002_2_06.png", 2, "query"),
    ("1_002_2_07.png", 2, "gallery"),
    ("2_001_1_01.png", 4, "train"),
    ("5_001_2_10.png", 7, "gallery"),
]


def write_protocol(root: Path, kind: str, rows: list[tuple[str, int, str]] = PROTOCOL_ROWS) -> None:
    """cuhk03_new_protocol_config_KIND.mat: a cell of names and columns of numbers from 1."""
    cells = np.empty((len(rows), 1), dtype=object)
    cells[:, 0] = [name for name, _, _ in rows]
    columns = {
        f"{split}_idx": [i for i, row in enumerate(rows, 1) if row[2] == split]
        for split in ("train", "query", "gallery")
    }
    columns["labels"] = [pid for _, pid, _ in rows]
    columns["camId"] = [int(name.split("_")[2]) if name[0].isdigit() else 1 for name, _, _ in rows]
    numbers = {name: np.array(column, np.uint16)[:, None] for name, column in columns.items()}
    scipy.io.savemat(
        root / f"cuhk03_new_protocol_config_{kind}.mat",
        {"filelist": cells, **numbers},
        do_compression=True,
    )
