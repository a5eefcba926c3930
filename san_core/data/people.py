"""People and cameras by any name, numbered.

Numbers are kept where a data set numbers its people from 1 in the way of `records`. Other names and
numbers are numbered from 1 in sorted order.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from san_core.data import crops, held_out
from san_core.data.records import (
    CAMERA_FREE,
    DISTRACTOR,
    FACTS,
    JUNK,
    ListedImage,
    Listing,
    Problem,
    ProblemsError,
)

# The options of your own data sets: the test split and the protocol.
OWN_OPTIONS = {
    **held_out.OPTIONS,
    **crops.OPTIONS,
    CAMERA_FREE: "queries search the whole gallery; cameras are ignored",
}

_WHOLE_NUMBER = re.compile(r"-?\d{1,9}")


class NamedImage(NamedTuple):
    """An image whose person and camera are still names; split "" means not yet decided.

    `size` gives rows and columns without the work of `read`, where there is such a way.
    """

    name: str
    person: str
    camera: str | None
    split: str
    read: Callable[[], bytes]
    facts: Mapping[str, str] = {}
    size: Callable[[], tuple[int, int]] | None = None


def is_junk(person: str) -> bool:
    """Whether a name means junk: -1 in any spelling."""
    return bool(_WHOLE_NUMBER.fullmatch(person)) and int(person) == JUNK


def make_listing(
    images: Sequence[NamedImage],
    problems: list[Problem],
    options: Mapping[str, str],
    *,
    has_splits: bool,
) -> Listing:
    """The listing of images and problems; without splits, people are held out for testing.

    options: keys of OWN_OPTIONS.

    Raises:
        OSError: the table of an option cannot be read.
        ValueError: as in `number_people_and_cameras` and `held_out.assign_splits`, with the
            problems in the line; or an option is wrong.
    """
    protocol = CAMERA_FREE if CAMERA_FREE in options else ""
    wanted = None if has_splits else held_out.parse_options(options)
    try:
        images, warnings = crops.leave_out_useless(images, options)
        found = number_people_and_cameras(images)
        if wanted is None:
            return Listing(found, problems, {}, protocol, warnings)
        parted = held_out.assign_splits(found, wanted, protocol=protocol)
        return Listing(parted.images, problems, {}, protocol, [*warnings, *parted.warnings])
    except ValueError as error:
        if not problems:
            raise
        raise ValueError(f"{error}; and there are problems: {ProblemsError(problems)}") from error


def number_people_and_cameras(images: Sequence[NamedImage]) -> list[ListedImage]:
    """The images with numbers for their people and cameras, in the order given.

    Where people are numbered anew, the field `person` keeps their names; likewise `camera`.

    Raises:
        ValueError: only some images have a camera, or names are ambiguous.
    """
    nameless = [image.name for image in images if image.camera is None]
    if nameless and len(nameless) < len(images):
        raise ValueError(
            f"{nameless[0]} has no camera, like {len(nameless):,} of {len(images):,} images; "
            "every image must have one, or none"
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
            {kind: getattr(image, kind) for kind in renamed}
            | ({FACTS: dict(image.facts)} if image.facts else {}),
        )
        for image in images
    ]


def _differ(numbers: Mapping[str, int]) -> bool:
    """Whether the numbers differ from the names."""
    return any(not _WHOLE_NUMBER.fullmatch(name) or int(name) != n for name, n in numbers.items())


def pids_by_name(people: Iterable[tuple[str, str]]) -> dict[str, int]:
    """The number of every person, from (name, split) of every image.

    Names 0 and -1 that only a gallery has are distractors and junk. All others keep their numbers
    if they are whole numbers from 1, no two the same; otherwise
    they are numbered from 1 in order: whole numbers by value, then words.

    Raises:
        ValueError: two names are the same number, or 0 is in a gallery and a person elsewhere. If
            there are queries of 0, it is a person in the gallery too.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for name, split in people:
        splits[name].add(split)
    numbers = {name: int(name) for name in splits if _WHOLE_NUMBER.fullmatch(name)}
    zeros = set().union(*(splits[name] for name, n in numbers.items() if n == DISTRACTOR))
    if "gallery" in zeros and (others := zeros - {"query", "gallery"}):
        raise ValueError(
            f"pid 0 is in {min(others)} and in gallery: it would be an identity in one and "
            "distractors in the other; rename one of them"
        )
    nobody = {
        name: number
        for name, number in numbers.items()
        if (number == DISTRACTOR and zeros == {"gallery"})
        or (number == JUNK and splits[name] == {"gallery"})
    }
    numbers = _whole_numbers("identities", splits.keys() - nobody.keys())
    named = sorted(splits.keys() - nobody.keys(), key=_natural_key)
    kept = [numbers[name] for name in named if name in numbers]
    if len(kept) == len(named) and min(kept, default=1) >= 1:
        return nobody | dict(zip(named, kept, strict=True))
    return nobody | {name: number for number, name in enumerate(named, 1)}


def camids_by_name(cameras: Iterable[str]) -> dict[str, int]:
    """The number of every camera, from 0; whole numbers stay as they are, names are sorted.

    Raises:
        ValueError: two names are the same number.
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
            raise ValueError(f"{what} '{other}' and '{name}' are the same number; write it one way")
    return numbers


def _natural_key(name: str) -> tuple[bool, int, str]:
    """The order of names: whole numbers by value, then words."""
    is_number = bool(_WHOLE_NUMBER.fullmatch(name))
    return not is_number, int(name) if is_number else 0, name
