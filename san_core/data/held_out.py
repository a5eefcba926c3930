"""Which people of a data set are held out for testing, and the table that records it: split.csv.

    person,camera,split
    alice,entrance,query

A person is held out if the hash of the name (`names.place_of_name`) falls below the share. Only the
name counts, so nobody changes splits when people, images or cameras are added.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from san_core.data.names import place_of_name, settled_name
from san_core.data.records import CAMERA_FREE, ListedImage, person_name
from san_core.data.table import Table
from san_core.data.tree import open_tree

SPLIT_FILE = "split.csv"
SPLIT_COLUMNS = ("person", "camera", "split")
TEST = "test"
SPLIT = "split"
ALL = "all"  # an option of every data set that can be trained on
OPTIONS = {
    TEST: "test=SHARE: the share (0.33 by default) or the number of identities held out for "
    "testing, chosen by a hash of their names",
    SPLIT: "split=PLACE: the split.csv of an older set; its identities keep their splits",
}

_DEFAULT_SHARE = 1 / 3
_LEAST_TESTED = 2  # people; with only one, every answer is right
_SIDES = {"train": "train", "val": "val", "query": TEST, "gallery": TEST, "multi": TEST}
_MOST_SHOWN = 5

_People = Mapping[int, Sequence[ListedImage]]


class Wanted(NamedTuple):
    """Who is to be held out.

    Attributes:
        share: of the people, within 0 to 1; 0 holds out nobody.
        number: how many people, instead of a share; None for a share.
        sides: train, val or test by name, for people whose split is already known.
    """

    share: float = _DEFAULT_SHARE
    number: int | None = None
    sides: Mapping[str, str] = {}


class PartedImages(NamedTuple):
    """Images with splits, and warnings about the test split."""

    images: list[ListedImage]
    warnings: list[str]


def parse_options(options: Mapping[str, str]) -> Wanted:
    """The people to hold out by the options `test`, `split` and `all`.

    Raises:
        OSError: the table cannot be read.
        ValueError: an option makes no sense, the two contradict each other, or the table is wrong.
    """
    if ALL in options:
        check_no_splits(options, "option all trains on every identity")
        return Wanted(share=0)
    told = options.get(TEST, "")
    is_number = told.isdecimal() and len(told) < 10  # a longer number cannot mean people
    number = int(told) if is_number and int(told) >= _LEAST_TESTED else None
    if number is not None and SPLIT in options:
        raise ValueError(
            f"option test={told} is a number of identities, but option split already names them. "
            "Beside split, test must be a share: it applies to identities that are not in the "
            "table"
        )
    try:
        share = float(told) if told and number is None else _DEFAULT_SHARE
    except ValueError as error:
        raise ValueError(
            f"option test={told!r} is neither a share, such as 0.5, nor a number of identities"
        ) from error
    if not 0 <= share < 1:
        raise ValueError(
            f"a share of {share} cannot be held out for testing; give 0 to below 1, or a number "
            f"of identities from {_LEAST_TESTED}"
        )
    sides = read_sides(Path(options[SPLIT])) if SPLIT in options else {}
    return Wanted(share, number, sides)


def read_sides(path: Path) -> dict[str, str]:
    """The split of each person (train, val or test) from a table with the columns person and split.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not such a table, or has a person in two splits.
    """
    if path.is_dir():
        raise ValueError(f"split={path} is a folder; name the table in it, {path}/{SPLIT_FILE}")
    if not path.is_file():
        raise FileNotFoundError(f"split={path}: there is no such file")
    splits: dict[str, str] = {}
    with open_tree(path.parent) as tree:
        table = Table(tree, path.name)
        if not {"person", "split"} <= set(table.columns):
            raise ValueError(
                f"{table.place} is not a table of splits: it must have the columns"
                f" {', '.join(SPLIT_COLUMNS)}; {table.describe_first_row(SPLIT_COLUMNS)}"
            )
        for line, row in table.rows():
            person, split = (
                settled_name((row["person"] or "").strip()),
                (row["split"] or "").strip(),
            )
            if not person or split not in _SIDES:
                raise ValueError(
                    f"{table.place} line {line}: person {person!r}, split {split!r}; it must be "
                    f"one of {', '.join(_SIDES)}"
                )
            if _SIDES[first := splits.setdefault(person, split)] != _SIDES[split]:
                raise ValueError(
                    f"{table.place} line {line}: {person} is in {split}, and in {first} above; an "
                    "identity has one split"
                )
    return {person: _SIDES[split] for person, split in splits.items()}


def check_no_splits(options: Mapping[str, str], place: str) -> None:
    """Raise ValueError if an option would hold people out although the splits are already given.

    place: what gives the splits, such as "PATH has a column split".
    """
    if idle := [name for name in OPTIONS if name in options]:
        raise ValueError(f"{place}; option {idle[0]} has no effect")


def split_table(rows: Iterable[tuple[str, str, str]]) -> bytes:
    """The table of persons, cameras and splits, each once and sorted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SPLIT_COLUMNS)
    writer.writerows(sorted(set(rows)))
    return text.getvalue().encode("utf-8", "backslashreplace")


def assign_splits(
    images: Sequence[ListedImage], wanted: Wanted, *, protocol: str = ""
) -> PartedImages:
    """The images with splits: people who are held out are for testing, all others for training.

    A person can be a query if there are images from two cameras, or two images where cameras are
    unknown or ignored. The people to hold out are chosen in this order:

    1. People in the table of an older set keep their split.
    2. Of all others, those whose hashes fall below the share are held out. If a number is given
      instead, that many people who can be queries are held out: those with the lowest hashes.
    3. At least two people who can be queries are held out. If there are fewer, those with the
      lowest hashes are held out too, and a warning names them.
    4. At least one person stays in training; if three or more can be queries, one of these. If all
      are held out, the one with the highest hash stays, and a warning names the person.

    Then the images of each held-out person are divided:

    1. People who cannot be queries are only in the gallery.
    2. For every camera with several images of the person, the first by name is a query.
    3. If no camera has several, the first of all images is the query.
    4. All other images are gallery, so every query can be found.

    Args:
        images: with people numbered from 1; their splits are ignored.
        wanted: who is to be held out.
        protocol: how queries will be judged; camera-free ignores their cameras.

    Raises:
        ValueError: fewer than two people can be held out, nobody is left to train on, or the table
            names other people.
    """
    people: dict[int, list[ListedImage]] = defaultdict(list)
    for image in sorted(images, key=lambda image: image.name):
        people[image.pid or 0].append(image)
    choice = _Choice(people, wanted, protocol)
    sides = choice.sides()
    queries = {
        image.name
        for pid in choice.able
        if sides[pid] == TEST
        for image in _pick_queries(people[pid])
    }
    parted = [replace(image, split=_split_of(image, sides, queries)) for image in images]
    return PartedImages(parted, choice.warnings)


def _split_of(image: ListedImage, sides: Mapping[int, str], queries: set[str]) -> str:
    side = sides[image.pid or 0]
    if side != TEST:
        return side
    return "query" if image.name in queries else "gallery"


class _Choice:
    """Held-out people by number; `warnings` list choices that names alone do not give."""

    def __init__(self, people: _People, wanted: Wanted, protocol: str) -> None:
        self.people, self.wanted = people, wanted
        self.warnings: list[str] = []
        self.names = {pid: person_name(images[0]) for pid, images in people.items()}
        self.places = {pid: place_of_name(name, TEST) for pid, name in self.names.items()}
        able = (pid for pid, images in people.items() if _is_findable(images, protocol))
        self.able = sorted(able, key=self._order)
        self.known = {
            pid: wanted.sides[side]
            for pid, name in self.names.items()
            if (side := settled_name(name)) in wanted.sides
        }
        has_cameras = any(images[0].camid is not None for images in people.values())
        by_camera = has_cameras and protocol != CAMERA_FREE
        self.views = "seen by two cameras" if by_camera else "on two images"

    def _order(self, pid: int) -> tuple[float, int]:
        return self.places[pid], pid

    def sides(self) -> dict[int, str]:
        """Train, val or test for each person."""
        if self.wanted.sides:
            self._check_known()
        held = {pid for pid, side in self.known.items() if side == TEST}
        if self.wanted.number is not None:
            held = self._lowest(self.wanted.number)
        elif self.wanted.share:
            free = self.people.keys() - self.known.keys()
            held |= {pid for pid in free if self.places[pid] < self.wanted.share}
            held = self._with_enough_left(self._with_enough_tested(held))
        self._warn_of_silent(held)
        sides = {pid: TEST if pid in held else self.known.get(pid, "train") for pid in self.people}
        if self.known and "train" not in sides.values():
            raise ValueError(
                f"option split leaves nobody to train on: all {len(sides):,} identities of the data"
                " set are held out; name a table that has some of them in train"
            )
        return sides

    def _lowest(self, number: int) -> set[int]:
        """That many people with the lowest hashes."""
        if number > len(self.able) or number >= len(self.people):
            raise ValueError(
                f"{number} identities cannot be held out for testing: of {len(self.people):,}"
                " identities"
                f" {len(self.able):,} are {self.views}, and at least one must be left to train on"
            )
        return set(self.able[:number])

    def _with_enough_tested(self, held: set[int]) -> set[int]:
        """The held-out people, with more added so that two can be queries."""
        free = [pid for pid in self.able if pid not in self.known and pid not in held]
        lacking = max(0, _LEAST_TESTED - sum(pid in held for pid in self.able))
        if len(free) < lacking or len(self.people) <= _LEAST_TESTED:
            raise ValueError(
                f"{len(self.able)} of {len(self.people)} identities can be held out for testing. "
                f"Needed are at least {_LEAST_TESTED} with two images each, from two cameras "
                "where cameras are known, and a third to train on. test=0 holds out nobody"
            )
        if lacking:
            self._warn_of_moved(free[:lacking], "held out", "does not fall")
        return held | set(free[:lacking])

    def _with_enough_left(self, held: set[int]) -> set[int]:
        """The held-out people without the one that training needs if all are held out."""
        others = sorted(self.people.keys() - set(self.able), key=self._order)
        needed = self.able if len(self.able) > _LEAST_TESTED else others
        spared = [pid for pid in needed if pid not in self.known][-1:]
        if not spared or not held.issuperset(needed):
            return held
        self._warn_of_moved(spared, "kept in training", "falls")
        return held - set(spared)

    def _check_known(self) -> None:
        """Raise ValueError if a table names only other people; warn of people it lacks."""
        sides = self.wanted.sides
        if not self.known:
            known = {settled_name(name) for name in self.names.values()}
            is_joined = any(settled_name(name.partition("/")[2]) in known for name in sides)
            told = (
                "; it was written for joined sets: remove the set's name and the slash from its"
                " rows"
            )
            raise ValueError(
                f"the table of option split names none of these {len(self.people):,} identities:"
                " it has"
                f" {_shown(sides)}, the data set {_shown(self.names.values())}{told * is_joined}"
            )
        absent = len(sides) - len({settled_name(self.names[pid]) for pid in self.known})
        if absent:
            self.warnings.append(
                f"{absent:,} of {len(sides):,} identities in the table of option split are not in"
                " the data set"
            )

    def _warn_of_moved(self, pids: Sequence[int], what: str, falls: str) -> None:
        """Warn of people whose names alone would give another split."""
        for pid in pids:
            self.warnings.append(
                f"{self.names[pid]} is {what}, although the name {falls} among those held out. To "
                f"keep the splits when identities are added, keep {SPLIT_FILE} and pass it as "
                f"{SPLIT}=..."
            )

    def _warn_of_silent(self, held: set[int]) -> None:
        """Warn of people who are only in the gallery."""
        silent = held - set(self.able)
        if silent:
            self.warnings.append(
                f"{len(silent):,} of {len(held):,} identities that are held out for testing, such"
                " as"
                f" {self.names[min(silent)]}, are not {self.views}: they get no query, and their "
                "images are only in the gallery"
            )


def _shown(names: Iterable[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:_MOST_SHOWN]) + ", ..." * (len(shown) > _MOST_SHOWN)


def _is_findable(images: Sequence[ListedImage], protocol: str) -> bool:
    by_camera = protocol != CAMERA_FREE
    return len({i.camid if by_camera and i.camid is not None else i.name for i in images}) > 1


def _pick_queries(images: Sequence[ListedImage]) -> list[ListedImage]:
    """Which images of a person are queries; the images are sorted by name."""
    if images[0].camid is None:
        return [images[0]]
    cameras: dict[int | None, list[ListedImage]] = defaultdict(list)
    for image in images:
        cameras[image.camid].append(image)
    several = [found[0] for found in cameras.values() if len(found) > 1]
    return several or [images[0]]
