"""Turns a listed data set into an image set: reads, decodes, compares, counts and shows images."""

import errno
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from san_core.checked_json import json_bytes
from san_core.data.crops import CropTally
from san_core.data.held_out import SPLIT_FILE, split_table
from san_core.data.records import (
    ListedImage,
    Listing,
    Problem,
    ProblemsError,
    PublishedCounts,
    SplitCounts,
    SplitTally,
    camera_label,
    camera_name,
    differences_from_published,
    person_label,
    person_name,
)
from san_core.data.stores import UnreadableError
from san_core.disk import write_file
from san_core.images.imageset import ImageSet, write_imageset
from san_core.images.index import pack_records
from san_core.images.pixels import IMAGE_SUFFIXES, KeptFile, file_to_keep, image_format
from san_core.images.shard import (
    TAR_NAME_RULE,
    Item,
    Record,
    name_fits_tar,
    parse_sidecar,
    sha256,
)
from san_core.images.sheet import preview_indices, preview_sheet
from san_core.images.texture_set import texture_name

TRAINING_SPLITS = ("train", "val")
TEST_SPLITS = ("query", "gallery", "multi")
# System errors that concern a single image, not its neighbours.
_IMAGE_ERRORS = (None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP)
PREVIEW_CELL = (128, 64)  # rows and columns of a picture on a contact sheet


class FirstSeen(NamedTuple):
    """The first image with given bytes."""

    name: str
    split: str


@dataclass
class Findings:
    """Findings about the images of data sets; it grows while images are read.

    Attributes:
        problems: images that cannot be used.
        duplicates: images that a published data set has twice in a split; they are kept.
        kept_as_png: the number of images in formats other than JPEG and PNG, by format.
        laid_on_white: the number of images with transparent parts, which are read as white.
        crops: statistics of the images.
        warnings: other warnings for the user.
    """

    problems: list[Problem] = field(default_factory=list)
    duplicates: list[Problem] = field(default_factory=list)
    kept_as_png: Counter[str] = field(default_factory=Counter)
    laid_on_white: int = 0
    crops: CropTally = field(default_factory=CropTally)
    warnings: list[str] = field(default_factory=list)


def check_images(
    images: Iterable[ListedImage],
    found: Findings,
    *,
    seen: dict[bytes, FirstSeen],
    prefix: str = "",
    is_published: bool = False,
) -> Iterator[Item]:
    """The images that are whole and unique; all others are added to the problems.

    Every image is decoded, so no damaged image passes. JPEG and PNG files stay as they are; other
    formats become PNG and are renamed. Of images with equal bytes the first is kept; in a published
    data set, all in the split of the first. Of images in one split whose names differ only in their
    endings the first is kept, because a texture has the name of its image without the ending.

    Args:
        images: to be read, one by one.
        found: grows while images are taken.
        seen: former images by the sha256 of their bytes; grows too.
        prefix: goes before every name, such as "csv/".
        is_published: whether others have the same data set.
    """
    names: dict[str, str] = {}
    textures: set[int] = set()  # hashes alone: of millions of images the names would fill memory
    for image in images:
        name = prefix + image.name
        try:
            data, kept = _read_image(image, name, names)
        except _ProblemError as error:
            found.problems.append(error.problem)
            continue
        digest = bytes.fromhex(sha256(data))  # half as long
        if first := seen.get(digest):
            twin = Problem("duplicate image", name, f"the same as {first.name}")
            is_taken = is_published and first.split == image.split
            (found.duplicates if is_taken else found.problems).append(twin)
            if not is_taken:
                continue
        texture = hash((image.split, texture_name(kept.name)))
        if texture in textures and (other := _name_but_for_ending(kept.name, names)):
            detail = f"it differs from {other} only in its ending"
            found.problems.append(Problem("ambiguous name", name, detail))
            continue
        textures.add(texture)
        seen.setdefault(digest, FirstSeen(name, image.split))
        if kept.data is not data:
            found.kept_as_png[image_format(data)] += 1
        found.laid_on_white += kept.is_transparent
        found.crops.add(kept.name, kept.look)
        yield Item(kept.name, kept.data, image.pid, image.camid, image.split, image.fields)


def _name_but_for_ending(kept: str, names: Mapping[str, str]) -> str | None:
    """Another name, keyed by the stored name, that differs only in its ending."""
    stem = str(PurePosixPath(kept).with_suffix(""))
    likely = (stem + e for ending in IMAGE_SUFFIXES for e in (ending, ending.upper()))
    others = itertools.chain((name for name in likely if name in names), names)
    same = (name for name in others if name != kept and texture_name(name) == texture_name(kept))
    return next((names[name] for name in same), None)


class _ProblemError(Exception):
    """An image cannot be used."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _read_image(image: ListedImage, name: str, names: dict[str, str]) -> tuple[bytes, KeptFile]:
    """The bytes of an image, and what is stored of it; `names` maps the stored name to the image's.

    Raises:
        _ProblemError: it cannot be read, or cannot be stored under its name.
    """
    if wrong := _name_error(name):
        raise _ProblemError(Problem("unknown name", name, wrong))
    try:
        data = image.read()
        kept = file_to_keep(name, data)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _IMAGE_ERRORS:
            raise  # an error of the file system, not of the image
        problem = Problem("damaged image", name, _reason(error, name))
        raise _ProblemError(problem) from error
    if kept.name in names:
        told = f"it would be stored as {kept.name}, like {names[kept.name]}"
        raise _ProblemError(Problem("unknown name", name, told))
    names[kept.name] = name
    return data, kept


def _reason(error: ValueError | OSError, name: str) -> str:
    """Why an image cannot be read, without its name or place, which differ by machine."""
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
    """The wanted splits of a data set, and the problems that may concern them.

    Raises:
        ValueError: a split that is needed has no images.
    """
    images = [image for image in listing.images if image.split in splits]
    there = {image.split for image in images}
    for split in needed:
        if split not in there:
            raise ValueError(f"data set {name} has no images in split {split}")
    published = {split: n for split, n in listing.published.items() if split in splits}
    problems = [one for one in listing.problems if one.split in ("", *splits)]
    unused = [one for one in listing.problems if one.split not in ("", *splits)]
    warnings = list(listing.warnings)
    if unused:
        warnings.append(f"in unused splits of {name}: {ProblemsError(unused)}")
    return listing._replace(
        images=images, problems=problems, published=published, warnings=warnings
    )


def train_on_all(listing: Listing, *, name: str) -> Listing:
    """A data set whose queries and gallery are training images too, except distractors and junk.

    Images of split multi are left out: they show the queries again.
    """
    labelled = [i for i in listing.images if (i.pid or 0) >= 1 and i.split != "multi"]
    count = sum(image.split not in TRAINING_SPLITS for image in labelled)
    images = [replace(image, split="train") for image in labelled]
    told = (
        f"option all trains on {count:,} test images of {name}: scores on {name} are not "
        "benchmark results"
    )
    warnings = [*listing.warnings, *([told] if count else [])]
    return listing._replace(images=images, published={}, protocol="", warnings=warnings)


def number_on(items: Iterable[Item], *, people: int, cameras: int) -> Iterator[Item]:
    """Items numbered after the people and cameras of another set, to be joined with it.

    The fields `person` and `camera` keep the numbers of their own set if it has no names.
    Distractors and junk keep their numbers. So do the cameras of test images, because protocols
    refer to them by number and each set is scored separately.
    """
    for item in items:
        changed: dict[str, int] = {}
        if people and item.pid is not None and item.pid > 0:
            changed["person"] = item.pid
            item = item._replace(pid=item.pid + people)
        if cameras and item.camid is not None and item.split in TRAINING_SPLITS:
            changed["camera"] = item.camid
            item = item._replace(camid=item.camid + cameras)
        own = {kind: str(number) for kind, number in changed.items()}
        yield item._replace(fields={**own, **item.fields}) if own else item


class SetPart(NamedTuple):
    """A data set that is a part of a written set.

    `name` is the name that was asked for; `prefix` begins the names of its images. `protocol` is
    the protocol of `san_core.evaluation` for its scores; empty means market1501 if the cameras of
    its queries are known, else camera-free. `published` has the published counts of each split.
    """

    name: str
    prefix: str = ""
    protocol: str = ""
    published: Mapping[str, PublishedCounts] = {}


class PartSummary(NamedTuple):
    """What was written of one part of a set."""

    name: str
    prefix: str
    protocol: str
    counts: dict[str, SplitCounts]


class WrittenSet(NamedTuple):
    """What was written: counts of splits, the protocol of scores, parts, all warnings.

    `is_as_published` says whether the counts of all parts are those that were published.
    """

    counts: dict[str, SplitCounts]
    protocol: str
    parts: list[PartSummary]
    warnings: list[str]
    is_as_published: bool


def write_prepared_set(
    folder: Path,
    items: Iterable[Item],
    found: Findings,
    *,
    provenance: Mapping[str, Any],
    parts: Sequence[SetPart] = (SetPart(""),),
    skip_bad: bool = False,
) -> WrittenSet:
    """Write a set with split.csv and a contact sheet of every split; memory holds no images.

    The manifest's provenance also has the protocol, the counts of every split (of each part, if
    there are several), what was skipped or converted, and the warnings.

    Args:
        folder: where the set goes.
        items: the images.
        found: findings about the data set; may grow while items are read.
        provenance: as in `imageset.write`.
        parts: the data sets of the images, each with its own name prefix; the set's protocol is
            that of the first part with queries.
        skip_bad: whether to leave out images with problems.

    Raises:
        ProblemsError: there are problems and `skip_bad` is false, or no image is left.
        ValueError: there is no image, or no query can be scored.
    """
    tallies = _PartTallies(parts)
    written: WrittenSet

    def counted_items() -> Iterator[Item]:
        nonlocal written
        for item in items:
            tallies.add(item)
            yield item
        if found.problems and not (skip_bad and tallies.whole.split_counts()):
            raise ProblemsError(found.problems)
        written = tallies.summarise(found)

    def full_provenance() -> dict[str, Any]:
        more: dict[str, Any] = {
            "protocol": written.protocol,
            "subsets": _counts_json(written.counts),
            "parts": [
                {**part._asdict(), "counts": _counts_json(part.counts)} for part in written.parts
            ],
            "skipped": [_problem_json(problem) for problem in found.problems],
            "kept_as_png": dict(sorted(found.kept_as_png.items())),
            "laid_on_white": found.laid_on_white,
            "crops": found.crops.told(),
            "warnings": [_writable(line) for line in written.warnings],
        }
        always = ("protocol", "subsets")
        return {**provenance, **{key: told for key, told in more.items() if told or key in always}}

    content = write_imageset(folder, counted_items(), provenance=full_provenance, preview=None)
    _write_previews(folder, content)
    if tallies.sides:
        write_file(folder / SPLIT_FILE, split_table(tallies.sides))
    return written


class _PartTallies:
    """Counts images, for each part and for the whole set.

    `sides` has each combination of person, camera and split once. In a set of several parts, names
    of people begin with the prefix of their part.
    """

    def __init__(self, parts: Sequence[SetPart]) -> None:
        self.whole = SplitTally()
        self.sides = set[tuple[str, str, str]]()
        self._parts = [(part, SplitTally()) for part in parts]
        self._is_single = len(parts) == 1

    def add(self, item: Item) -> None:
        """Count an image."""
        self.whole.add(item)
        for part, tally in self._parts:
            if item.name.startswith(part.prefix):
                tally.add(item)
                if item.pid is not None and item.pid > 0:
                    person = part.prefix + person_name(item)
                    self.sides.add((person, camera_name(item), item.split))

    def summarise(self, found: Findings) -> WrittenSet:
        """The counts and warnings of a set after all its images have been read.

        Raises:
            ValueError: no query of a part can be scored.
        """
        lines = [f"left out: {ProblemsError(found.problems)}"] if found.problems else []
        parts, differences, warnings = [], list[str](), list[str]()
        for part, tally in self._parts:
            of_part = "" if self._is_single else f"{part.name}: "
            counts = tally.split_counts()
            protocol = part.protocol or _default_protocol(counts)
            parts.append(PartSummary(part.name, part.prefix, protocol, counts))
            differing = differences_from_published(counts, part.published)
            differences += [f"differs from the published set: {of_part}{one}" for one in differing]
            warnings += [f"{of_part}{line}" for line in tally.score_warnings(protocol)]
        return WrittenSet(
            self.whole.split_counts(),
            next((part.protocol for part in parts if "query" in part.counts), parts[0].protocol),
            [] if self._is_single else parts,
            [*lines, *differences, *found.warnings, *found.crops.warnings(), *warnings],
            any(part.published for part, _ in self._parts) and not differences,
        )


def _counts_json(counts: Mapping[str, SplitCounts]) -> dict[str, dict[str, int]]:
    return {split: subset._asdict() for split, subset in counts.items()}


def _default_protocol(counts: Mapping[str, SplitCounts]) -> str:
    """How queries are judged; empty where there are none."""
    if "query" not in counts:
        return ""
    return "market1501" if counts["query"].cameras else "camera-free"


def _problem_json(problem: Problem) -> dict[str, str]:
    return {key: _writable(text) for key, text in problem._asdict().items()}


def _writable(text: str) -> str:
    """A text that UTF-8 can encode, whatever bytes its names have."""
    return text.encode("utf-8", "backslashreplace").decode()


def _write_previews(folder: Path, content: dict[str, Any]) -> None:
    """A contact sheet of every split of the set that was written into a folder."""
    (folder / "preview").mkdir()
    with ImageSet(folder, content, pack_records([])) as images:
        for split, records in _shown_records(folder, content).items():
            labels = [_preview_label(record) for record in records]
            sheet = preview_sheet(map(images.read, records), labels=labels, cell=PREVIEW_CELL)
            (folder / "preview" / f"{split}.png").write_bytes(sheet)


def _preview_label(record: Record) -> str:
    """The person and the camera of an image, or its name if no person is known."""
    if record.pid is None:
        return PurePosixPath(record.name).stem
    return f"{person_label(record)}\n{camera_label(record)}"


def _shown_records(folder: Path, content: Mapping[str, Any]) -> dict[str, list[Record]]:
    """The images for contact sheets, by split; memory holds no others."""
    shown = {split: preview_indices(told["images"]) for split, told in content["splits"].items()}
    found: dict[str, list[Record]] = {split: [] for split in shown}
    passed = Counter[str]()
    for number, shard in enumerate(content["shards"]):
        sidecar = json_bytes(folder / shard["sidecar"])
        for record in parse_sidecar(sidecar, number, content, where=str(folder)):
            if passed[record.split] in shown[record.split]:
                found[record.split].append(record)
            passed[record.split] += 1
    return found
