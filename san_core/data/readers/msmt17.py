"""MSMT17 in its published layouts (Wei et al., "Person Transfer GAN", CVPR 2018).

    MSMT17_V1/train/0000/0000_000_01_0303morning_0015_0.jpg, test/...
    MSMT17_V2/mask_train_v2/..., mask_test_v2/...              the same, with faces blurred
              list_train.txt, list_val.txt, list_query.txt, list_gallery.txt

A line of a list holds the path of an image, below the folder of its part, and the number of its
person, counted from 0 in each part; the parts have different people. The third number of a name is
the camera, 1 to 15. As published: 32,621 training images of 1,041 people (list_train and list_val),
11,659 queries and a gallery of 82,161 images of 3,060 people.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial

from san_core.data.records import ListedImage, Listing, Problem, PublishedCounts
from san_core.data.tree import Tree

VERSION_FOLDERS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))
CAMERAS = 15
LISTS = {"train": ("train", "val"), "query": ("query",), "gallery": ("gallery",)}
LISTS_WITH_VAL = {
    "train": ("train",),
    "val": ("val",),
    "query": ("query",),
    "gallery": ("gallery",),
}
PUBLISHED = {
    "train": PublishedCounts(1_041, 32_621),
    "query": PublishedCounts(3_060, 11_659),
    "gallery": PublishedCounts(3_060, 82_161),
}
OPTIONS = {"val": "list_val.txt becomes the split val instead of a part of train"}

_LINE = re.compile(r"(?P<path>\S+)\s+(?P<pid>\d{1,9})")
_NAME = re.compile(r"\d+_\d+_(?P<camera>\d{1,9})_\w+\.jpg")


def listing(tree: Tree, options: Mapping[str, str]) -> Listing:
    """Every image of MSMT17 in the order of its lists; people of the test part are numbered last.

    Args:
        tree: the release's folder, or the one that holds it.
        options: keys of OPTIONS.

    Raises:
        FileNotFoundError: the folders or a list are not there.
        ValueError: a list is not text, or holds no image.
    """
    root, train, test = _find_root(tree)
    lists = LISTS_WITH_VAL if "val" in options else LISTS
    rows = {
        split: [r for n in names for r in _read_list(root, n)] for split, names in lists.items()
    }
    problems: list[Problem] = []
    known: dict[str, str] = {}
    learned = [
        image
        for split in lists
        if split in ("train", "val")
        for image in _split_images(root, train, split, rows[split], problems, known, first=1)
    ]
    first = 1 + max((image.pid or 0 for image in learned), default=0)
    tested = [
        image
        for split in ("query", "gallery")
        for image in _split_images(root, test, split, rows[split], problems, known, first=first)
    ]
    published = {} if "val" in options else PUBLISHED
    return Listing([*learned, *tested], problems, published, "market1501")


def _find_root(tree: Tree) -> tuple[Tree, str, str]:
    """The folder of the release, and those of its two parts."""
    for root in (tree, *(tree.subtree(name) for name in tree.entries().folders)):
        for train, test in VERSION_FOLDERS:
            if root.is_folder(train) and root.is_folder(test) and root.is_file("list_train.txt"):
                return root, train, test
    raise FileNotFoundError(
        f"{tree.place} is not MSMT17: neither it nor a folder in it holds list_train.txt beside "
        "train and test (V1) or mask_train_v2 and mask_test_v2 (V2); it holds "
        f"{_describe_two_levels(tree)}"
    )


def _describe_two_levels(tree: Tree) -> str:
    """The entries of a folder, and those of its only folder, if it has just one."""
    _, folders = tree.entries()
    inner = f", and that holds {tree.describe_entries(folders[0])}" if len(folders) == 1 else ""
    return tree.describe_entries() + inner


def _read_list(root: Tree, part: str) -> list[tuple[str, str]]:
    """The lines of a list, each with its place for error messages."""
    name = f"list_{part}.txt"
    if not root.is_file(name):
        raise FileNotFoundError(f"{root.place} is incomplete: it has no {name}")
    try:
        lines = root.read(name).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{root.place}/{name} is not text: {error}") from error
    rows = [(f"{name} line {i}", line) for i, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise ValueError(f"{root.place}/{name} lists no image")
    return rows


def _split_images(
    root: Tree,
    folder: str,
    split: str,
    rows: list[tuple[str, str]],
    problems: list[Problem],
    known: dict[str, str],
    *,
    first: int,
) -> Iterator[ListedImage]:
    """The images of a split; `first` is the number that its person 0 has in the whole set.

    `known` has the line of every image so far; it is extended.
    """
    taken = 0
    for place, line in rows:
        found = _LINE.fullmatch(line.strip())
        if found is None:
            problems.append(Problem("wrong row", place, "not a path and a number", split))
            continue
        name = f"{folder}/{found['path']}"
        labels = _NAME.fullmatch(name.rpartition("/")[2])
        if labels is None or not 1 <= int(labels["camera"]) <= CAMERAS:
            detail = f"{place}; no camera 1 to {CAMERAS}"
            problems.append(Problem("unknown name", name, detail, split))
        elif not root.is_file(name):
            problems.append(Problem("missing image", name, place, split))
        elif name in known:
            detail = f"{name} is in {known[name]} too"
            problems.append(Problem("wrong row", place, detail, split))
        else:
            known[name] = place
            pid, camid = int(found["pid"]) + first, int(labels["camera"]) - 1
            taken += 1
            yield ListedImage(name, pid, camid, split, partial(root.read, name))
    if not taken:
        raise ValueError(_nothing_taken_message(root, folder, problems[-len(rows) :]))


def _nothing_taken_message(root: Tree, folder: str, problems: list[Problem]) -> str:
    """The error for a list without usable images: its first problem, and what is there."""
    first = problems[0]
    inner = first.name.rpartition("/")[0] if first.name.startswith(f"{folder}/") else folder
    where = inner if root.is_folder(inner) else folder
    return (
        f"{root.place}: none of the {len(problems):,} images of a list can be used; the first is "
        f"a {first.kind}: {first}; {where} holds {root.describe_entries(where)}; images are named "
        "like 0000/0000_000_01_0303morning_0015_0.jpg"
    )
