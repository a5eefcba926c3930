"""Market-1501 in its published layout (Zheng et al., "Scalable Person Re-identification", 2015).

    Market-1501-v15.09.15/bounding_box_train/0002_c1s1_000451_03.jpg
                          query/0001_c1s1_001051_00.jpg
                          bounding_box_test/0000_c1s1_000151_01.jpg and -1_c1s1_000401_03.jpg

A name holds the person (0000: distractor, -1: junk), the camera 1-6, the sequence, the frame and
the number of the box. As published: 12,936 training images of 751 people, 3,368 queries of 750
people, and a gallery of 19,732 images, 2,793 distractors and 3,819 junk boxes among them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from san_core.data.records import JUNK, Listed

RELEASE = "Market-1501-v15.09.15"
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
CAMERAS = 6

# What the release and people's desktops leave among the images.
_LITTER = frozenset({"thumbs.db", "readme.txt", "desktop.ini", ".ds_store"})
_NAME = re.compile(r"(?P<pid>-1|\d{4})_c(?P<camera>\d+)s\d+_\d+_\d+\.jpg")


def listing(folder: Path) -> list[Listed]:
    """Every image of Market-1501, train, query, then gallery, each sorted by file name.

    The gallery keeps distractors (pid 0) and junk (pid -1): the ranking knows what to do with
    them. Neither is a person to learn, so boxes numbered so in the training folder are left out.
    Only *.jpg files are images. Thumbs.db, readme.txt and their like are passed over.

    Args:
        folder: the release's folder, or the one that holds Market-1501-v15.09.15.

    Raises:
        FileNotFoundError: the folder, or one of its three, is not there.
        ValueError: a file's name is not Market's, its camera is not 1-6, a query shows no person,
            or a folder has no image.
    """
    root = _root(folder)
    return [image for split in FOLDERS for image in _split(root, split)]


def _root(folder: Path) -> Path:
    if folder.is_file():
        raise FileNotFoundError(
            f"{folder} is a file; Market-1501 is read from the folder it unpacks to, {RELEASE}"
        )
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}; give that of {RELEASE}")
    for root in (folder, folder / RELEASE):
        if all((root / name).is_dir() for name in FOLDERS.values()):
            return root
    inner = folder / RELEASE
    looked = inner if inner.is_dir() else folder
    found = sorted(entry.name for entry in looked.iterdir())
    shown = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
    missing = [name for name in FOLDERS.values() if not (looked / name).is_dir()]
    raise FileNotFoundError(
        f"{looked} is not Market-1501: no {', '.join(missing)} in it; it holds "
        f"{shown or 'nothing'}. Give the folder {RELEASE} or the one around it"
    )


def _split(root: Path, split: str) -> Iterator[Listed]:
    folder = root / FOLDERS[split]
    paths = [path for path in sorted(folder.iterdir()) if not _is_litter(path)]
    if not paths:
        raise ValueError(f"{folder} has no image; names look like 0002_c1s1_000451_03.jpg")
    for path in paths:
        pid, camid = _labels(path)
        if split == "query" and pid < 1:
            raise ValueError(f"{path}: a query must show a person, and pid {pid} is none")
        if split == "train" and pid < 1:
            continue
        yield Listed(f"{folder.name}/{path.name}", pid, camid, split, path.read_bytes)


def _is_litter(path: Path) -> bool:
    # "._name" is what macOS writes beside every file on a foreign disk.
    return path.name.lower() in _LITTER or path.name.startswith("._")


def _labels(path: Path) -> tuple[int, int]:
    name = _NAME.fullmatch(path.name)
    if name is None:
        raise ValueError(
            f"{path} is not named as Market-1501's images are: expected PERSON_cCAMERAsSEQUENCE_"
            "FRAME_BOX.jpg, such as 0002_c1s1_000451_03.jpg"
        )
    camera = int(name["camera"])
    if not 1 <= camera <= CAMERAS:
        raise ValueError(f"{path}: camera {camera}; Market-1501 has cameras 1 to {CAMERAS}")
    pid = JUNK if name["pid"] == "-1" else int(name["pid"])
    return pid, camera - 1
