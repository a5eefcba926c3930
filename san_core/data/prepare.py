"""A listed data set on its way into an image set: read, decoded, compared, counted, shown."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from san_core.data.records import (
    ListedImage,
    Listing,
    Problem,
    ProblemsError,
    SplitCounts,
    SplitTally,
)
from san_core.data.stores import UnreadableError
from san_core.images.imageset import preview_sheet, write_imageset
from san_core.images.pixels import check_decodable
from san_core.images.shard import TAR_NAME_RULE, Item, name_fits_tar, sha256

TRAINING_SPLITS = ("train", "val")
TEST_SPLITS = ("query", "gallery", "multi")
PREVIEW_IMAGES = 60  # pictures on a contact sheet
PREVIEW_CELL = (128, 64)  # rows and columns of each


class FirstSeen(NamedTuple):
    """The first image of its bytes."""

    name: str
    split: str


def check_images(
    images: Iterable[ListedImage],
    problems: list[Problem],
    *,
    seen: dict[str, FirstSeen],
    prefix: str = "",
    kept_duplicates: list[Problem] | None = None,
) -> Iterator[Item]:
    """The images that are whole and not there twice; all others are added to the problems.

    Every image is decoded, so that no damaged one goes further. Of images with equal bytes the
    first is taken; with `kept_duplicates`, all that are in the split of the first.

    Args:
        images: to be read, one by one.
        problems: grows while images are taken.
        seen: former images by the sha256 of their bytes; grows too.
        prefix: goes before every name, such as "csv/".
        kept_duplicates: grows by the images that are there twice and taken.
    """
    for image in images:
        name = prefix + image.name
        if wrong := _name_error(name):
            problems.append(Problem("unknown name", name, wrong))
            continue
        try:
            data = image.read()
            check_decodable(data, name=name)
        except (ValueError, OSError) as error:
            problems.append(Problem("damaged image", name, _reason(error, name)))
            continue
        digest = sha256(data)
        if first := seen.get(digest):
            twin = Problem("duplicate image", name, f"the same as {first.name}")
            is_taken = kept_duplicates is not None and first.split == image.split
            (kept_duplicates if kept_duplicates is not None and is_taken else problems).append(twin)
            if not is_taken:
                continue
        else:
            seen[digest] = FirstSeen(name, image.split)
        yield Item(name, data, image.pid, image.camid, image.split, image.fields)


def _reason(error: ValueError | OSError, name: str) -> str:
    """Why an image cannot be read: neither its name nor where it lies, which differs by machine."""
    if isinstance(error, UnreadableError):
        return error.reason
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return told.removeprefix(f"{name}: ")


def _name_error(name: str) -> str:
    """Why an image of that name cannot be packed; empty if it can."""
    if not _is_utf8(name):
        return "not in UTF-8"
    return "" if name_fits_tar(name) else f"{len(name.encode())} bytes long; {TAR_NAME_RULE}"


def _is_utf8(name: str) -> bool:
    """Whether a name can be written; those of a file system may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def select_splits(
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


def shift_pids(items: Iterable[Item], *, by: int) -> Iterator[Item]:
    """Items beside those of another set, with people numbered from `by` + 1.

    Distractors and junk stay what they are.
    """
    for item in items:
        pid = item.pid + by if item.pid is not None and item.pid > 0 else item.pid
        yield item._replace(pid=pid)


class WrittenSet(NamedTuple):
    """What went into a set: counts of its splits, protocol of its scores, doubts about them."""

    counts: dict[str, SplitCounts]
    protocol: str
    score_warnings: list[str]


def write_prepared_set(
    folder: Path,
    items: Iterable[Item],
    problems: list[Problem],
    *,
    provenance: Mapping[str, Any],
    protocol: str = "",
    skip_bad: bool = False,
) -> WrittenSet:
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
    tally, sheets = SplitTally(), dict[str, _PreviewSample]()

    def counted_items() -> Iterator[Item]:
        for item in items:
            tally.add(item)
            sheets.setdefault(item.split, _PreviewSample()).add(item.data)
            yield item
        if problems and not skip_bad:
            raise ProblemsError(problems)

    def full_provenance() -> dict[str, Any]:
        counts = tally.split_counts()
        more: dict[str, Any] = {
            "protocol": protocol or _default_protocol(counts),
            "subsets": {split: subset._asdict() for split, subset in counts.items()},
        }
        if problems:
            more["skipped"] = [_problem_json(problem) for problem in problems]
        return {**provenance, **more}

    content = write_imageset(folder, counted_items(), provenance=full_provenance, preview=None)
    (folder / "preview").mkdir()
    for split, sample in sheets.items():
        sheet = preview_sheet(sample.pictures(), cell=PREVIEW_CELL)
        (folder / "preview" / f"{split}.png").write_bytes(sheet)
    return WrittenSet(
        tally.split_counts(), content["provenance"]["protocol"], tally.score_warnings()
    )


def _default_protocol(counts: Mapping[str, SplitCounts]) -> str:
    """How queries are judged; empty where there are none."""
    if "query" not in counts:
        return ""
    return "market1501" if counts["query"].cameras else "camera-free"


def _problem_json(problem: Problem) -> dict[str, str]:
    """A problem as JSON, whatever bytes its names have."""
    return {
        key: text.encode("utf-8", "backslashreplace").decode()
        for key, text in problem._asdict().items()
    }


class _PreviewSample:
    """Every n-th of the pictures that pass, between PREVIEW_IMAGES and twice as many of them."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._passed = 0
        self._step = 1

    def add(self, data: bytes) -> None:
        if self._passed % self._step == 0:
            self._kept.append(data)
        self._passed += 1
        if len(self._kept) > 2 * PREVIEW_IMAGES:
            self._kept = self._kept[::2]
            self._step *= 2

    def pictures(self) -> list[bytes]:
        """At most PREVIEW_IMAGES of them, evenly picked."""
        return self._kept[:: -(-len(self._kept) // PREVIEW_IMAGES)]
