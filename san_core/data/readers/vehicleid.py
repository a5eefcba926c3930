"""VehicleID in its published layout (Liu et al., "Deep Relative Distance Learning", CVPR 2016).

    image/0000001.jpg
    train_test_split/train_list.txt, test_list_800.txt, test_list_1600.txt, ...

A line of a list holds the name of an image, without its ending, and the number of its vehicle.
Cameras are unknown. Of every vehicle of a test list one image is the gallery and all others are
queries. The authors draw that image at random; here a hash of the image names chooses it, so that
scores are comparable.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial

from san_core.data.names import place_of_name
from san_core.data.people import NamedImage, make_listing
from san_core.data.records import Listing, Problem
from san_core.data.tree import Tree

LISTS_FOLDER = "train_test_split"
TRAINING_LIST = f"{LISTS_FOLDER}/train_list.txt"
OPTIONS = {"size": "size=NUMBER: the vehicles of the test list, 800 unless given, 1600 or 2400"}

_LINE = re.compile(r"(?P<image>\S+)\s+(?P<vehicle>\d{1,9})")


def listing(tree: Tree, options: Mapping[str, str]) -> Listing:
    """Every image of the training list and of one test list.

    Args:
        tree: the release's folder, or the one that holds it.
        options: keys of OPTIONS.

    Raises:
        FileNotFoundError: the folder of lists, or a list, is not there.
        ValueError: no image of a list can be used.
    """
    roots = (tree, *(tree.subtree(name) for name in tree.entries().folders))
    root = next((one for one in roots if one.is_folder(LISTS_FOLDER)), None)
    if root is None:
        raise FileNotFoundError(
            f"{tree.place} is not VehicleID: no {LISTS_FOLDER} in it; it holds "
            f"{tree.describe_entries()}"
        )
    problems: list[Problem] = []
    tested = f"{LISTS_FOLDER}/test_list_{options.get('size', '800')}.txt"
    learned = list(_images_of_list(root, TRAINING_LIST, "train", problems))
    shown = list(_images_of_list(root, tested, "query", problems))
    return make_listing([*learned, *_with_gallery(shown)], problems, {}, has_splits=True)


def _images_of_list(
    root: Tree, name: str, split: str, problems: list[Problem]
) -> Iterator[NamedImage]:
    """The images of a list."""
    if not root.is_file(name):
        found = root.describe_entries(LISTS_FOLDER)
        raise FileNotFoundError(f"{root.place} has no {name}; {LISTS_FOLDER} holds {found}")
    taken = 0
    for number, line in enumerate(root.read(name).decode("utf-8", "replace").splitlines(), 1):
        place = f"{name} line {number}"
        if (told := _LINE.fullmatch(line.strip())) is None:
            if line.strip():
                detail = "not an image name and a number"
                problems.append(Problem("wrong row", place, detail, split))
            continue
        image = f"image/{told['image']}.jpg"
        if not root.is_file(image):
            problems.append(Problem("missing image", image, place, split))
            continue
        taken += 1
        yield NamedImage(image, told["vehicle"], None, split, partial(root.read, image))
    if not taken:
        raise ValueError(f"{root.place}/{name}: none of its images can be used")


def _with_gallery(images: list[NamedImage]) -> list[NamedImage]:
    """The images; for each vehicle the image with the lowest name hash is the gallery."""
    lowest: dict[str, NamedImage] = {}
    for image in sorted(images, key=lambda one: (place_of_name(one.name, "gallery"), one.name)):
        lowest.setdefault(image.person, image)
    gallery = {image.name for image in lowest.values()}
    return [one._replace(split="gallery") if one.name in gallery else one for one in images]
