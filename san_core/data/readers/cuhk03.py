"""CUHK03 in its published file (Li et al., "DeepReID", CVPR 2014), with either protocol.

    cuhk03/cuhk03_release/cuhk-03.mat                     MATLAB 7.3, which is HDF5
           cuhk03_new_protocol_config_labeled.mat         the new protocol, 767/700 people
           cuhk03_new_protocol_config_detected.mat        (Zhong et al., CVPR 2017)

The file holds the images themselves: for `labeled` (hand-drawn boxes) and `detected` ones, five
pairs of cameras, each with a cell of people x 10 images, the first five of the first camera of
the pair. Images are stored in the shards as PNG, with the usual names of extracted files:
images_labeled/PAIR_PERSON_VIEW_NUMBER.png, all counted from 1.

As published: 1,467 people; by the new protocol 7,368 labeled (7,365 detected) images of 767 people
for training, 1,400 queries, and a gallery of 5,328 (5,332) images of 700 people.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from san_core.data.readers.mat_file import MatFile, open_mat_file, read_variables
from san_core.data.records import ListedImage, Listing, Problem, PublishedCounts
from san_core.data.tree import Tree
from san_core.images.pixels import encode_png

MAT_FILE = "cuhk-03.mat"
CONFIG_FILE = "cuhk03_new_protocol_config_{kind}.mat"
PAIRS = 5  # of cameras
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
OPTIONS = {
    "labeled": "boxes drawn by hand; the default",
    "detected": "boxes found by a detector",
    "classic": "classic=1 to classic=20: one of the 20 splits into 1,367 and 100 people",
}


class ImagePosition(NamedTuple):
    """An image's place in the file: pair of cameras, person in it, number, each from 0."""

    pair: int
    person: int
    number: int

    @property
    def view(self) -> int:
        """Which camera of the pair took it, from 0."""
        return self.number // IMAGES_PER_VIEW

    @property
    def file_name(self) -> str:
        """The name of the image, as scripts that extract files write it."""
        pair, person, number = (n + 1 for n in self)
        return f"{pair}_{person:03d}_{self.view + 1}_{number:02d}.png"


def listing(tree: Tree, options: Mapping[str, str]) -> Listing:
    """Every image of a protocol, train, query, then gallery.

    With the new protocol, people have its numbers, and the camera is the view. With a classic
    split, people are numbered through all pairs; images of the first view are queries, those of the
    second are gallery, and scores use single-gallery-shot.

    Args:
        tree: the folder that holds the files, up to two folders deep; left open for the images.
        options: keys of OPTIONS.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is not what it should be, or the options contradict each other.
    """
    if {"labeled", "detected"} <= options.keys():
        raise ValueError("cuhk03 reads labeled or detected boxes, not both")
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

    def __init__(self, file: MatFile, kind: str) -> None:
        self.file = file
        self.kind = kind
        # MATLAB's arrays appear with their axes in reverse: a cell (people, 10) as (10, people).
        self.cells = [
            file.references(reference, f"pair {pair} of {kind}")
            for pair, reference in enumerate(file.references(kind, kind).ravel()[:PAIRS], 1)
        ]

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
        found = self.file.array(cell[place.number, place.person], self._name(place))
        return bool(found.ndim == 3 and found.shape[0] == 3)

    def read_png(self, place: ImagePosition) -> bytes:
        """An image as PNG.

        Raises:
            ValueError: the file has no image at its place.
        """
        cell = self.cells[place.pair]
        pixels = self.file.pixels(cell[place.number, place.person], self._name(place))
        return encode_png(pixels)

    def _name(self, place: ImagePosition) -> str:
        """The place of an image in error messages."""
        return f"{MAT_FILE} is damaged at {place.file_name}"

    def listed_image(self, place: ImagePosition, pid: int, split: str) -> ListedImage:
        """An image on its way into a split."""
        name = f"images_{self.kind}/{place.file_name}"
        return ListedImage(name, pid, place.view, split, partial(self.read_png, place))


def _open_box_images(tree: Tree, kind: str) -> _BoxImages:
    path = tree.local_path(_find_file(tree, MAT_FILE, kind))
    try:
        return _BoxImages(MatFile(tree.enter_context(open_mat_file(path))), kind)
    except ValueError as error:
        raise ValueError(
            f"{tree.place}: {MAT_FILE} is not CUHK03's file (MATLAB 7.3, with a cell {kind}): "
            f"{error}"
        ) from error


def _find_file(tree: Tree, name: str, kind: str) -> str:
    found = tree.find_file(name, depth=2)
    if found is None:
        raise FileNotFoundError(
            f"neither {tree.place} nor a folder in it has {name}; CUHK03 is read from "
            f"cuhk03_release/{MAT_FILE} and {CONFIG_FILE.format(kind=kind)} beside "
            "cuhk03_release"
        )
    return found


def _new_protocol_images(
    boxes: _BoxImages, tree: Tree, problems: list[Problem]
) -> Iterator[ListedImage]:
    """The images of the new protocol, by its file of settings."""
    name = CONFIG_FILE.format(kind=boxes.kind)
    path = tree.local_path(_find_file(tree, name, boxes.kind))
    try:
        lists = tuple(f"{split}_idx" for split in PUBLISHED[boxes.kind])
        config = read_variables(path, ("filelist", "labels", *lists))
        files = [_text_of_cell(cell) for cell in config["filelist"].ravel()]
        pids = _whole_numbers(config["labels"])
        rows = {name.removesuffix("_idx"): _whole_numbers(config[name]) for name in lists}
        if len(pids) != len(files) or any(
            not 1 <= row <= len(files) for chosen in rows.values() for row in chosen
        ):
            raise ValueError("its lists do not match")
    except ValueError as error:
        raise ValueError(
            f"{tree.place}: {name} is not the file of the new protocol, with filelist, labels and "
            f"train_idx, query_idx, gallery_idx: {error}"
        ) from error
    known: dict[ImagePosition, int] = {}
    for split, chosen in rows.items():
        for row in chosen:
            file, pid, where = files[row - 1], pids[row - 1], f"{name} row {row}"
            place = _parse_image_name(file)
            if place is None:
                problems.append(Problem("unknown name", file, f"row {row} of {name}", split))
            elif not boxes.has_image(place):
                problems.append(Problem("missing image", file, f"row {row} of {name}", split))
            elif place in known:
                detail = f"{place.file_name} is in row {known[place]} too"
                problems.append(Problem("wrong row", where, detail, split))
            elif pid < 1:
                problems.append(Problem("wrong row", where, f"label {pid}", split))
            else:
                known[place] = row
                yield boxes.listed_image(place, pid, split)


def _text_of_cell(cell: Any) -> str:
    """The text that a cell of a list of names holds."""
    if getattr(cell, "size", 0) != 1 or not isinstance(cell.ravel()[0], str):
        raise ValueError("filelist holds entries that are not names")
    return str(cell.ravel()[0])


def _whole_numbers(column: Any) -> list[int]:
    """The numbers of a list."""
    if column.dtype.kind not in "iuf" or not all(float(n).is_integer() for n in column.ravel()):
        raise ValueError("a list holds entries that are not whole numbers")
    return [int(number) for number in column.ravel()]


def _parse_image_name(name: str) -> ImagePosition | None:
    """The place of the image with a file's name; None if it is not a name of CUHK03."""
    parts = name.rpartition("/")[2].removesuffix(".png").split("_")
    if len(parts) != 4 or not all(part.isdecimal() and len(part) < 10 for part in parts):
        return None
    pair, person, view, number = (int(part) - 1 for part in parts)
    place = ImagePosition(pair, person, number)
    return place if place.view == view else None


def _parse_split_number(text: str) -> int:
    """The number of a classic split, from 1."""
    if not re.fullmatch(r"\d{1,2}", text) or not 1 <= int(text) <= CLASSIC_SPLITS:
        raise ValueError(
            f"option classic={text!r} is not a split; splits are 1 to {CLASSIC_SPLITS}"
        )
    return int(text)


def _classic_split_images(boxes: _BoxImages, number: int) -> Iterator[ListedImage]:
    """The images of a classic split."""
    what = f"{MAT_FILE} has no classic split {number} in testsets"
    splits = boxes.file.references("testsets", what).ravel()
    if len(splits) < number:
        raise ValueError(f"{what}: it has {len(splits)}")
    pairs = boxes.file.whole_numbers(splits[number - 1], what)  # (2, people), from 1
    if len(pairs) != 2:
        raise ValueError(f"{what}: it has {len(pairs)} columns; it must have two, pair and person")
    tested = {(int(pair) - 1, int(person) - 1) for pair, person in pairs.T}
    people = {person: pid for pid, person in enumerate(boxes.positions_of_people(), 1)}
    if lost := tested - people.keys():
        raise ValueError(
            f"{MAT_FILE}: classic split {number} tests {min(lost)}, who is not in the file"
        )
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
