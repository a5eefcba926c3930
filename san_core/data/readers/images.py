"""Photographs nobody has labelled: a folder of person images, for textures and nothing else."""

from collections.abc import Mapping
from functools import partial
from pathlib import PurePosixPath

from san_core.data.records import ListedImage, Listing
from san_core.data.tree import IMAGE_SUFFIXES, Tree


def listing(tree: Tree, options: Mapping[str, str]) -> Listing:  # noqa: ARG001
    """Every JPEG and PNG in a folder and its folders, by name; split `images`, no pid, no camid.

    Files with other endings are passed over.

    Raises:
        ValueError: it holds no image, or two whose textures would have one name.
    """
    names = [name for name in tree.walk() if name.lower().endswith(IMAGE_SUFFIXES)]
    if not names:
        raise ValueError(f"{tree.place} holds no image; they end in {', '.join(IMAGE_SUFFIXES)}")
    named: dict[PurePosixPath, str] = {}
    for name in names:
        twin = named.setdefault(PurePosixPath(name).with_suffix(""), name)
        if twin != name:
            raise ValueError(
                f"{tree.place}/{twin} and {tree.place}/{name} differ in nothing but their endings"
            )
    return Listing([ListedImage(n, None, None, "images", partial(tree.read, n)) for n in names], [])
