"""Features from several workers, each with a range of the images, and how they are joined.

A part is an ordinary folder of features, except that features.json says which part it is. The
joined files are byte for byte those that one worker would have written.

Legend: N images of all parts, D embedding.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.disk import new_array
from san_core.evaluation.feature_files import INDEX_FILE, FeatureFiles, ToldPart, write_sums
from san_core.images.shard import sha256


class Part(NamedTuple):
    """The number of a worker's part, from 0, and the number of workers."""

    number: int
    workers: int

    def rows(self, total: int, *, batch: int) -> slice:
        """The range of the images that this worker embeds, in whole batches.

        Raises:
            ValueError: there are fewer batches than workers.
        """
        batches = -(-total // batch)
        if batches < self.workers:
            raise ValueError(
                f"{self.workers} workers are too many: {total} images make {batches} batches of "
                f"{batch}, enough for {batches} at most"
            )
        first, end = (n * batches // self.workers for n in (self.number, self.number + 1))
        return slice(first * batch, min(end * batch, total))

    def told(self, names: Sequence[str]) -> ToldPart:
        """The entry of features.json. names: of the images of all parts."""
        return {"number": self.number, "workers": self.workers, "images": _digest(names)}


def join_parts(folder: Path, places: Sequence[Path]) -> tuple[int, int]:
    """Join the parts at some places into an existing folder; returns N and D.

    Raises:
        ValueError: a part is damaged, missing, duplicated, or belongs to other images or another
            network.
        FileNotFoundError: a file of a part is missing.
        OSError: there is no room.
    """
    parts = _in_order({place: FeatureFiles(place) for place in places})
    indices = [part.index() for part in parts]
    names = [name for _, some in indices for name in some]
    assert parts[0].part is not None
    if _digest(names) != parts[0].part["images"]:
        raise ValueError(f"{places[0].parent}: the parts do not hold the images that they list")
    for matrix in parts[0].matrix_names:
        rows = [part.rows(matrix, len(i[1])) for part, i in zip(parts, indices, strict=True)]
        dim = _write_joined(folder / f"{matrix}.npy", rows)
    with (folder / INDEX_FILE).open("wb") as table:
        for number, (data, _) in enumerate(indices):
            table.write(data.partition(b"\n")[2] if number else data)  # one header is enough
    files = [*(f"{name}.npy" for name in parts[0].matrix_names), INDEX_FILE]
    write_sums(folder, files, parts[0].told)
    return len(names), dim


def _in_order(found: Mapping[Path, FeatureFiles]) -> list[FeatureFiles]:
    """The parts by their numbers.

    Raises:
        ValueError: they are not all parts of one set of features, each once.
    """
    (first_place, first), *others = found.items()
    by_number: dict[int, Path] = {}
    for place, files in found.items():
        if files.part is None:
            raise ValueError(f"{place} is not a part: it holds the features of all images")
        number = files.part["number"]
        if number in by_number:
            raise ValueError(f"{by_number[number]} and {place} are both part {number}; delete one")
        by_number[number] = place
    assert first.part is not None
    for place, files in others:
        mine = {**files.told, "part": {**(files.part or {}), "number": 0}}
        theirs = {**first.told, "part": {**first.part, "number": 0}}
        if differing := [n for n in {**theirs, **mine} if theirs.get(n) != mine.get(n)]:
            told = ", ".join(differing)
            raise ValueError(f"{first_place} and {place} are parts of different features: {told}")
        if files.matrix_names != first.matrix_names:
            raise ValueError(f"{first_place} and {place} hold different matrices: references")
    count = first.part["workers"]
    if missing := [str(number) for number in range(count) if number not in by_number]:
        raise ValueError(
            f"{first_place.parent} holds {len(found)} of {count} parts; missing: worker"
            f" {', '.join(missing[:20])}"
        )
    return [found[by_number[number]] for number in range(count)]


def _write_joined(file: Path, parts: Sequence[NDArray[np.float32]]) -> int:
    """Write the rows of the parts one after another; returns their number of dimensions."""
    dim = parts[0].shape[1]
    joined = new_array(file, (sum(map(len, parts)), dim), np.dtype(np.float32))
    done = 0
    for rows in parts:
        joined[done : done + len(rows)] = rows
        done += len(rows)
    joined.flush()
    return int(dim)


def _digest(names: Sequence[str]) -> str:
    """A hash of images and their order."""
    return sha256("\n".join(names).encode("utf-8", "surrogatepass"))
