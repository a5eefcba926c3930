"""What a data set lists before its images are packed: one record per image, and the familiar table.

People are numbered from 1. Two numbers are taken, in Market-1501's way: -1 is junk (a box that
shows too little of anybody; neither right nor wrong) and 0 is a distractor (a box that shows
nobody who is looked for; always wrong). Both belong in a gallery and nowhere else.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from san_core.shard import SPLITS

JUNK = -1
DISTRACTOR = 0


class Labelled(Protocol):
    """Anything that names an image and says whom it shows: `Listed` here, a packed image later."""

    @property
    def name(self) -> str:
        """The image's name, unique in its data set."""

    @property
    def pid(self) -> int | None:
        """The person's number; None where nobody has labelled the image."""

    @property
    def camid(self) -> int | None:
        """The camera's number, 0-based; None where it is unknown."""

    @property
    def split(self) -> str:
        """One of `shard.SPLITS`."""


@dataclass(frozen=True)
class Listed:
    """One image of a data set, not read yet.

    `name` is its path inside the data set, `pid` the person (from 1; None where unknown), `camid`
    the camera (0-based; None where unknown) and `split` one of `shard.SPLITS`. `read()` gives
    the bytes of its file unchanged: `path.read_bytes` for a file, a function for an archive.

    Raises:
        ValueError: the split is unknown, the camera is negative, or a person's number below 1
            stands where only people belong.
    """

    name: str
    pid: int | None
    camid: int | None
    split: str
    read: Callable[[], bytes]

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"{self.name}: no split '{self.split}'; there are {', '.join(SPLITS)}")
        if self.camid is not None and self.camid < 0:
            raise ValueError(f"{self.name}: camid {self.camid}; cameras are numbered from 0")
        lowest = JUNK if self.split == "gallery" else 1
        if self.pid is not None and self.pid < lowest:
            raise ValueError(
                f"{self.name}: pid {self.pid} in split {self.split}; people are numbered from 1, "
                f"and only a gallery may hold distractors ({DISTRACTOR}) and junk ({JUNK})"
            )


class Subset(NamedTuple):
    """Counts of a split; `ids` are people, neither distractors nor junk, `images` all of it."""

    ids: int
    images: int
    cameras: int
    distractors: int
    junk: int


def summary(records: Iterable[Labelled]) -> dict[str, Subset]:
    """The counts of every split that occurs, in the order of `shard.SPLITS`."""
    of_split: dict[str, list[Labelled]] = {}
    for record in records:
        of_split.setdefault(record.split, []).append(record)
    return {split: _count(of_split[split]) for split in SPLITS if split in of_split}


def _count(records: list[Labelled]) -> Subset:
    pids = [record.pid for record in records]
    return Subset(
        ids=len({pid for pid in pids if pid is not None and pid > 0}),
        images=len(records),
        cameras=len({record.camid for record in records if record.camid is not None}),
        distractors=pids.count(DISTRACTOR),
        junk=pids.count(JUNK),
    )


def summary_text(counts: dict[str, Subset]) -> str:
    """The counts as the table ReID papers print, with a line for distractors and junk if any."""
    rows = [("subset", "ids", "images", "cameras")]
    rows += [(s, f"{n.ids:,}", f"{n.images:,}", f"{n.cameras:,}") for s, n in counts.items()]
    lines = ["{:<8} {:>7} {:>9} {:>8}".format(*row) for row in rows]
    lines += [
        f"the {split} images include {n.distractors:,} distractors and {n.junk:,} junk boxes"
        for split, n in counts.items()
        if n.distractors or n.junk
    ]
    return "\n".join(lines)
