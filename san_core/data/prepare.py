"""A listed data set on its way into an image set: read, decoded, compared, counted, shown."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from san_core.data.records import Listed, Listing, Problem, ProblemsError, Subset, Tally
from san_core.images.imageset import preview_sheet, write
from san_core.images.pixels import check_whole
from san_core.images.shard import LIMIT, Item, fits, sha256

LEARNED = ("train", "val")
TESTED = ("query", "gallery", "multi")
SHOWN = 60  # pictures on a contact sheet
CELL = (128, 64)  # rows and columns of each


class First(NamedTuple):
    """The first image of its bytes."""

    name: str
    split: str


def checked(
    images: Iterable[Listed],
    problems: list[Problem],
    *,
    seen: dict[str, First],
    prefix: str = "",
    twins: list[Problem] | None = None,
) -> Iterator[Item]:
    """The images that are whole and not there twice; all others are added to the problems.

    Every image is decoded, so that no damaged one goes further. Of images with equal bytes the
    first is taken; with `twins`, all that are in the split of the first.

    Args:
        images: to be read, one by one.
        problems: grows while images are taken.
        seen: former images by the sha256 of their bytes; grows too.
        prefix: goes before every name, such as "csv/".
        twins: grows by the images that are there twice and taken.
    """
    for image in images:
        name = prefix + image.name
        if wrong := _wrong(name):
            problems.append(Problem("unknown name", name, wrong))
            continue
        try:
            data = image.read()
            check_whole(data, name=name)
        except (ValueError, OSError) as error:
            problems.append(Problem("damaged image", name, str(error).removeprefix(f"{name}: ")))
            continue
        digest = sha256(data)
        if first := seen.get(digest):
            twin = Problem("duplicate image", name, f"the same as {first.name}")
            is_taken = twins is not None and first.split == image.split
            (twins if twins is not None and is_taken else problems).append(twin)
            if not is_taken:
                continue
        else:
            seen[digest] = First(name, image.split)
        yield Item(name, data, image.pid, image.camid, image.split, image.fields)


def _wrong(name: str) -> str:
    """Why an image of that name cannot be packed; empty if it can."""
    if not _is_utf8(name):
        return "not in UTF-8"
    return "" if fits(name) else f"{len(name.encode())} bytes long; {LIMIT}"


def _is_utf8(name: str) -> bool:
    """Whether a name can be written; those of a file system may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def only(
    listing: Listing, splits: tuple[str, ...], *, needed: tuple[str, ...], name: str
) -> Listing:
    """Some splits of a data set.

    Raises:
        ValueError: a split that is needed has no images.
    """
    images = [image for image in listing.images if image.split in splits]
    there = {image.split for image in images}
    for split in needed:
        if split not in there:
            raise ValueError(f"data set {name} has no images in split {split}")
    published = {split: n for split, n in listing.published.items() if split in splits}
    return Listing(images, listing.problems, published, listing.protocol)


def moved(items: Iterable[Item], *, by: int) -> Iterator[Item]:
    """Items beside those of another set, with people numbered from `by` + 1.

    Distractors and junk stay what they are.
    """
    for item in items:
        pid = item.pid + by if item.pid is not None and item.pid > 0 else item.pid
        yield item._replace(pid=pid)


class Written(NamedTuple):
    """What went into a set: counts of its splits, protocol of its scores, doubts about them."""

    counts: dict[str, Subset]
    protocol: str
    doubts: list[str]


def write_set(
    folder: Path,
    items: Iterable[Item],
    problems: list[Problem],
    *,
    provenance: Mapping[str, Any],
    protocol: str = "",
    skip_bad: bool = False,
) -> Written:
    """Write a set with a contact sheet of every split; memory holds what is known of the images.

    The manifest's provenance also tells the protocol, the counts of every split, and what was
    skipped.

    Args:
        folder: where the set goes.
        items: the images.
        problems: what is wrong with the data set; may grow while items are taken.
        provenance: as in `imageset.write`.
        protocol: a name of `san_core.evaluation`; by default market1501 where the cameras of
            queries are known, and camera-free elsewhere.
        skip_bad: whether to leave out what has a problem.

    Raises:
        ProblemsError: there are problems, and they are not to be skipped.
        ValueError: no image is left.
    """
    tally, sheets = Tally(), dict[str, _Sample]()

    def passing() -> Iterator[Item]:
        for item in items:
            tally.add(item)
            sheets.setdefault(item.split, _Sample()).add(item.data)
            yield item
        if problems and not skip_bad:
            raise ProblemsError(problems)

    def known() -> dict[str, Any]:
        counts = tally.subsets()
        more: dict[str, Any] = {
            "protocol": protocol or _protocol(counts),
            "subsets": {split: subset._asdict() for split, subset in counts.items()},
        }
        if problems:
            more["skipped"] = [_writable(problem) for problem in problems]
        return {**provenance, **more}

    content = write(folder, passing(), provenance=known, preview=None)
    (folder / "preview").mkdir()
    for split, sample in sheets.items():
        sheet = preview_sheet(sample.pictures(), cell=CELL)
        (folder / "preview" / f"{split}.png").write_bytes(sheet)
    return Written(tally.subsets(), content["provenance"]["protocol"], tally.doubts())


def _protocol(counts: Mapping[str, Subset]) -> str:
    """How queries are judged; empty where there are none."""
    if "query" not in counts:
        return ""
    return "market1501" if counts["query"].cameras else "camera-free"


def _writable(problem: Problem) -> dict[str, str]:
    """A problem as JSON, whatever bytes its names have."""
    return {
        key: text.encode("utf-8", "backslashreplace").decode()
        for key, text in problem._asdict().items()
    }


class _Sample:
    """Every n-th of the pictures that pass, between SHOWN and twice as many of them."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._passed = 0
        self._step = 1

    def add(self, data: bytes) -> None:
        if self._passed % self._step == 0:
            self._kept.append(data)
        self._passed += 1
        if len(self._kept) > 2 * SHOWN:
            self._kept = self._kept[::2]
            self._step *= 2

    def pictures(self) -> list[bytes]:
        """At most SHOWN of them, evenly picked."""
        return self._kept[:: -(-len(self._kept) // SHOWN)]
