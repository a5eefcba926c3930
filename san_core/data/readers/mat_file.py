"""Untrusted MATLAB files, read within limits on size and without following links.

MATLAB 7.3 files are HDF5, which can take its data from any other file of this machine (external
storage, virtual data sets, soft and external links): such a file is refused. Sizes are checked
before anything is read, because both formats can declare arrays that no memory can hold.
"""

import io
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray
from scipy.io.matlab import MatReadError

MOST_BYTES = 64 << 20  # of one array, both as declared and as stored
_HEADER_BYTES = 128  # of a MATLAB 5 file
_COMPRESSED = 15  # the type of an element compressed by zlib
# Errors of h5py and scipy for files that are damaged or not made by MATLAB.
_ERRORS = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError),
    *(OverflowError, MemoryError, MatReadError, zlib.error, struct.error),
)


class MatFile:
    """An open MATLAB 7.3 file; arrays appear with their axes in reverse.

    Raises:
        ValueError: it is not such a file, or it leads to other files.
    """

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        with _damage("its links"):
            found = file.id.links.visit(_name_if_link, info=True)
        if found is not None:
            name = found.decode("utf-8", "backslashreplace")
            raise ValueError(f"{name!r} is a link to another file or place; links are not followed")

    def array(self, at: str | h5py.Reference, what: str) -> h5py.Dataset:
        """An array by its name or a reference to it, not yet read.

        Args:
            at: where it is.
            what: its name in error messages.

        Raises:
            ValueError: there is none, it is too large, or its data is in other files.
        """
        with _damage(what):
            found = self._file[at]
            if not isinstance(found, h5py.Dataset):
                raise ValueError(f"it is a {type(found).__name__.lower()}, not an array")
            made = found.id.get_create_plist()
            if made.get_external_count() or found.is_virtual:
                raise ValueError("its data is in other files, which are not read")
            chunk = math.prod(found.chunks or ()) * found.dtype.itemsize
            size = max(found.nbytes, chunk, found.id.get_storage_size())
            if size > MOST_BYTES:
                raise ValueError(f"it has {size:,} bytes; at most {MOST_BYTES:,} are read")
            return found

    def references(self, at: str | h5py.Reference, what: str) -> NDArray[Any]:
        """A cell array: references, in two dimensions.

        Raises:
            ValueError: it is something else, or as in `array`.
        """
        found = self.array(at, what)
        with _damage(what):
            if h5py.check_ref_dtype(found.dtype) is not h5py.Reference or found.ndim != 2:
                raise ValueError(f"it is {_described(found)}, not a cell array")
            cells: NDArray[Any] = found[()]
            return cells

    def whole_numbers(self, at: str | h5py.Reference, what: str) -> NDArray[np.int64]:
        """A matrix of whole numbers, in two dimensions.

        Raises:
            ValueError: it is something else, or as in `array`.
        """
        found = self.array(at, what)
        with _damage(what):
            if found.dtype.kind not in "iuf" or found.ndim != 2:
                raise ValueError(f"it is {_described(found)}, not a matrix of numbers")
            numbers = np.asarray(found[()], np.float64)
            if not (np.abs(numbers) < 2**31).all() or (numbers % 1).any():
                raise ValueError("it has numbers that are not whole")
            return numbers.astype(np.int64)

    def pixels(self, at: h5py.Reference, what: str) -> NDArray[np.uint8]:
        """An image: (H, W, 3) uint8.

        Raises:
            ValueError: it is something else, or as in `array`.
        """
        found = self.array(at, what)
        with _damage(what):
            if found.dtype != np.uint8 or found.ndim != 3 or found.shape[0] != 3 or not found.size:
                raise ValueError(f"it is {_described(found)}, not an image of bytes (3, W, H)")
            return np.ascontiguousarray(found[()].transpose(2, 1, 0))


def open_mat_file(path: Path) -> h5py.File:
    """A MATLAB 7.3 file, to be closed; give it to `MatFile`.

    Raises:
        ValueError: it is not such a file.
    """
    with _damage("its beginning"):
        # No lock: nobody writes to it, and shared file systems such as NFS may not support locks.
        return h5py.File(path, "r", locking=False)


def read_variables(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Variables of a MATLAB 5 file.

    Raises:
        ValueError: it is not such a file, lacks a variable, or declares more than the limit.
    """
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"it has {size:,} bytes; at most {MOST_BYTES:,} are read")
    data = path.read_bytes()
    with _damage("what is packed in it"):
        _check_unpacked_size(data)
        for name, shape, _ in scipy.io.whosmat(io.BytesIO(data)):
            if math.prod(shape) > MOST_BYTES // 8:
                raise ValueError(f"{name} is declared as {shape}")
        found = scipy.io.loadmat(io.BytesIO(data), variable_names=list(names))
    if missing := [name for name in names if not isinstance(found.get(name), np.ndarray)]:
        raise ValueError(f"it has no array {missing[0]}")
    return {name: found[name] for name in names}


def _check_unpacked_size(data: bytes) -> None:
    """Raise ValueError if the elements of a MATLAB 5 file unpack to more than the limit."""
    order = ">" if data[126:128] == b"MI" else "<"
    at, left = _HEADER_BYTES, MOST_BYTES
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind == _COMPRESSED:
            packed = data[at + 8 : at + 8 + size]
            left -= len(zlib.decompressobj().decompress(packed, left + 1))
        if left < 0:
            raise ValueError(f"it is more than {MOST_BYTES:,} bytes")
        at += 8 + size


def _name_if_link(name: bytes, info: Any) -> bytes | None:
    return None if info.type == h5py.h5l.TYPE_HARD else name


def _described(found: h5py.Dataset) -> str:
    return f"{found.dtype} {found.shape}"


@contextmanager
def _damage(what: str) -> Iterator[None]:
    """A context in which any error means that the file is not as it should be.

    Raises:
        ValueError: an error occurred in the block; the line names `what`.
    """
    try:
        yield
    except _ERRORS as error:
        raise ValueError(f"{what}: {error or type(error).__name__}") from error
