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

from san_core.data.records import ListedImage, Listing, Problem, PublishedCounts
from san_core.data.tree import Tree
from san_core.images.pixels import encode_png

MAT_FILE = "cuhk-03.mat"
CONFIG_FILE = "cuhk03_new_protocol_config_{kind}.mat"
VIEWS = 2
IMAGES_PER_VIEW = 5  # images of a person by each of the two cameras
CLASSIC_SPLITS = 20
PUBLISHED = {
    "labeled": {
        "train": PublishedCounts(767, 7_368),
        "query": PublishedCounts(700, 1_400),
        "gallery": PublishedCounts(700, 5_328),
    },
    "detected": {
        "train": PublishedCounts(767, 7_365),
        "query": PublishedCounts(700, 1_400),
        "gallery": PublishedCounts(700, 5_332),
    },
}
# What scipy raises where a file is not MATLAB's, or not whole.
_CONFIG_ERRORS = (OSError, ValueError, TypeError, NotImplementedError, MatReadError, zlib.error)
OPTIONS = {
    "labeled": "boxes drawn by hand; so it is unless detected is given",
    "detected": "boxes found by a detector",
    "classic": "classic=1 to classic=20: one of the 20 splits into 1,367 and 100 people",
}


class ImagePosition(NamedTuple):
    """Where the file has an image: pair of cameras, person of the pair, number, each from 0."""

    pair: int
    person: int
    number: int

    @property
    def view(self) -> int:
        """Which camera of the pair took it, from 0."""
        return self.number // IMAGES_PER_VIEW

    @property
    def file_name(self) -> str:
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
    boxes = _open_box_images(tree, kind)
    if "classic" in options:
        images = list(_classic_split_images(boxes, _parse_split_number(options["classic"])))
        return Listing(images, [], {}, "single-gallery-shot")
    problems: list[Problem] = []
    images = list(_new_protocol_images(boxes, tree, problems))
    return Listing(images, problems, PUBLISHED[kind], "market1501")


class _BoxImages:
    """The images of one kind in the file, in cells of references."""

    def __init__(self, file: "h5py.File", kind: str) -> None:
        self.file = file
        self.kind = kind
        # MATLAB's arrays appear with their axes in reverse: a cell (people, 10) as (10, people).
        self.cells = [file[reference] for reference in file[kind][0]]

    def positions_of_people(self) -> Iterator[tuple[int, int]]:
        """Every person, as pair and number in the pair, both from 0."""
        for pair, cell in enumerate(self.cells):
            yield from ((pair, person) for person in range(cell.shape[1]))

    def has_image(self, place: ImagePosition) -> bool:
        """Whether there is such an image; cells of people with fewer than ten are empty."""
        if not 0 <= place.pair < len(self.cells):
            return False
        cell = self.cells[place.pair]
        if not (0 <= place.number < cell.shape[0] and 0 <= place.person < cell.shape[1]):
            return False
        image = self._image_dataset(place)
        return bool(image.ndim == 3 and image.shape[0] == 3)

    def read_png(self, place: ImagePosition) -> bytes:
        """An image as PNG."""
        pixels = self._image_dataset(place)[:]  # (3, W, H)
        return encode_png(np.ascontiguousarray(pixels.transpose(2, 1, 0)))

    def _image_dataset(self, place: ImagePosition) -> "h5py.Dataset":
        """What the file has in the place of an image.

        Raises:
            ValueError: the file is damaged there.
        """
        try:
            return self.file[self.cells[place.pair][place.number, place.person]]
        except (KeyError, OSError, TypeError) as error:
            raise ValueError(f"{MAT_FILE} is damaged at {place.file_name}: {error}") from error

    def listed_image(self, place: ImagePosition, pid: int, split: str) -> ListedImage:
        """An image on its way into a split."""
        name = f"images_{self.kind}/{place.file_name}"
        return ListedImage(name, pid, place.view, split, partial(self.read_png, place))


def _open_box_images(tree: Tree, kind: str) -> _BoxImages:
    path = tree.local_path(_find_file(tree, MAT_FILE))
    try:
        file = tree.enter_context(h5py.File(path, "r"))
        return _BoxImages(file, kind)
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(
            f"{tree.place}: {MAT_FILE} is not CUHK03's file (MATLAB 7.3, with a cell {kind}): "
            f"{error}"
        ) from error


def _find_file(tree: Tree, name: str) -> str:
    found = tree.find_file(name, depth=2)
    if found is None:
        raise FileNotFoundError(
            f"{tree.place} has no {name}, nor has a folder in it; CUHK03 is read from "
            f"cuhk03_release/{MAT_FILE} and {CONFIG_FILE.format(kind='labeled')} beside "
            "cuhk03_release"
        )
    return found


def _new_protocol_images(
    boxes: _BoxImages, tree: Tree, problems: list[Problem]
) -> Iterator[ListedImage]:
    """The images of the new protocol, by its file of settings."""
    name = CONFIG_FILE.format(kind=boxes.kind)
    path = tree.local_path(_find_file(tree, name))
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
    except (*_CONFIG_ERRORS, KeyError, IndexError) as error:
        raise ValueError(
            f"{tree.place}: {name} is not the file of the new protocol, with filelist, labels and "
            f"train_idx, query_idx, gallery_idx: {error}"
        ) from error
    known: dict[ImagePosition, int] = {}
    for split, chosen in rows.items():
        for row in chosen:
            place = _parse_image_name(files[row])
            if place is None:
                problems.append(Problem("unknown name", files[row], f"row {row + 1} of {name}"))
            elif not boxes.has_image(place):
                problems.append(Problem("missing image", files[row], f"row {row + 1} of {name}"))
            elif place in known:
                detail = f"{place.file_name} is in row {known[place]} too"
                problems.append(Problem("wrong row", f"{name} row {row + 1}", detail))
            else:
                known[place] = row + 1
                yield boxes.listed_image(place, pids[row], split)


def _parse_image_name(name: str) -> ImagePosition | None:
    """Where the image of a file's name is; None if the name is none of CUHK03's."""
    parts = name.rpartition("/")[2].removesuffix(".png").split("_")
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        return None
    pair, person, view, number = (int(part) - 1 for part in parts)
    place = ImagePosition(pair, person, number)
    return place if place.view == view else None


def _parse_split_number(text: str) -> int:
    """The number of a classic split, from 1."""
    if not text.isdecimal() or not 1 <= int(text) <= CLASSIC_SPLITS:
        raise ValueError(f"option classic={text!r} is no split; they are 1 to {CLASSIC_SPLITS}")
    return int(text)


def _classic_split_images(boxes: _BoxImages, number: int) -> Iterator[ListedImage]:
    """The images of a classic split."""
    try:
        pairs = boxes.file[boxes.file["testsets"][0, number - 1]][:]  # (2, people), from 1
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise ValueError(
            f"{MAT_FILE} has no classic split {number} in testsets: {error}"
        ) from error
    tested = {(int(pair) - 1, int(person) - 1) for pair, person in pairs.T}
    people = {person: pid for pid, person in enumerate(boxes.positions_of_people(), 1)}
    if lost := tested - people.keys():
        raise ValueError(f"{MAT_FILE}: classic split {number} tests {min(lost)}, who is not there")
    of: dict[str, Callable[[ImagePosition, Any], bool]] = {
        "train": lambda _, person: person not in tested,
        "query": lambda place, person: person in tested and place.view == 0,
        "gallery": lambda place, person: person in tested and place.view == 1,
    }
    for split, is_in in of.items():
        for person, pid in people.items():
            for place in (
                ImagePosition(*person, number) for number in range(VIEWS * IMAGES_PER_VIEW)
            ):
                if is_in(place, person) and boxes.has_image(place):
                    yield boxes.listed_image(place, pid, split)
