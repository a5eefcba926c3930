"""People and cameras by any name, numbered; and people held out to be searched for.

Numbers are kept where a data set numbers its people from 1 in the way of `records`. All else
(names, numbers from 0) is numbered anew, from 1, in sorted order.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from san_core.data.records import (
    CAMERA_FREE,
    DISTRACTOR,
    JUNK,
    ListedImage,
    Listing,
    Problem,
    ProblemsError,
)

# The options of data sets of one's own: whom to test on, and how.
OWN_OPTIONS = {
    "test": "test=SHARE: the share of people that is held out for testing, 0.33 unless given",
    CAMERA_FREE: "queries are searched in the whole gallery, whatever the cameras",
}

_DEFAULT_TEST_SHARE = 1 / 3
_LEAST_HELD_OUT = 2  # people; of one alone every answer is right
_WHOLE_NUMBER = re.compile(r"-?\d{1,9}")


class NamedImage(NamedTuple):
    """An image whose person and camera are names yet; split "" is yet to be decided."""

    name: str
    person: str
    camera: str | None
    split: str
    read: Callable[[], bytes]


def is_junk(person: str) -> bool:
    """Whether a name is that of junk: -1, however it is written."""
    return bool(_WHOLE_NUMBER.fullmatch(person)) and int(person) == JUNK


def make_listing(
    images: Sequence[NamedImage],
    problems: list[Problem],
    options: Mapping[str, str],
    *,
    has_splits: bool,
) -> Listing:
    """The listing of images and problems; where there are no splits, people are held out.

    options: keys of OWN_OPTIONS.

    Raises:
        ValueError: as of `number_people_and_cameras` and `assign_splits`, and the line tells the
            problems too; or people are to be held out of a set that has splits.
    """
    protocol = CAMERA_FREE if CAMERA_FREE in options else ""
    share = parse_test_share(options)
    try:
        found = number_people_and_cameras(images)
        if has_splits:
            return Listing(found, problems, {}, protocol)
        parted = assign_splits(found, share=share, protocol=protocol)
        warnings = [parted.shortage] if parted.shortage else []
        return Listing(parted.images, problems, {}, protocol, warnings)
    except ValueError as error:
        if not problems:
            raise
        raise ValueError(f"{error}; and there are problems: {ProblemsError(problems)}") from error


def number_people_and_cameras(images: Sequence[NamedImage]) -> list[ListedImage]:
    """The images with numbers for their people and cameras, in the order given.

    Where people are numbered anew, the field `person` keeps their names; likewise `camera`.

    Raises:
        ValueError: some images tell their camera and some do not, or names are ambiguous.
    """
    nameless = [image.name for image in images if image.camera is None]
    if nameless and len(nameless) < len(images):
        raise ValueError(
            f"{nameless[0]} has no camera, as {len(nameless):,} of {len(images):,} images; "
            "either every image has one or none"
        )
    pids = pids_by_name((image.person, image.split) for image in images)
    cameras = camids_by_name(image.camera for image in images if image.camera is not None)
    renamed = [k for k, numbers in (("person", pids), ("camera", cameras)) if _differ(numbers)]
    return [
        ListedImage(
            image.name,
            pids[image.person],
            None if image.camera is None else cameras[image.camera],
            image.split or "images",
            image.read,
            {kind: getattr(image, kind) for kind in renamed},
        )
        for image in images
    ]


def _differ(numbers: Mapping[str, int]) -> bool:
    """Whether numbers are others than the names say."""
    return any(not _WHOLE_NUMBER.fullmatch(name) or int(name) != n for name, n in numbers.items())


def pids_by_name(people: Iterable[tuple[str, str]]) -> dict[str, int]:
    """The number of every person, from (name, split) of every image.

    Names 0 and -1 that only a gallery has are distractors and junk. All others keep their numbers
    if they are whole numbers from 1, no two the same; else they count from 1 in their order: whole
    numbers by value, then words.

    Raises:
        ValueError: two names are one number, or 0 is in a gallery and a person elsewhere; but where
            there are queries of 0, it is a person in the gallery too.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for name, split in people:
        splits[name].add(split)
    numbers = {name: int(name) for name in splits if _WHOLE_NUMBER.fullmatch(name)}
    zeros = set().union(*(splits[name] for name, n in numbers.items() if n == DISTRACTOR))
    if "gallery" in zeros and (others := zeros - {"query", "gallery"}):
        raise ValueError(
            f"pid 0 is in {min(others)} and in gallery: it would be a person there and distractors "
            "here; name one of them otherwise"
        )
    nobody = {
        name: number
        for name, number in numbers.items()
        if (number == DISTRACTOR and zeros == {"gallery"})
        or (number == JUNK and splits[name] == {"gallery"})
    }
    numbers = _whole_numbers("people", splits.keys() - nobody.keys())
    named = sorted(splits.keys() - nobody.keys(), key=_natural_key)
    kept = [numbers[name] for name in named if name in numbers]
    if len(kept) == len(named) and min(kept, default=1) >= 1:
        return nobody | dict(zip(named, kept, strict=True))
    return nobody | {name: number for number, name in enumerate(named, 1)}


def camids_by_name(cameras: Iterable[str]) -> dict[str, int]:
    """The number of every camera, from 0; whole numbers stay as they are, names are sorted.

    Raises:
        ValueError: two names are one number.
    """
    names = set(cameras)
    numbers = _whole_numbers("cameras", names)
    if len(numbers) == len(names) and min(numbers.values(), default=0) >= 0:
        return numbers
    return {name: i for i, name in enumerate(sorted(names, key=_natural_key))}


def _whole_numbers(what: str, names: Iterable[str]) -> dict[str, int]:
    """The values of those names that are whole numbers.

    Raises:
        ValueError: two names have one value.
    """
    numbers = {name: int(name) for name in sorted(names) if _WHOLE_NUMBER.fullmatch(name)}
    first: dict[int, str] = {}
    for name, number in numbers.items():
        if (other := first.setdefault(number, name)) != name:
            raise ValueError(f"{what} '{other}' and '{name}' are one number; write it in one way")
    return numbers


def _natural_key(name: str) -> tuple[bool, int, str]:
    """The order of names: whole numbers by value, then words."""
    is_number = bool(_WHOLE_NUMBER.fullmatch(name))
    return not is_number, int(name) if is_number else 0, name


def parse_test_share(options: Mapping[str, str]) -> float:
    """The share of people to be held out, from the option `test`.

    Raises:
        ValueError: it is no number.
    """
    if "test" not in options:
        return _DEFAULT_TEST_SHARE
    try:
        return float(options["test"])
    except ValueError as error:
        raise ValueError(f"option test={options['test']!r} is no share, such as 0.5") from error


class PartedImages(NamedTuple):
    """Images with splits, and in words how many people too few are held out; empty if none."""

    images: list[ListedImage]
    shortage: str


def assign_splits(
    images: Sequence[ListedImage], *, share: float, protocol: str = ""
) -> PartedImages:
    """The images with splits: a share of the people is for testing, all others for training.

    Who is held out depends on the names of the images alone and looks random. A person can be held
    out who has images from two cameras, or two images where cameras are unknown or do not matter.
    Where few can, about half of them stay for training, which needs to see people by several
    cameras too. Of those held out, from every camera with several images the first by name is a
    query, all others are gallery; if no camera has several, the first image of all is the query.
    So every query can be found.

    Args:
        images: with people from 1; their splits are not looked at.
        share: of the people, within 0 to 1; at least two are held out, or every answer would be
            right, and one is not. 0 holds out nobody.
        protocol: how queries will be judged; by camera-free their cameras do not matter.

    Raises:
        ValueError: the share is not within 0 to 1, or fewer than two people can be held out.
    """
    if not 0 <= share < 1:
        raise ValueError(f"a share of {share} cannot be held out for testing; 0 to below 1 can")
    people: dict[int, list[ListedImage]] = defaultdict(list)
    for image in sorted(images, key=lambda image: image.name):
        people[image.pid or 0].append(image)
    wanted = min(max(_LEAST_HELD_OUT, round(share * len(people))), len(people) - 1) if share else 0
    held = _pick_test_pids(people, share, wanted, protocol) if share else set()
    queries = {image.name for pid in held for image in _pick_queries(people[pid])}
    parted = [
        replace(image, split=_test_split(image, queries) if image.pid in held else "train")
        for image in images
    ]
    return PartedImages(parted, _shortage(people, len(held), wanted, protocol))


def _test_split(image: ListedImage, queries: set[str]) -> str:
    return "query" if image.name in queries else "gallery"


def _pick_test_pids(
    people: Mapping[int, Sequence[ListedImage]], share: float, wanted: int, protocol: str
) -> set[int]:
    """The people to be held out: those whose first image has the lowest hash."""
    able = [pid for pid, images in people.items() if _is_findable(images, protocol)]
    if len(able) < _LEAST_HELD_OUT or len(people) <= _LEAST_HELD_OUT:
        raise ValueError(
            f"{len(able)} of {len(people)} people can be held out for testing: that takes at least "
            f"{_LEAST_HELD_OUT} with two images each, from two cameras where cameras are known, "
            "and a third to train on; hold out nobody with test=0"
        )
    able.sort(key=lambda pid: hashlib.sha256(people[pid][0].name.encode()).digest())
    most = max(len(able) // 2, min(round(share * len(able)), len(able) - 1), _LEAST_HELD_OUT)
    return set(able[: min(wanted, most)])


def _is_findable(images: Sequence[ListedImage], protocol: str) -> bool:
    by_camera = protocol != CAMERA_FREE
    return len({i.camid if by_camera and i.camid is not None else i.name for i in images}) > 1


def _shortage(
    people: Mapping[int, Sequence[ListedImage]], held: int, wanted: int, protocol: str
) -> str:
    """In words that fewer people are held out than wanted; empty if that is not so."""
    if held >= wanted:
        return ""
    able = sum(_is_findable(images, protocol) for images in people.values())
    has_cameras = any(images[0].camid is not None for images in people.values())
    how = "seen by two cameras" if has_cameras and protocol != CAMERA_FREE else "on two images"
    return (
        f"{held} of {wanted} wanted people are held out for testing: of {len(people):,} people "
        f"{able:,} are {how}" + (", and training keeps some of them" if held < able else "")
    )


def _pick_queries(images: Sequence[ListedImage]) -> list[ListedImage]:
    """Which images of a person ask; they are sorted by name."""
    if images[0].camid is None:
        return [images[0]]
    cameras: dict[int | None, list[ListedImage]] = defaultdict(list)
    for image in images:
        cameras[image.camid].append(image)
    several = [found[0] for found in cameras.values() if len(found) > 1]
    return several or [images[0]]
