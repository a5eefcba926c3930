"""Your own images in folders, one for every identity.

    alice/0001.jpg                  people are held out for testing
    alice/entrance/0001.jpg         the same, with cameras
    train/alice/0001.jpg            splits are yours: train, val, query, gallery, multi
    query/bob/entrance/0001.jpg     the same, with cameras

With option `camera-first` cameras are above people, `entrance/alice/0001.jpg`. With `tracklets`
every image is in the folder of its track, the lowest folder: `alice/track7/0001.jpg`.

Either every image has a camera or none. In a gallery, folders named 0 and -1 hold distractors and
junk, as in Market-1501. An archive may hold all of it in one folder, of any name.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from san_core.data.held_out import check_no_splits
from san_core.data.people import OWN_OPTIONS, NamedImage, is_junk, make_listing
from san_core.data.records import Listing, Problem, ProblemsError
from san_core.data.tree import Tree
from san_core.images.pixels import IMAGE_SUFFIXES

SPLITS = ("train", "val", "query", "gallery", "multi")
CAMERA_FIRST = "camera-first"
TRACKLETS = "tracklets"
OPTIONS = OWN_OPTIONS | {
    CAMERA_FIRST: "cameras are the upper folders, identities the lower: entrance/alice/0001.jpg",
    TRACKLETS: "the lowest folders are tracks of one identity: alice/track7/0001.jpg",
}
# Folders with these names, in any spelling, are parts of a data set and not people.
_NAMES_OF_PARTS = frozenset(
    {
        *(*SPLITS, "test", "valid", "validation", "probe", "images", "bbox_train", "bbox_test"),
        *("bounding_box_train", "bounding_box_test"),
    }
)
_CAMERA_NAME = re.compile(r"cam(era)?[ _-]?(\d+|[a-z])?", re.IGNORECASE)

# Names of the kinds of folders in problems.
_LEVEL = {"person": "an identity", "camera": "a camera", "tracklet": "a tracklet"}

# The meaning of the folders above an image, from the top, by their number.
Levels = Mapping[int, tuple[str, ...]]


def listing(tree: Tree, options: Mapping[str, str]) -> Listing:
    """Every image, folder by folder; where there are no folders of splits, people are held out.

    Args:
        tree: the folder that holds people, cameras or splits.
        options: keys of OPTIONS.

    Raises:
        ValueError: there is no image; only some images have a camera; there are folders of splits
            although people are to be held out; names are ambiguous; or folders in the place of
            people have names of splits or cameras.
    """
    tree = tree if _split_folders(tree) else tree.unwrap_archive()
    files, folders = tree.entries()
    splits = _split_folders(tree)
    problems = [Problem("unknown name", name, "not in the folder of an identity") for name in files]
    if splits:
        check_no_splits(options, f"{tree.place} has splits of its own")
        others = [name for name in folders if name not in splits]
        problems += [Problem("unknown name", name, "a folder beside the splits") for name in others]
    levels = _levels(options)
    found = [
        image
        for split in splits or [""]
        for image in _images_of_split(tree, split, levels, problems)
    ]
    if not found:
        told = f"; and there are problems: {ProblemsError(problems)}" if problems else ""
        raise ValueError(
            f"{tree.place} has no image in folders of identities; they look like {_example(levels)}"
            + told
        )
    _check_names_of_people(tree, found, options)
    listed = make_listing(found, problems, options, has_splits=bool(splits))
    doubts = [*_doubts_of_cameras(found, options), *_doubts_of_queries(found, options, splits)]
    return listed._replace(warnings=[*listed.warnings, *doubts])


def _levels(options: Mapping[str, str]) -> Levels:
    """The meaning of the folders above images, by the options."""
    ways = (
        [("camera", "person")] if CAMERA_FIRST in options else [("person",), ("person", "camera")]
    )
    if TRACKLETS in options:
        ways = [(*way, "tracklet") for way in ways]
    return {len(way): way for way in ways}


def _example(levels: Levels) -> str:
    """The shortest name that an image may have."""
    words = {"person": "alice", "camera": "entrance", "tracklet": "track7"}
    return "/".join([*(words[level] for level in levels[min(levels)]), "0001.jpg"])


def _split_folders(tree: Tree) -> list[str]:
    """The folders of splits."""
    return [split for split in SPLITS if tree.is_folder(split)]


def _images_of_split(
    tree: Tree, split: str, levels: Levels, problems: list[Problem]
) -> Iterator[NamedImage]:
    """The images of the people in a folder."""
    files, folders = tree.entries(split)
    start = f"{split}/" if split else ""
    if split:
        detail = "not in the folder of an identity"
        problems += [Problem("unknown name", start + n, detail, split) for n in files]
    for name in folders:
        _check_name_of_part(tree, start + name, name)
        yield from _images_of_folder(tree, split, (name,), levels, problems)


def _check_name_of_part(tree: Tree, path: str, name: str) -> None:
    """Raise ValueError if an uppermost folder is named like a split but is not one."""
    if name.lower() in _NAMES_OF_PARTS:
        raise ValueError(
            f"{tree.place}/{path} would be read as an identity or a camera, but is named like a "
            f"split. Folders of splits are named {', '.join(SPLITS)} and hold identities"
        )


def _images_of_folder(
    tree: Tree, split: str, above: tuple[str, ...], levels: Levels, problems: list[Problem]
) -> Iterator[NamedImage]:
    """The images of a split in the folder `above` and in its folders."""
    home = "/".join((split, *above) if split else above)
    is_person = levels[min(levels)].index("person") == len(above) - 1
    if is_person and is_junk(above[-1]) and split != "gallery":
        detail = "junk, which only a gallery may hold"
        problems.append(Problem("unknown name", home, detail, split))
        return
    files, folders = tree.entries(home)
    deeper = folders if len(above) < max(levels) else []
    found = []
    if len(above) in levels:
        named = dict(zip(levels[len(above)], above, strict=True))
        inside = [*files, *(name for name in folders if name not in deeper)]
        for name in _image_names(tree, home, inside, problems, split=split):
            read = partial(tree.read, name)
            found.append(NamedImage(name, named["person"], named.get("camera"), split, read))
    else:
        detail = f"not in the folder of {_LEVEL[levels[min(levels)][len(above)]]}"
        problems += [Problem("unknown name", f"{home}/{n}", detail, split) for n in files]
    for name in deeper:
        found += _images_of_folder(tree, split, (*above, name), levels, problems)
    if is_person and not found:
        problems.append(Problem("empty identity", home, "no image in it", split))
    yield from found


def _image_names(
    tree: Tree, folder: str, names: list[str], problems: list[Problem], *, split: str
) -> Iterator[str]:
    """The names of the images among what lies in a folder."""
    for name in (f"{folder}/{bare}" for bare in names):
        is_named = name.lower().endswith(IMAGE_SUFFIXES)
        if is_named and tree.is_file(name):
            yield name
        else:
            detail = "no file" if is_named else f"images end in {', '.join(IMAGE_SUFFIXES)}"
            problems.append(Problem("unknown name", name, detail, split))


def _check_names_of_people(
    tree: Tree, images: Sequence[NamedImage], options: Mapping[str, str]
) -> None:
    """Raise ValueError if all people are named like cameras."""
    people = sorted({image.person for image in images})
    if all(map(_CAMERA_NAME.fullmatch, people)):
        other = "folders" if CAMERA_FIRST in options else f"folders:{CAMERA_FIRST}"
        above = (
            "identities above cameras" if CAMERA_FIRST in options else "cameras above identities"
        )
        raise ValueError(
            f"{tree.place}: {', '.join(people[:3])} are where identities are expected, but are "
            f"named like cameras; {other} reads {above}"
        )


def _doubts_of_cameras(images: Sequence[NamedImage], options: Mapping[str, str]) -> list[str]:
    """A warning if the folders read as cameras do not look like cameras; else nothing."""
    people: dict[str, set[str]] = defaultdict(set)
    for image in images:
        if image.camera is not None:
            people[image.camera].add(image.person)
    alone = sorted(camera for camera, seen in people.items() if len(seen) == 1)
    everybody = set().union(*people.values())
    if len(people) <= len(everybody) and 2 * len(alone) <= len(people):
        return []
    ways = [
        f"folders:{TRACKLETS} reads tracks of an identity",
        f"folders:{CAMERA_FIRST} cameras above",
    ]
    if CAMERA_FIRST in options:
        ways[1] = "folders identities above cameras"
    told = f", {len(alone):,} of which saw one identity alone, such as {alone[0]}" if alone else ""
    return [
        f"are these folders cameras? There are {len(people):,} for {len(everybody):,}"
        f" identities{told}; {', and '.join(ways)}"
    ]


def _doubts_of_queries(
    images: Sequence[NamedImage], options: Mapping[str, str], splits: Sequence[str]
) -> list[str]:
    """A warning if people are held out of tracks without known cameras; else nothing."""
    if TRACKLETS not in options or splits or images[0].camera is not None:
        return []
    return [
        "tracks without cameras: a query finds frames of its own track in the gallery, so scores "
        "on held-out identities are too high; give splits or cameras"
    ]
