"""CUHK03 in its published file (Li et al., "DeepReID", CVPR 2014), with either protocol.

    cuhk03/cuhk03_release/cuhk-03.mat                     MATLAB 7.3, which is HDF5
           cuhk03_new_protocol_config_labeled.mat         the new protocol, 767/700 people
           cuhk03_new_protocol_config_detected.mat        (Zhong et al., CVPR 2017)

The file holds the images themselves: for `labeled` (hand-drawn boxes) and `detected` ones, five
pairs of cameras, each with a cell of people x 10 images, the first five of the first camera of
the pair. Images go from there into the shards, as PNG, and are named as everybody's scripts name
their files: images_labeled/PAIR_PERSON_VIEW_NUMBER.png, all counted from 1.

As published: 1,467 people; by the new protocol 7,368 labeled (7,365 detected) images of 767 people
for training, 1,400 queries, and a gallery of 5,328 (5,332) images of 700 people.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import h5py
import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from san_core.data.records import Listed, Listing, Problem, Published
from san_core.data.tree import Tree
from san_core.images.pixels import encode_png

FILE = "cuhk-03.mat"
CONFIG = "cuhk03_new_protocol_config_{kind}.mat"
VIEWS = 2
PER_VIEW = 5  # images of a person by each of the two cameras
CLASSIC_SPLITS = 20
PUBLISHED = {
    "labeled": {
        "train": Published(767, 7_368),
        "query": Published(700, 1_400),
        "gallery": Published(700, 5_328),
    },
    "detected": {
        "train": Published(767, 7_365),
        "query": Published(700, 1_400),
        "gallery": Published(700, 5_332),
    },
}
# What scipy raises where a file is not MATLAB's, or not whole.
_NO_CONFIG = (OSError, ValueError, TypeError, NotImplementedError, MatReadError, zlib.error)
OPTIONS = {
    "labeled": "boxes drawn by hand; so it is unless detected is given",
    "detected": "boxes found by a detector",
    "classic": "classic=1 to classic=20: one of the 20 splits into 1,367 and 100 people",
}


class Place(NamedTuple):
    """Where the file has an image: pair of cameras, person of the pair, number, each from 0."""

    pair: int
    person: int
    number: int

    @property
    def view(self) -> int:
        """Which camera of the pair took it, from 0."""
        return self.number // PER_VIEW

    @property
    def name(self) -> str:
        """How the image is called, as by the scripts that write files."""
        pair, person, number = (n + 1 for n in self)
        return f"{pair}_{person:03d}_{self.view + 1}_{number:02d}.png"


def listing(tree: Tree, options: Mapping[str, str]) -> Listing:
    """Every image of a protocol, train, query, then gallery.

    By the new protocol, people have its numbers, and the camera is the view. By a classic split,
    people are counted through all pairs; images of the first view are queries and those of the
    second gallery, and it is scored by single-gallery-shot.

    Args:
        tree: the folder that holds the files, up to two folders deep; left open for the images.
        options: keys of OPTIONS.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is not what it should be, or the options contradict each other.
    """
    if {"labeled", "detected"} <= options.keys():
        raise ValueError("cuhk03 is labeled or detected, not both")
    kind = "detected" if "detected" in options else "labeled"
    boxes = _open(tree, kind)
    if "classic" in options:
        images = list(_classic(boxes, _number(options["classic"])))
        return Listing(images, [], {}, "single-gallery-shot")
    problems: list[Problem] = []
    images = list(_new(boxes, tree, problems))
    return Listing(images, problems, PUBLISHED[kind], "market1501")


class _Boxes:
    """The images of one kind in the file, in cells of references."""

    def __init__(self, file: "h5py.File", kind: str) -> None:
        self.file = file
        self.kind = kind
        # MATLAB's arrays appear with their axes in reverse: a cell (people, 10) as (10, people).
        self.cells = [file[reference] for reference in file[kind][0]]

    def people(self) -> Iterator[tuple[int, int]]:
        """Every person, as pair and number in the pair, both from 0."""
        for pair, cell in enumerate(self.cells):
            yield from ((pair, person) for person in range(cell.shape[1]))

    def has(self, place: Place) -> bool:
        """Whether there is such an image; cells of people with fewer than ten are empty."""
        if not 0 <= place.pair < len(self.cells):
            return False
        cell = self.cells[place.pair]
        if not (0 <= place.number < cell.shape[0] and 0 <= place.person < cell.shape[1]):
            return False
        image = self._image(place)
        return bool(image.ndim == 3 and image.shape[0] == 3)

    def png(self, place: Place) -> bytes:
        """An image as PNG."""
        pixels = self._image(place)[:]  # (3, W, H)
        return encode_png(np.ascontiguousarray(pixels.transpose(2, 1, 0)))

    def _image(self, place: Place) -> "h5py.Dataset":
        """What the file has in the place of an image.

        Raises:
            ValueError: the file is damaged there.
        """
        try:
            return self.file[self.cells[place.pair][place.number, place.person]]
        except (KeyError, OSError, TypeError) as error:
            raise ValueError(f"{FILE} is damaged at {place.name}: {error}") from error

    def listed(self, place: Place, pid: int, split: str) -> Listed:
        """An image on its way into a split."""
        name = f"images_{self.kind}/{place.name}"
        return Listed(name, pid, place.view, split, partial(self.png, place))


def _open(tree: Tree, kind: str) -> _Boxes:
    path = tree.path(_found(tree, FILE))
    try:
        file = tree.keep(h5py.File(path, "r"))
        return _Boxes(file, kind)
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(
            f"{tree.place}: {FILE} is not CUHK03's file (MATLAB 7.3, with a cell {kind}): {error}"
        ) from error


def _found(tree: Tree, name: str) -> str:
    found = tree.find(name, depth=2)
    if found is None:
        raise FileNotFoundError(
            f"{tree.place} has no {name}, nor has a folder in it; CUHK03 is read from "
            f"cuhk03_release/{FILE} and {CONFIG.format(kind='labeled')} beside cuhk03_release"
        )
    return found


def _new(boxes: _Boxes, tree: Tree, problems: list[Problem]) -> Iterator[Listed]:
    """The images of the new protocol, by its file of settings."""
    name = CONFIG.format(kind=boxes.kind)
    path = tree.path(_found(tree, name))
    try:
        config = scipy.io.loadmat(path)
        files = [str(cell[0]) for cell in config["filelist"].ravel()]
        pids = [int(label) for label in config["labels"].ravel()]
        rows = {
            s: config[f"{s}_idx"].ravel().astype(int) - 1 for s in ("train", "query", "gallery")
        }
        if len(pids) != len(files) or any(
            min(r) < 0 or max(r) >= len(files) for r in rows.values()
        ):
            raise ValueError("its lists do not go together")
    except (*_NO_CONFIG, KeyError, IndexError) as error:
        raise ValueError(
            f"{tree.place}: {name} is not the file of the new protocol, with filelist, labels and "
            f"train_idx, query_idx, gallery_idx: {error}"
        ) from error
    known: dict[Place, int] = {}
    for split, chosen in rows.items():
        for row in chosen:
            place = _place(files[row])
            if place is None:
                problems.append(Problem("unknown name", files[row], f"row {row + 1} of {name}"))
            elif not boxes.has(place):
                problems.append(Problem("missing image", files[row], f"row {row + 1} of {name}"))
            elif place in known:
                detail = f"{place.name} is in row {known[place]} too"
                problems.append(Problem("wrong row", f"{name} row {row + 1}", detail))
            else:
                known[place] = row + 1
                yield boxes.listed(place, pids[row], split)


def _place(name: str) -> Place | None:
    """Where the image of a file's name is; None if the name is none of CUHK03's."""
    parts = name.rpartition("/")[2].removesuffix(".png").split("_")
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        return None
    pair, person, view, number = (int(part) - 1 for part in parts)
    place = Place(pair, person, number)
    return place if place.view == view else None


def _number(text: str) -> int:
    """The number of a classic split, from 1."""
    if not text.isdecimal() or not 1 <= int(text) <= CLASSIC_SPLITS:
        raise ValueError(f"option classic={text!r} is no split; they are 1 to {CLASSIC_SPLITS}")
    return int(text)


def _classic(boxes: _Boxes, number: int) -> Iterator[Listed]:
    """The images of a classic split."""
    try:
        pairs = boxes.file[boxes.file["testsets"][0, number - 1]][:]  # (2, people), from 1
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise ValueError(f"{FILE} has no classic split {number} in testsets: {error}") from error
    tested = {(int(pair) - 1, int(person) - 1) for pair, person in pairs.T}
    people = {person: pid for pid, person in enumerate(boxes.people(), 1)}
    if lost := tested - people.keys():
        raise ValueError(f"{FILE}: classic split {number} tests {min(lost)}, who is not there")
    of: dict[str, Callable[[Place, Any], bool]] = {
        "train": lambda _, person: person not in tested,
        "query": lambda place, person: person in tested and place.view == 0,
        "gallery": lambda place, person: person in tested and place.view == 1,
    }
    for split, is_in in of.items():
        for person, pid in people.items():
            for place in (Place(*person, number) for number in range(VIEWS * PER_VIEW)):
                if is_in(place, person) and boxes.has(place):
                    yield boxes.listed(place, pid, split)
