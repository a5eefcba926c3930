"""What a data set lists before its images are packed: one record per image, and the familiar table.

People are numbered from 1. Two numbers are taken, in Market-1501's way: -1 is junk (a box that
shows too little of anybody; neither right nor wrong) and 0 is a distractor (a box that shows
nobody who is looked for; always wrong). Both belong in a gallery and nowhere else.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from san_core.images.shard import SPLITS

_MAX_SHOWN = 10
JUNK = -1
DISTRACTOR = 0


class LabelledImage(Protocol):
    """What names an image and says whom it shows: a `ListedImage`, a packed image later."""

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


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image of a data set, not read yet.

    `name` is its path inside the data set, `pid` the person (from 1; None where unknown), `camid`
    the camera (0-based; None where unknown) and `split` one of `shard.SPLITS`. `read()` gives
    the bytes of its file unchanged, from a folder or an archive. `fields` is what else is known of
    it, as JSON, such as the name that the data set gives to its person.

    Raises:
        ValueError: the split is unknown, the camera is negative, or a person's number below 1
            stands where only people belong.
    """

    name: str
    pid: int | None
    camid: int | None
    split: str
    read: Callable[[], bytes]
    fields: Mapping[str, Any] = field(default_factory=dict)

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


class Problem(NamedTuple):
    """What cannot be taken of a data set: its kind, a key of PROBLEM_PLURALS, and its name."""

    kind: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name


# What may be wrong with a data set, each with its plural.
PROBLEM_PLURALS = {
    "unknown name": "unknown names",
    "wrong row": "wrong rows",
    "missing image": "missing images",
    "empty identity": "empty identities",
    "damaged image": "damaged images",
    "duplicate image": "duplicate images",
}


class PublishedCounts(NamedTuple):
    """What the authors of a data set say is in one of its splits."""

    ids: int
    images: int


class Listing(NamedTuple):
    """A data set before its images are read.

    `problems` is what was found that cannot be taken, `published` the counts of the release, by
    split, and `protocol` the one of `san_core.evaluation` that its authors score by; empty where
    that follows from whether cameras are known.
    """

    images: list[ListedImage]
    problems: list[Problem]
    published: Mapping[str, PublishedCounts] = {}
    protocol: str = ""


class SplitCounts(NamedTuple):
    """Counts of a split; `ids` are people, neither distractors nor junk, `images` all of it."""

    ids: int
    images: int
    cameras: int
    distractors: int
    junk: int


class SplitTally:
    """Counts the images that pass, by split; memory grows with people, not with images."""

    def __init__(self) -> None:
        self._splits: dict[str, _RunningCounts] = {}

    def add(self, record: LabelledImage) -> None:
        """Count an image."""
        counts = self._splits.setdefault(record.split, _RunningCounts())
        counts.images += 1
        if record.pid == DISTRACTOR:
            counts.distractors += 1
        elif record.pid == JUNK:
            counts.junk += 1
        elif record.pid is not None:
            counts.people.add(record.pid)
        if record.camid is not None:
            counts.cameras.add(record.camid)

    def split_counts(self) -> dict[str, SplitCounts]:
        """The counts of every split that occurred, in the order of `shard.SPLITS`."""
        return {
            split: SplitCounts(len(n.people), n.images, len(n.cameras), n.distractors, n.junk)
            for split in SPLITS
            if (n := self._splits.get(split))
        }

    def score_warnings(self) -> list[str]:
        """What makes scores wrong or impossible, a line each; none if nothing does."""
        learned, asked, held = (
            set().union(*(n.people for split, n in self._splits.items() if split in splits))
            for splits in (("train", "val"), ("query",), ("gallery",))
        )
        lines = []
        if known := learned & (asked | held):
            lines.append(
                f"{len(known):,} of {len(asked | held):,} people in query and gallery are in train "
                f"or val too, such as {min(known)}: scores will be too good"
            )
        if "query" in self._splits and "gallery" not in self._splits:
            lines.append("there are queries and no gallery: they cannot be scored")
        elif lost := asked - held:
            lines.append(
                f"{len(lost):,} of {len(asked):,} people in query are not in gallery, such as "
                f"{min(lost)}: their queries cannot be scored"
            )
        return lines


@dataclass
class _RunningCounts:
    images: int = 0
    distractors: int = 0
    junk: int = 0
    people: set[int] = field(default_factory=set)
    cameras: set[int] = field(default_factory=set)


def count_splits(records: Iterable[LabelledImage]) -> dict[str, SplitCounts]:
    """The counts of every split that occurs, in the order of `shard.SPLITS`."""
    tally = SplitTally()
    for record in records:
        tally.add(record)
    return tally.split_counts()


def split_table(counts: dict[str, SplitCounts]) -> str:
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


def differences_from_published(
    counts: Mapping[str, SplitCounts], published: Mapping[str, PublishedCounts]
) -> list[str]:
    """How a data set differs from what its authors published, a line a split; none if nowhere."""
    lines = []
    for split, there in published.items():
        here = counts.get(split, SplitCounts(0, 0, 0, 0, 0))
        if (here.ids, here.images) != there:
            lines.append(
                f"{split}: {here.images:,} images of {here.ids:,} people, where "
                f"{there.images:,} of {there.ids:,} were published"
            )
    return lines


class ProblemsError(ValueError):
    """A data set is refused; the message is one line with the number of each kind of problem.

    Of each kind, up to ten names are in the line; `problems` is all of them.
    """

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        parts = []
        for kind, plural in PROBLEM_PLURALS.items():
            names = [str(problem) for problem in problems if problem.kind == kind]
            if names:
                shown = ", ".join(names[:_MAX_SHOWN]) + (", ..." if len(names) > _MAX_SHOWN else "")
                parts.append(f"{len(names):,} {kind if len(names) == 1 else plural}: {shown}")
        super().__init__("; ".join(parts))
