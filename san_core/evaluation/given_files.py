"""Features and distances from other programs, as plain .npy files.

    mine.npy         (N, D), a feature an image; or (queries, gallery images), their distances
    mine.csv         the image of each feature in the column `name`; or index.csv beside mine.npy

For distances, the table names queries and gallery images in the order of rows and columns; without
a table they are in the order of the data set. Legend: N images, D embedding, Q queries, G gallery.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation.feature_files import (
    FEATURES_FILE,
    INDEX_FILE,
    file_sha256,
    map_numbers,
    records_by_index,
)
from san_core.evaluation.kernels.distance import Distances
from san_core.images.shard import Record


class PlainFeatures:
    """Features in a .npy file, float32, float64 or float16, with a table beside it.

    Attributes:
        provenance: the file's name and sha256.

    Raises:
        FileNotFoundError: there is no such file, or no table beside it.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._table = file, _table_beside(file)
        if self._table is None:
            raise FileNotFoundError(
                f"{file} has no {file.with_suffix('.csv').name} or {INDEX_FILE} beside it, which"
                " names the image of each row in the column name"
            )
        self.provenance: dict[str, Any] = {"file": file.name, "sha256": file_sha256(file)}

    def records(self, among: Sequence[Record], splits: Sequence[str]) -> list[Record]:
        """The image of every row; as `feature_files.records_by_index`."""
        assert self._table is not None  # checked when it was opened
        return records_by_index(self._table, among, splits)

    def rows(self, count: int) -> NDArray[np.float32]:
        """The features, (count, D): a memory map where they are float32 row by row, else a copy.

        Raises:
            ValueError: the file is damaged, or has another shape or type.
        """
        matrix = map_numbers(self._file)
        if matrix.dtype.kind != "f" or matrix.ndim != 2 or len(matrix) != count:
            raise ValueError(
                f"{self._file} is {matrix.dtype} {matrix.shape}; expected float32, float64 or"
                f" float16 with {count} rows, as its table has"
            )
        with np.errstate(over="ignore"):  # infinite values are then refused with the image's name
            return np.ascontiguousarray(matrix, np.float32)


class GivenDistances:
    """Distances of all queries to the whole gallery, in a .npy file.

    Attributes:
        provenance: the file's name and sha256.
        has_table: whether a table names the images of rows and columns.

    Raises:
        FileNotFoundError: there is no such file.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._table = file, _table_beside(file)
        self.has_table = self._table is not None
        self.provenance: dict[str, Any] = {"file": file.name, "sha256": file_sha256(file)}

    def records(self, among: Sequence[Record]) -> list[Record]:
        """Queries and gallery images in the order of rows and columns.

        Raises:
            ValueError: as of `feature_files.records_by_index`.
        """
        splits = ("query", "gallery")
        if self._table is None:
            return [record for record in among if record.split in splits]
        return records_by_index(self._table, among, splits)

    def matrix(self, num_query: int, num_gallery: int) -> Distances:
        """The distances (Q, G), a memory map.

        Raises:
            ValueError: the file is damaged, or has another shape or type.
        """
        matrix = map_numbers(self._file)
        if matrix.dtype.kind not in "fiu" or matrix.shape != (num_query, num_gallery):
            raise ValueError(
                f"{self._file} is {matrix.dtype} {matrix.shape}; expected numbers of shape"
                f" ({num_query}, {num_gallery}): a row for each query, a column for each gallery"
                " image"
            )
        return matrix


def plain_file(place: Path, name: str) -> Path | None:
    """The .npy file at a place: the place itself, or `name` in a folder without features.json."""
    if place.is_dir() and not (place / FEATURES_FILE).exists():
        place = place / name
    return place if place.is_file() else None


def _table_beside(file: Path) -> Path | None:
    """The table that belongs to a .npy file; None if there is none."""
    beside = (file.with_suffix(".csv"), file.parent / INDEX_FILE)
    return next((table for table in beside if table.is_file()), None)
