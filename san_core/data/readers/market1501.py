"""Market-1501 in its published layout (Zheng et al., "Scalable Person Re-identification", 2015).

    Market-1501-v15.09.15/bounding_box_train/0002_c1s1_000451_03.jpg
                          query/0001_c1s1_001051_00.jpg
                          bounding_box_test/0000_c1s1_000151_01.jpg and -1_c1s1_000401_03.jpg
                          gt_bbox/0001_c1s1_001051_00.jpg      only with option multi
                          images/0000_c1s1_000001_00.jpg       only with option 500k

A name holds the person (0000: distractor, -1: junk), the camera 1-6, the sequence, the frame and
the number of the box. As published: 12,936 training images of 751 people, 3,368 queries of 750
people, and a gallery of 19,732 images, 2,793 distractors and 3,819 junk boxes among them.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial

from san_core.data.records import DISTRACTOR, JUNK, ListedImage, Listing, Problem, PublishedCounts
from san_core.data.tree import Tree

RELEASE = "Market-1501-v15.09.15"
SPLIT_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
BOXES_FOLDER = "gt_bbox"
DISTRACTOR_FOLDERS = (
    "images",
    "distractors_500k/images",
    "distractors_500k",
)  # what the .zip unpacks to
CAMERAS = 6
PUBLISHED = {
    "train": PublishedCounts(751, 12_936),
    "query": PublishedCounts(750, 3_368),
    "gallery": PublishedCounts(750, 19_732),
}
OPTIONS = {
    "multi": "the hand-drawn boxes of gt_bbox that multi-query pools with the queries",
    "500k": "the 500,000 distractors of distractors_500k.zip, unpacked in the release, or "
    "beside it if the folder around both is given",
}

_NAME = re.compile(r"(?P<pid>-1|\d{4})_c(?P<camera>\d{1,9})s\d+_\d+_\d+\.jpg")
_DISTRACTOR = re.compile(r"(?P<pid>-1|0000)_c(?P<camera>\d{1,9})\w*\.jpg")


def listing(tree: Tree, options: Mapping[str, str]) -> Listing:
    """Every image of Market-1501, train, query, then gallery, each sorted by file name.

    The gallery keeps distractors (pid 0) and junk (pid -1), which the ranking handles. Boxes with
    these numbers in the training folder are left out. Option `multi` adds, as split multi, the
    boxes of gt_bbox with the person and camera of a query, except the queries themselves. Option
    `500k` adds distractors to the gallery.

    Args:
        tree: the release's folder, or the one that holds it.
        options: keys of OPTIONS.

    Raises:
        FileNotFoundError: one of the folders is not there.
        ValueError: a folder has no image.
    """
    root = _find_root(tree)
    problems: list[Problem] = []
    images = [image for split in SPLIT_FOLDERS for image in _split_images(root, split, problems)]
    if "multi" in options:
        images += _multi_query_images(root, images, problems)
    published = dict(PUBLISHED)
    if "500k" in options:
        images += _distractor_images(root, tree, problems)
        del published["gallery"]
    return Listing(images, problems, published, "market1501")


def _find_root(tree: Tree) -> Tree:
    """The folder of the release: the tree's folder, or the one folder in it that is a release."""
    inner = [tree.subtree(name) for name in tree.entries().folders]
    found = [root for root in (tree, *inner) if not _missing_folders(root)]
    if found:
        return found[0]
    looked = next((root for root in inner if root.place.endswith(f"/{RELEASE}")), tree)
    raise FileNotFoundError(
        f"{looked.place} is not Market-1501: no {', '.join(_missing_folders(looked))} in it; "
        f"it holds {looked.describe_entries()}. Give the folder {RELEASE} or the one around it"
    )


def _missing_folders(root: Tree) -> list[str]:
    return [name for name in SPLIT_FOLDERS.values() if not root.is_folder(name)]


def _file_names(root: Tree, folder: str) -> list[str]:
    """The names of what a folder holds.

    Raises:
        ValueError: the folder is empty.
    """
    files, folders = root.entries(folder)
    names = sorted([*files, *folders])
    if not names:
        raise ValueError(
            f"{root.place}/{folder} has no image; names look like 0002_c1s1_000451_03.jpg"
        )
    return names


def _split_images(root: Tree, split: str, problems: list[Problem]) -> Iterator[ListedImage]:
    folder = SPLIT_FOLDERS[split]
    names = _file_names(root, folder)
    _check_named_so(root, folder, names)
    for bare in names:
        name = f"{folder}/{bare}"
        found = _parse_labels(name, _NAME, problems, split=split)
        if found is None:
            continue
        pid, camid = found
        if split == "query" and pid < 1:
            detail = f"a query must show an identity, and pid {pid} is not one"
            problems.append(Problem("unknown name", name, detail, split))
        elif split != "train" or pid >= 1:
            yield ListedImage(name, pid, camid, split, partial(root.read, name))


def _check_named_so(root: Tree, folder: str, names: list[str]) -> None:
    """Check that most names of a folder are Market-1501's; single others are problems.

    Raises:
        ValueError: they are not: this is another data set.
    """
    foreign = [name for name in names if not _NAME.fullmatch(name)]
    if len(foreign) > len(names) // 2:
        raise ValueError(
            f"{root.place}/{folder} is not Market-1501's: {len(foreign):,} of {len(names):,} "
            f"names do not look like 0002_c1s1_000451_03.jpg, such as {foreign[0]}; for your own "
            "images use folders (a folder for each identity), csv (a table) or file_names (names "
            "of your own pattern)"
        )


def _multi_query_images(
    root: Tree, images: list[ListedImage], problems: list[Problem]
) -> Iterator[ListedImage]:
    """The boxes that multi-query pools with the queries."""
    if not root.is_folder(BOXES_FOLDER):
        raise FileNotFoundError(f"{root.place} has no {BOXES_FOLDER}, which option multi needs")
    queries = [image for image in images if image.split == "query"]
    asked = {(image.pid, image.camid) for image in queries}
    known = {image.name.rpartition("/")[2] for image in queries}
    for bare in _file_names(root, BOXES_FOLDER):
        name = f"{BOXES_FOLDER}/{bare}"
        found = _parse_labels(name, _NAME, problems, split="multi")
        if found in asked and bare not in known:
            yield ListedImage(name, *found, "multi", partial(root.read, name))


def _distractor_images(root: Tree, tree: Tree, problems: list[Problem]) -> Iterator[ListedImage]:
    """The large set of distractors, wherever it was unpacked."""
    places = [(place, folder) for place in (root, tree) for folder in DISTRACTOR_FOLDERS]
    held = [(place, folder) for place, folder in places if place.is_folder(folder)]
    if not held:
        raise FileNotFoundError(
            f"{root.place} has no distractors, which option 500k needs: none of "
            f"{', '.join(DISTRACTOR_FOLDERS)} is there"
        )
    place, folder = held[0]
    for bare in _file_names(place, folder):
        found = _parse_labels(f"{folder}/{bare}", _DISTRACTOR, problems, split="gallery")
        if found is not None:
            read = partial(place.read, f"{folder}/{bare}")
            yield ListedImage(f"images/{bare}", *found, "gallery", read)


def _parse_labels(
    name: str, pattern: re.Pattern[str], problems: list[Problem], *, split: str
) -> tuple[int, int] | None:
    """Person and camera of a name; None, and a problem, if the name has none."""
    found = pattern.fullmatch(name.rpartition("/")[2])
    if found is None:
        problems.append(
            Problem("unknown name", name, "does not look like 0002_c1s1_000451_03.jpg", split)
        )
        return None
    camera = int(found["camera"])
    if not 1 <= camera <= CAMERAS:
        detail = f"camera {camera}; cameras are 1 to {CAMERAS}"
        problems.append(Problem("unknown name", name, detail, split))
        return None
    pid = int(found["pid"])
    return JUNK if pid < DISTRACTOR else pid, camera - 1
