"""Folders of files whose names hold identity and camera, as in most published sets.

    bounding_box_train/0002_c1_f0044158.jpg      file_names:like=duke
    query/..., bounding_box_test/...
    train/00017-cam12-3.png                      file_names:pattern={pid}-cam{camera}-*,train=train

In a pattern, {pid} and {camera} match letters and digits (pid also -1), and * matches anything; it
does not contain the file's ending. The folders of splits are those of the known set, or those that
options name; each may be missing. If all are missing, every image is read and identities are held
out for testing. In a gallery, identities 0 and -1 are distractors and junk, as in Market-1501.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import permutations
from typing import NamedTuple

from san_core.data.held_out import check_no_splits
from san_core.data.people import OWN_OPTIONS, NamedImage, is_junk, make_listing
from san_core.data.records import Listing, Problem
from san_core.data.tree import Tree
from san_core.images.pixels import IMAGE_SUFFIXES

SPLITS = ("train", "query", "gallery")


class _Known(NamedTuple):
    """The pattern of a published set's names, and its folders.

    With `is_apart`, training and test folders each number their identities from 0.
    """

    pattern: str
    folders: tuple[str, str, str] = ("bounding_box_train", "query", "bounding_box_test")
    is_apart: bool = False


_KNOWN = {
    "market": _Known("{pid}_c{camera}s*"),  # 0002_c1s1_000451_03
    "duke": _Known("{pid}_c{camera}_f*"),  # 0002_c1_f0044158; Occluded-Duke too
    "cuhk03-np": _Known("{pid}_c{camera}_*"),  # 0001_c1_1
    "msmt17": _Known("{pid}_*_{camera}_*", is_apart=True),  # 0000_000_01_0303morning_0015_0
    "veri": _Known("{pid}_c{camera}_*", ("image_train", "image_query", "image_test")),
}
OPTIONS = {
    "like": f"like=NAME: names and folders follow {', '.join(_KNOWN)}",
    "pattern": "pattern=PATTERN: the pattern of the names, such as {pid}_c{camera}_*; {camera} "
    "may be left out",
    **{split: f"{split}=FOLDER: the folder of split {split}" for split in SPLITS},
    **OWN_OPTIONS,
}
_HOLES = {"{pid}": r"(?P<pid>-1|[^\W_]+?)", "{camera}": r"(?P<camera>[^\W_]+?)", "*": r".*?"}
_PARTS = re.compile("|".join(map(re.escape, _HOLES)))


def listing(tree: Tree, options: Mapping[str, str]) -> Listing:
    """Every image whose name matches the pattern, split by split; others are problems.

    Args:
        tree: the folder with the split folders or the images, or a folder around it.
        options: keys of OPTIONS; like or pattern is needed.

    Raises:
        FileNotFoundError: a folder that is named by an option is not there.
        ValueError: the pattern is missing or invalid; there is no image, or most names do not
            match; or there are splits although identities are to be held out.
    """
    known = _KNOWN[_parse_like(options)] if "like" in options else None
    told = options.get("pattern") or (known.pattern if known else "")
    pattern = compile_pattern(told)
    folders = dict(zip(SPLITS, known.folders, strict=True)) if known else {}
    root, found = _find_folders(tree, folders, options)
    if found:
        check_no_splits(options, f"{root.place} has splits of its own")
    problems: list[Problem] = []
    images = [
        image._replace(person=_person(image, known))
        for split, folder in (found or {"": ""}).items()
        for image in _images_of_folder(root, folder, split, pattern, told, problems)
    ]
    _check_mostly_taken(root, told, images, problems)
    return make_listing(images, problems, options, has_splits=bool(found))


def compile_pattern(told: str) -> re.Pattern[str]:
    """The regular expression of a pattern, with the groups `pid` and perhaps `camera`.

    Raises:
        ValueError: it has no {pid}, a placeholder twice, or two placeholders with nothing between
            them.
    """
    holes = _PARTS.findall(told)
    rest = _PARTS.sub("", told)
    if not told:
        raise ValueError(
            f"data set file_names needs like=NAME ({', '.join(_KNOWN)}) or pattern=PATTERN, such as"
            " pattern={pid}_c{camera}_*"
        )
    if holes.count("{pid}") != 1 or holes.count("{camera}") > 1 or set("{}") & set(rest):
        raise ValueError(f"pattern {told!r}: it must have {{pid}} once, and may have {{camera}}")
    if "" in _PARTS.split(told)[1:-1]:
        raise ValueError(
            f"pattern {told!r}: two of {{pid}}, {{camera}} and * must be separated "
            "by other characters"
        )
    fixed = map(re.escape, _PARTS.split(told))
    matched = [*(_HOLES[hole] for hole in holes), ""]
    return re.compile("".join(text + hole for text, hole in zip(fixed, matched, strict=True)))


def _parse_like(options: Mapping[str, str]) -> str:
    """The known set that option like names."""
    if (name := options["like"]) not in _KNOWN:
        raise ValueError(f"like={name} is unknown; it must be one of {', '.join(_KNOWN)}")
    return name


def _find_folders(
    tree: Tree, folders: Mapping[str, str], options: Mapping[str, str]
) -> tuple[Tree, dict[str, str]]:
    """The folder with the split folders, and these by split; none if no split has a folder.

    Raises:
        FileNotFoundError: one that an option names is not there.
        ValueError: several folders hold some, or two splits share images.
    """
    named = {split: options[split] for split in SPLITS if split in options}
    wanted = {**folders, **named}
    holding = [
        (root, {split: name for split, name in wanted.items() if root.is_folder(name)})
        for root in (tree, *(tree.subtree(name) for name in tree.entries().folders))
    ]
    holding = [(root, there) for root, there in holding if there]
    if len(holding) > 1 and holding[0][0] is not tree:
        places = ", ".join(root.place for root, _ in holding)
        raise ValueError(f"several folders hold {', '.join(wanted.values())}: {places}; give one")
    root, found = holding[0] if holding else (tree.unwrap_archive(), {})
    if missing := [name for split, name in named.items() if split not in found]:
        raise FileNotFoundError(
            f"{root.place} has no folder {missing[0]}; it holds {root.describe_entries()}"
        )
    _check_apart(found)
    return root, found


def _check_apart(folders: Mapping[str, str]) -> None:
    """Raise ValueError if the folder of one split is that of another, or lies in it."""
    parts = {split: tuple(name.strip("/").split("/")) for split, name in folders.items()}
    for outer, inner in permutations(parts, 2):
        if parts[inner][: len(parts[outer])] == parts[outer]:
            raise ValueError(
                f"{inner}={folders[inner]} lies in {outer}={folders[outer]}, so its images would be"
                " in both splits; give each split a folder of its own"
            )


def _images_of_folder(
    root: Tree,
    folder: str,
    split: str,
    pattern: re.Pattern[str],
    told: str,
    problems: list[Problem],
) -> Iterator[NamedImage]:
    """The images in a folder and its folders; all other files are added to `problems`."""
    for name in root.walk(folder):
        stem, _, ending = name.rpartition("/")[2].rpartition(".")
        labels = pattern.fullmatch(stem)
        if f".{ending.lower()}" not in IMAGE_SUFFIXES:
            detail = f"images end in {', '.join(IMAGE_SUFFIXES)}"
            problems.append(Problem("unknown name", name, detail, split))
        elif labels is None:
            problems.append(Problem("unknown name", name, f"not like {told}", split))
        elif is_junk(labels["pid"]) and split != "gallery":
            detail = "junk, which only a gallery may hold"
            problems.append(Problem("unknown name", name, detail, split))
        else:
            camera = labels.groupdict().get("camera")
            yield NamedImage(name, labels["pid"], camera, split, partial(root.read, name))


def _person(image: NamedImage, known: _Known | None) -> str:
    """The name of an identity in the whole set."""
    is_other = known is not None and known.is_apart and image.split in ("query", "gallery")
    return f"test {image.person}" if is_other else image.person


def _check_mostly_taken(
    root: Tree, told: str, images: list[NamedImage], problems: list[Problem]
) -> None:
    """Raise ValueError if most names do not match the pattern: this is another set."""
    if len(images) > len(problems):
        return
    example = f", such as {problems[0].name}" if problems else ""
    raise ValueError(
        f"{root.place}: {len(images):,} of {len(images) + len(problems):,} names match "
        f"{told}{example}"
    )
