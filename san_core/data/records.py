"""The listing of a data set before its images are packed: a record per image, and the usual table.

People are numbered from 1. Two numbers are reserved, as in Market-1501: -1 is junk (a box that
shows too little of a person; neither right nor wrong) and 0 is a distractor (a box that shows no
query's person; always wrong). Only a gallery may hold them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self

from san_core.images.shard import SPLITS

_MAX_SHOWN = 10
JUNK = -1
DISTRACTOR = 0
FACTS = "facts"  # the field with further columns of a table
CAMERA_FREE = "camera-free"  # the protocol that looks at no camera


class LabelledImage(Protocol):
    """An image with a name and labels: a `ListedImage`, or later a packed image."""

    @property
    def name(self) -> str:
        """The image's name, unique in its data set."""

    @property
    def pid(self) -> int | None:
        """The person's number; None if the image is not labelled."""

    @property
    def camid(self) -> int | None:
        """The camera's number, 0-based; None where it is unknown."""

    @property
    def split(self) -> str:
        """One of `shard.SPLITS`."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """Further facts of the image, such as the data set's names of person and camera."""


def person_name(record: LabelledImage) -> str:
    """The data set's name for the person of an image, or its number if it has no name."""
    return str(record.fields.get("person", record.pid))


def person_label(record: LabelledImage) -> str:
    """A label for the person of an image: the name, "person 7", or "distractor"."""
    if record.pid in (DISTRACTOR, JUNK):
        return "distractor" if record.pid == DISTRACTOR else "junk"
    return named_person(person_name(record))


def named_person(name: str) -> str:
    """A label for a person: the data set's name, or "person 7" if that is a number."""
    return f"person {name}" if name.isdecimal() else name


def camera_label(record: LabelledImage) -> str:
    """A label for the camera of an image, such as "cam 3"; empty if unknown."""
    return "" if record.camid is None else f"cam {camera_name(record)}"


def camera_name(record: LabelledImage) -> str:
    """The data set's name for the camera of an image, or its number, if known."""
    return str(record.fields.get("camera", "" if record.camid is None else record.camid))


def facts_of(record: LabelledImage) -> Mapping[str, str]:
    """The unused columns of the data set's table for an image, by column."""
    facts: Mapping[str, str] = record.fields.get(FACTS, {})
    return facts


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image of a data set, not read yet.

    `name` is its path inside the data set, `pid` the person (from 1; None where unknown), `camid`
    the camera (0-based; None where unknown) and `split` one of `shard.SPLITS`. `read()` gives
    the bytes of its file unchanged, from a folder or an archive. `fields` has further facts as
    JSON, such as the data set's names of person and camera.

    Raises:
        ValueError: the split is unknown, the camera is negative, or a pid below 1 is in a split
            that may hold only people.
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
                f"{self.name}: pid {self.pid} in split {self.split}; identities are numbered from"
                f" 1, and only a gallery may hold distractors ({DISTRACTOR}) and junk ({JUNK})"
            )


class _ProblemWords(NamedTuple):
    """The name of a problem."""

    kind: str
    name: str
    detail: str


class Problem(_ProblemWords):
    """An image that cannot be used: the kind of problem, a key of PROBLEM_PLURALS, and its name.

    `split` is the split that it concerns, empty if unknown; it is not part of the problem's name.
    """

    split: str

    def __new__(cls, kind: str, name: str, detail: str = "", split: str = "") -> Self:
        """A problem."""
        self = super().__new__(cls, kind, name, detail)
        self.split = split
        return self

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name


# The kinds of problems of a data set, each with its plural.
PROBLEM_PLURALS = {
    "unknown name": "unknown names",
    "wrong row": "wrong rows",
    "missing image": "missing images",
    "empty identity": "empty identities",
    "damaged image": "damaged images",
    "duplicate image": "duplicate images",
    "ambiguous name": "ambiguous names",
}


class PublishedCounts(NamedTuple):
    """The published counts of a split."""

    ids: int
    images: int


class Listing(NamedTuple):
    """A data set before its images are read.

    `problems` has the images that cannot be used, `published` the counts of the release by split.
    `protocol` is the authors' protocol of `san_core.evaluation`; empty if it follows from whether
    cameras are known. `warnings` has further warnings; `warnings_after_reading` gives those that
    are known once all images are read.
    """

    images: list[ListedImage]
    problems: list[Problem]
    published: Mapping[str, PublishedCounts] = {}
    protocol: str = ""
    warnings: Sequence[str] = ()
    warnings_after_reading: Callable[[], Sequence[str]] = list


class SplitCounts(NamedTuple):
    """Counts of a split: `ids` are people without distractors and junk, `images` are all images."""

    ids: int
    images: int
    cameras: int
    distractors: int
    junk: int


class SplitTally:
    """Counts images by split; memory grows with people, not with images."""

    def __init__(self) -> None:
        self._splits: dict[str, _RunningCounts] = {}
        self._names: dict[int, str] = {}

    def add(self, record: LabelledImage) -> None:
        """Count an image."""
        counts = self._splits.setdefault(record.split, _RunningCounts())
        counts.images += 1
        if record.pid == DISTRACTOR:
            counts.distractors += 1
        elif record.pid == JUNK:
            counts.junk += 1
        elif record.pid is not None:
            counts.sightings[record.pid, record.camid] += 1
            self._names.setdefault(record.pid, person_name(record))
        if record.camid is not None:
            counts.cameras.add(record.camid)

    def split_counts(self) -> dict[str, SplitCounts]:
        """The counts of every split that occurred, in the order of `shard.SPLITS`."""
        return {
            split: SplitCounts(len(n.people), n.images, len(n.cameras), n.distractors, n.junk)
            for split in SPLITS
            if (n := self._splits.get(split))
        }

    def score_warnings(self, protocol: str = "") -> list[str]:
        """Warnings about what makes scores wrong or impossible, a line each.

        protocol: how queries are judged; camera-free ignores their cameras.

        Raises:
            ValueError: there is a gallery, and no query can be scored.
        """
        learned, watched, asked, held = map(self._people, ("train", "val", "query", "gallery"))
        lines = []
        if known := learned & watched:
            lines.append(
                f"{len(known):,} of {len(watched):,} identities in val are in train too, such as "
                f"{self._names[min(known)]}: val cannot be used for validation (eval_every)"
            )
        learned = learned | watched
        if known := learned & (asked | held):
            lines.append(
                f"{len(known):,} of {len(asked | held):,} identities in query and gallery are in"
                f" train or val too, such as {self._names[min(known)]}: scores will be too high"
            )
        if "query" in self._splits and "gallery" not in self._splits:
            return [*lines, "there are queries but no gallery, so nothing can be scored"]
        if lost := asked - held:
            lines.append(
                f"{len(lost):,} of {len(asked):,} identities in query are not in gallery, such as "
                f"{self._names[min(lost)]}: their queries cannot be scored"
            )
        if len(held) == 1 and asked and not self._splits["gallery"].distractors:
            lines.append("query and gallery show 1 identity: every answer is right")
        if protocol != CAMERA_FREE:
            lines += self._own_camera_warnings()
        self._check_queries_left(protocol)
        return lines

    def _people(self, split: str) -> set[int]:
        return self._splits[split].people if split in self._splits else set()

    def _own_camera_warnings(self) -> list[str]:
        """A warning about queries whose gallery images are all by their own camera."""
        queries = self._splits["query"].images if "query" in self._splits else 0
        alone = self._own_camera_queries()
        if not alone:
            return []
        pid, _ = min(alone)
        return [
            f"{alone.total():,} of {queries:,} queries show identities whose gallery images are "
            f"all by the query's own camera, such as {self._names[pid]}: these images are left "
            "out, so the queries are not scored"
        ]

    def _own_camera_queries(self) -> Counter[tuple[int, int | None]]:
        """Queries per person and camera whose gallery images are all by that camera."""
        query, gallery = (self._splits.get(s, _RunningCounts()) for s in ("query", "gallery"))
        cameras: dict[int, set[int | None]] = {}
        for pid, camid in gallery.sightings:
            cameras.setdefault(pid, set()).add(camid)
        return Counter(
            {
                (pid, camid): count
                for (pid, camid), count in query.sightings.items()
                if camid is not None and cameras.get(pid) == {camid}
            }
        )

    def _check_queries_left(self, protocol: str) -> None:
        """Check that at least one query has a right answer.

        Raises:
            ValueError: none has, so no network could be scored on this set.
        """
        query = self._splits.get("query", _RunningCounts())
        held = self._people("gallery")
        absent = sum(n for (pid, _), n in query.sightings.items() if pid not in held)
        alone = 0 if protocol == CAMERA_FREE else self._own_camera_queries().total()
        if not query.images or absent + alone < query.images:
            return
        why = f"{absent:,} show identities that are not in gallery" if absent else ""
        if alone:
            why += (
                f"{'; ' if why else ''}{alone:,} show identities whose gallery images are all by "
                "the query's own"
            )
            why += (
                " camera and are left out; csv:camera-free and folders:camera-free ignore cameras"
            )
        raise ValueError(f"none of the {query.images:,} queries can be scored: {why}")


@dataclass
class _RunningCounts:
    images: int = 0
    distractors: int = 0
    junk: int = 0
    sightings: Counter[tuple[int, int | None]] = field(default_factory=Counter)  # images of each
    cameras: set[int] = field(default_factory=set)

    @property
    def people(self) -> set[int]:
        return {pid for pid, _ in self.sightings}


def count_splits(records: Iterable[LabelledImage]) -> dict[str, SplitCounts]:
    """The counts of every split that occurs, in the order of `shard.SPLITS`."""
    tally = SplitTally()
    for record in records:
        tally.add(record)
    return tally.split_counts()


def split_table(counts: dict[str, SplitCounts]) -> str:
    """The counts as the usual table of ReID papers, with a line for distractors and junk if any."""
    rows = [("subset", "ids", "images", "cameras")]
    rows += [(s, f"{n.ids:,}", f"{n.images:,}", f"{n.cameras:,}") for s, n in counts.items()]
    width = max(8, *(len(split) for split, *_ in rows))
    lines = ["{:<{}} {:>7} {:>9} {:>8}".format(row[0], width, *row[1:]) for row in rows]
    lines += [
        f"the {split} images include {n.distractors:,} distractors and {n.junk:,} junk boxes"
        for split, n in counts.items()
        if n.distractors or n.junk
    ]
    return "\n".join(lines)


def differences_from_published(
    counts: Mapping[str, SplitCounts], published: Mapping[str, PublishedCounts]
) -> list[str]:
    """The differences of a data set from the published counts, a line per split."""
    lines = []
    for split, there in published.items():
        here = counts.get(split, SplitCounts(0, 0, 0, 0, 0))
        if (here.ids, here.images) != there:
            lines.append(
                f"{split}: {here.images:,} images of {here.ids:,} identities; {there.images:,} of "
                f"{there.ids:,} were published"
            )
    return lines


class ProblemsError(ValueError):
    """A data set is refused; the message is one line with the count of each kind of problem.

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
