"""Partial-REID and Partial-iLIDS: partial images of people as queries, whole ones as gallery.

    Partial_REID/partial_body_images/001_001.jpg      query (occluded_body_images: other queries)
                 whole_body_images/001_001.jpg        gallery       (Zheng et al., ICCV 2015)
    Partial_iLIDS/Probe/1.jpg                         query
                  Gallery/1.jpg                       gallery       (Zheng et al., CVPR 2011)

A name begins with the number of the person. There are no cameras and no training images: the set is
a target for a network trained on another set. As published: 300 partial and 300 whole images of 60
people, and one of each of 119 people.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

from san_core.data.people import NamedImage, number_people_and_cameras
from san_core.data.records import Listing, Problem, PublishedCounts
from san_core.data.tree import Tree
from san_core.images.pixels import IMAGE_SUFFIXES


class _Layout(NamedTuple):
    query: str
    gallery: str
    published: Mapping[str, PublishedCounts]


_PARTIAL_REID = {"query": PublishedCounts(60, 300), "gallery": PublishedCounts(60, 300)}
_PARTIAL_ILIDS = {"query": PublishedCounts(119, 119), "gallery": PublishedCounts(119, 119)}
LAYOUTS = (
    _Layout("partial_body_images", "whole_body_images", _PARTIAL_REID),
    _Layout("Probe", "Gallery", _PARTIAL_ILIDS),
    _Layout("query", "gallery", _PARTIAL_ILIDS),
)
OCCLUDED_LAYOUT = _Layout("occluded_body_images", "whole_body_images", _PARTIAL_REID)
OPTIONS = {"occluded": "occluded_body_images as the queries, instead of partial_body_images"}

_NAME = re.compile(r"(?P<pid>\d{1,9})(?:_\w*)?\.\w+")


def listing(tree: Tree, options: Mapping[str, str]) -> Listing:
    """Every partial image as query, every whole one as gallery; no camids.

    Args:
        tree: the folder of either set, or the one that holds it.
        options: keys of OPTIONS.

    Raises:
        FileNotFoundError: its two folders are not there.
        ValueError: one of them has no image.
    """
    layouts = (OCCLUDED_LAYOUT,) if "occluded" in options else LAYOUTS
    root, layout = _find_root(tree, layouts)
    problems: list[Problem] = []
    found = [
        image
        for split, folder in (("query", layout.query), ("gallery", layout.gallery))
        for image in _split_images(root, folder, split, problems)
    ]
    return Listing(number_people_and_cameras(found), problems, layout.published, "camera-free")


def _find_root(tree: Tree, layouts: tuple[_Layout, ...]) -> tuple[Tree, _Layout]:
    for root in (tree, *(tree.subtree(name) for name in tree.entries().folders)):
        for layout in layouts:
            if root.is_folder(layout.query) and root.is_folder(layout.gallery):
                return root, layout
    wanted = " or ".join(f"{layout.query} and {layout.gallery}" for layout in layouts)
    raise FileNotFoundError(
        f"{tree.place} is not a set of partial images: neither it nor a folder in it holds {wanted}"
    )


def _split_images(
    root: Tree, folder: str, split: str, problems: list[Problem]
) -> Iterator[NamedImage]:
    files, folders = root.entries(folder)
    names = sorted([*files, *folders])
    if not names:
        raise ValueError(f"{root.place}/{folder} has no image; names look like 001_001.jpg")
    for bare in names:
        name, found = f"{folder}/{bare}", _NAME.fullmatch(bare)
        if found is None or not bare.lower().endswith(IMAGE_SUFFIXES):
            problems.append(Problem("unknown name", name, "does not look like 001_001.jpg"))
        else:
            yield NamedImage(name, str(int(found["pid"])), None, split, partial(root.read, name))
