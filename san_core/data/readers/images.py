"""Unlabelled photographs: a folder of person images, only for making textures."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import PurePosixPath

from san_core.data.records import ListedImage, Listing
from san_core.data.tree import Tree
from san_core.images.pixels import IMAGE_SUFFIXES


def listing(tree: Tree, options: Mapping[str, str]) -> Listing:  # noqa: ARG001
    """Every image in a folder and its folders, by name: split `images`, no pid, no camid.

    Files with other endings are skipped and counted.

    Raises:
        ValueError: it holds no image.
    """
    names, others = [], Counter[str]()
    for name in tree.walk():
        if name.lower().endswith(IMAGE_SUFFIXES):
            names.append(name)
        else:
            others[PurePosixPath(name).suffix.lower() or "without an ending"] += 1
    if not names:
        raise ValueError(f"{tree.place} holds no image; images end in {', '.join(IMAGE_SUFFIXES)}")
    images = [ListedImage(n, None, None, "images", partial(tree.read, n)) for n in names]
    return Listing(images, [], warnings=[_passed_over(others)] if others else [])


def _passed_over(others: Counter[str]) -> str:
    """A line that counts the files with other endings, by ending."""
    kinds = ", ".join(f"{count:,} {ending}" for ending, count in sorted(others.items()))
    return f"skipped files, by their endings: {kinds}"
