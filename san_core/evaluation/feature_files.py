"""Features of images in a folder, with checksums.

    features.npy     (N, D) float32
    untrained.npy    (N, D) float32, of the network before training, if asked for
    index.csv        name, pid, camid and split of each row's image, and the data set's names of
    person and camera features.json    what they were made from, and the sha256 of the other files

Legend: N images, D embedding.
"""

import csv
import hashlib
import json
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from san_core.checked_json import read_json_file
from san_core.data.records import camera_name, person_name
from san_core.data.trained_on import SeenInTraining
from san_core.disk import new_array, write_file
from san_core.images.shard import MOST_FILE_BYTES, Digest, Record, Size

FEATURES_FILE = "features.json"
INDEX_FILE = "index.csv"
# Errors of numpy for a file that is not an .npy file, or is incomplete.
_READ_ERRORS = (
    *(ValueError, TypeError, EOFError, OverflowError, MemoryError, SyntaxError),
    tokenize.TokenError,
)
COLUMNS = ("name", "pid", "camid", "split", "person", "camera")


class ToldPart(TypedDict):
    """Which part of several workers this is; `images` identifies the images of all parts."""

    number: Size
    workers: Size
    images: Digest


class _Told(TypedDict):
    """The content of features.json; it may have more keys. Files of older versions lack sums."""

    dataset: str
    metric: Literal["cosine", "euclidean"]
    sha256: NotRequired[dict[str, Digest]]
    seen_in_training: NotRequired[SeenInTraining]
    part: NotRequired[ToldPart]


def write_features(
    folder: Path,
    rows: Mapping[str, NDArray[np.float32]],
    records: Sequence[Record],
    *,
    provenance: Mapping[str, Any],
) -> None:
    """Write features into an existing folder.

    Args:
        folder: where the files go.
        rows: (N, D) by name: "features", and perhaps "untrained".
        records: the image of each row.
        provenance: what they were made from, with the keys dataset and metric.

    Raises:
        OSError: there is no room for them.
    """
    for name, matrix in rows.items():
        new_array(folder / f"{name}.npy", matrix.shape, matrix.dtype)[:] = matrix
    with (folder / INDEX_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(
            (r.name, r.pid, r.camid, r.split, person_name(r), camera_name(r)) for r in records
        )
    write_sums(folder, (*(f"{name}.npy" for name in rows), INDEX_FILE), provenance)


def write_sums(folder: Path, names: Iterable[str], provenance: Mapping[str, Any]) -> None:
    """Write features.json: what the features were made from, and the checksums of their files."""
    sums = {name: file_sha256(folder / name) for name in names}
    told = json.dumps({**provenance, "sha256": sums}, indent=2)
    write_file(folder / FEATURES_FILE, told.encode() + b"\n")


def write_named_features(
    folder: Path,
    batches: Iterable[NDArray[np.float32]],
    names: Sequence[str],
    *,
    dim: int,
    provenance: Mapping[str, Any],
) -> None:
    """Write features of images that have only names, batch by batch.

    Args:
        folder: where the files go.
        batches: (B, D) each, as many rows together as there are names.
        names: of the image of each row.
        dim: D.
        provenance: as in `write_features`.

    Raises:
        OSError: there is no room for them.
    """
    matrix, done = new_array(folder / "features.npy", (len(names), dim), np.dtype(np.float32)), 0
    for batch in batches:
        matrix[done : done + len(batch)] = batch
        done += len(batch)
    assert done == len(names)  # or rows would belong to other images
    matrix.flush()
    with (folder / INDEX_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS[:1])
        writer.writerows((name.encode("utf-8", "replace").decode(),) for name in names)
    write_sums(folder, ("features.npy", INDEX_FILE), provenance)


def map_features(folder: Path, count: int) -> NDArray[np.float32]:
    """The features that `write_named_features` wrote, one row an image: (count, D), a memory map.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged.
    """
    return FeatureFiles(folder).rows("features", count)


class FeatureFiles:
    """Features in a folder; each file's checksum is verified before it is used.

    Attributes:
        provenance: what they were made from, the data set among it.
        told: the same with the metric, in the order of the file.
        metric: the distance they are meant for.
        part: which part of several workers they are; None if they hold all images.
        is_summed: whether there are checksums; without them damage goes unnoticed.

    Raises:
        FileNotFoundError: the folder holds no features.
        ValueError: features.json is not valid.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / FEATURES_FILE).is_file():
            raise FileNotFoundError(f"{folder} holds no features: {FEATURES_FILE} is missing")
        told: dict[str, Any] = {**read_json_file(folder / FEATURES_FILE, _Told)}
        self._folder = folder
        self._sums: dict[str, str] | None = told.pop("sha256", None)
        self.part: ToldPart | None = told.pop("part", None)
        self.told = dict(told)  # everything it records of their origin
        self.metric: str = told.pop("metric")
        self.provenance = told

    @property
    def is_summed(self) -> bool:
        """Whether there are checksums."""
        return self._sums is not None

    @property
    def matrix_names(self) -> list[str]:
        """The matrices that have checksums."""
        files = map(Path, self._sums or ())
        return [file.stem for file in files if file.suffix == ".npy"]

    def index(self) -> tuple[bytes, list[str]]:
        """What index.csv holds, and the image of every row.

        Raises:
            FileNotFoundError: it is missing.
            ValueError: it is damaged.
        """
        file = self._checked(INDEX_FILE)
        return file.read_bytes(), _names_in(file)

    def records(self, among: Sequence[Record], splits: Sequence[str]) -> list[Record]:
        """The image of every row by index.csv, which names each image of some splits once.

        Raises:
            FileNotFoundError: index.csv is missing.
            ValueError: it is damaged, names an image twice or one that is not in `among`, or lacks
                an image of the splits.
        """
        return records_by_index(self._checked(INDEX_FILE), among, splits)

    def rows(self, name: str, count: int) -> NDArray[np.float32]:
        """A matrix of features by its name, one row an image: (count, D), a memory map.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is damaged, not float32 row by row, or has another number of rows.
        """
        file = self._checked(f"{name}.npy")
        matrix = map_numbers(file)
        if matrix.dtype != np.float32 or matrix.ndim != 2 or len(matrix) != count:
            raise ValueError(
                f"{file} is {matrix.dtype} {matrix.shape}; expected float32 with {count} rows"
            )
        if not matrix.flags.c_contiguous:
            raise ValueError(f"{file} is in Fortran order; save np.ascontiguousarray of it")
        found: NDArray[np.float32] = matrix
        return found

    def _checked(self, name: str) -> Path:
        """The path of a file that exists and, if there are checksums, is undamaged."""
        file = self._folder / name
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; extract_features makes it")
        if self._sums is not None and file_sha256(file) != self._sums.get(name):
            raise ValueError(f"{file} is damaged: its sha256 is not that of {FEATURES_FILE}")
        return file


def map_numbers(file: Path) -> NDArray[Any]:
    """The array in a .npy file, as a memory map.

    Raises:
        ValueError: it is damaged, or holds objects.
    """
    try:
        found: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except _READ_ERRORS as error:  # which advise to allow pickles
        raise ValueError(f"{file} is damaged: it is not a whole .npy file of numbers") from error
    return found


def records_by_index(file: Path, among: Sequence[Record], splits: Sequence[str]) -> list[Record]:
    """The images named by a table's column `name`, row by row: each of some splits once.

    Raises:
        ValueError: the table is damaged, names an image twice or one that is not in `among`, or
            lacks an image of the splits.
    """
    known, found = {record.name: record for record in among}, dict[str, Record]()
    for name in _names_in(file):
        if name not in known:
            raise ValueError(f"{file} names {name}, which is not in the data set")
        if name in found:
            raise ValueError(f"{file} names {name} more than once")
        found[name] = known[name]
    wanted = [record.name for record in among if record.split in splits]
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(
            f"{file} lacks {len(missing)} of the {len(wanted)} images of splits "
            f"{', '.join(splits)}, such as {missing[0]}: scores would cover only a part"
        )
    return list(found.values())


def _names_in(file: Path) -> list[str]:
    """The column `name` of a table, row by row."""
    if (size := file.stat().st_size) > MOST_FILE_BYTES:
        raise ValueError(f"{file} has {size:,} bytes; at most {MOST_FILE_BYTES:,} are read")
    try:
        with file.open(encoding="utf-8-sig", newline="") as table:  # Excel writes a mark
            rows = csv.DictReader(table)
            columns = list(rows.fieldnames or [])
            if "name" in columns:
                return [row["name"] or "" for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    told = ", ".join(map(repr, columns)) or "nothing"
    raise ValueError(f"{file} has no column 'name'; its first line holds {told}")


def file_sha256(path: Path) -> str:
    """sha256 (hexadecimal) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
