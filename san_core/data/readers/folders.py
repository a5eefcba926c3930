"""Your own images in folders, one for every identity.

    alice/0001.jpg                  people are held out for testing
    alice/entrance/0001.jpg         the same, with cameras
    train/alice/0001.jpg            splits are yours: train, val, query, gallery, multi
    query/bob/entrance/0001.jpg     the same, with cameras

Either every image has a camera or none. In a gallery, folders named 0 and -1 hold distractors and
junk, as in Market-1501. An archive may hold all of it in one folder, of any name.
"""

from collections.abc import Iterator, Mapping
from functools import partial

from san_core.data.people import OWN_OPTIONS, NamedImage, is_junk, make_listing
from san_core.data.records import Listing, Problem
from san_core.data.tree import Tree
from san_core.images.pixels import IMAGE_SUFFIXES

SPLITS = ("train", "val", "query", "gallery", "multi")
OPTIONS = OWN_OPTIONS


def listing(tree: Tree, options: Mapping[str, str]) -> Listing:
    """Every image, person by person; where there are no folders of splits, people are held out.

    Args:
        tree: the folder that holds people or splits.
        options: keys of OPTIONS.

    Raises:
        ValueError: there is no image, or some images have a camera and some do not, or there are
            folders of splits and people are to be held out, or names are ambiguous.
    """
    tree = tree if _split_folders(tree) else tree.unwrap_archive()
    files, folders = tree.entries()
    splits = _split_folders(tree)
    problems = [Problem("unknown name", name, "in no folder of a person") for name in files]
    if splits:
        if "test" in options:
            raise ValueError(f"{tree.place} has splits of its own; option test has no use for it")
        others = [name for name in folders if name not in splits]
        problems += [Problem("unknown name", name, "a folder beside the splits") for name in others]
    found = [
        image for split in splits or [""] for image in _images_of_people(tree, split, problems)
    ]
    if not found:
        raise ValueError(
            f"{tree.place} has no image in folders of people; they look like alice/0001.jpg"
        )
    return make_listing(found, problems, options, has_splits=bool(splits))


def _split_folders(tree: Tree) -> list[str]:
    """The folders of splits."""
    return [split for split in SPLITS if tree.is_folder(split)]


def _images_of_people(tree: Tree, split: str, problems: list[Problem]) -> Iterator[NamedImage]:
    """The images of the people in a folder."""
    files, people = tree.entries(split)
    start = f"{split}/" if split else ""
    if split:
        detail = "in no folder of a person"
        problems += [Problem("unknown name", start + n, detail, split) for n in files]
    for person in people:
        home = start + person
        if is_junk(person) and split != "gallery":
            detail = "junk, which only a gallery may hold"
            problems.append(Problem("unknown name", home, detail, split))
            continue
        shown, cameras = tree.entries(home)
        images = list(_image_names(tree, home, shown, problems, split=split))
        found = [NamedImage(n, person, None, split, partial(tree.read, n)) for n in images]
        for camera in cameras:
            names, deeper = tree.entries(f"{home}/{camera}")
            place, inside = f"{home}/{camera}", names + deeper
            images = list(_image_names(tree, place, inside, problems, split=split))
            found += [NamedImage(n, person, camera, split, partial(tree.read, n)) for n in images]
        if not found:
            problems.append(Problem("empty identity", home, "no image in it", split))
        yield from found


def _image_names(
    tree: Tree, folder: str, names: list[str], problems: list[Problem], *, split: str
) -> Iterator[str]:
    """The names of the images among what lies in a folder."""
    for name in (f"{folder}/{bare}" for bare in names):
        if name.lower().endswith(IMAGE_SUFFIXES) and tree.is_file(name):
            yield name
        else:
            detail = f"images end in {', '.join(IMAGE_SUFFIXES)}"
            problems.append(Problem("unknown name", name, detail, split))
