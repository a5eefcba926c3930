"""Reading data sets into an image set: one, or some to train on and others to test on."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, count
from typing import NamedTuple

from components.process.machine import worker_count
from components.process.progress import track_progress
from components.storage.sources import replace_split_file
from components.storage.transfer import local_file, local_source
from san_core.data.held_out import SPLIT
from san_core.data.prepare import (
    TEST_SPLITS,
    TRAINING_SPLITS,
    Findings,
    FirstSeen,
    SetPart,
    check_images,
    number_on,
    select_splits,
)
from san_core.data.readers.several import join_dataset_names
from san_core.data.readers.sources import (
    SYNTHETIC,
    DatasetName,
    LearnedAndTested,
    PlacedDataset,
    is_published,
    list_dataset,
    parse_dataset_and_target,
)
from san_core.data.records import Listing, Problem
from san_core.data.tree import open_tree
from san_core.images.shard import Item, sha256
from san_core.synthesis.dataset import make_reid_identity
from san_core.synthesis.spec import ReidSpec
from san_core.synthesis.workers import map_identities, worker_memory


def resolve_data_sets(
    dataset: str, source: str, target: str, target_source: str
) -> LearnedAndTested:
    """The data sets to train on and those to test on.

    Raises:
        ValueError: a name or source is wrong, or a data set has no source.
    """
    found = parse_dataset_and_target(dataset, target, source=source, target_source=target_source)
    _check_places("dataset", found.learned, "source")
    _check_places("target", found.tested, "target-source")
    return found


def _check_places(what: str, placed: Sequence[PlacedDataset], flag: str) -> None:
    """Check that every data set has a source, unless it is synthetic."""
    for one in placed:
        if one.name.key != SYNTHETIC and not one.place:
            raise ValueError(f"{what} {one.name.key} needs --{flag}, its folder or archive")


class ImageStream(NamedTuple):
    """A stream of images, with `highest_pid`, the largest pid of the people to train on.

    `cameras` is one more than the largest camid to train on; 0 if no camera is known.
    `parts` are the data sets of the images, in order: one or several.
    """

    items: Iterator[Item]
    highest_pid: int
    cameras: int
    parts: list[SetPart]


class DataSetReader:
    """Reads data sets and collects findings in `found`; sources stay open until the block ends."""

    def __init__(self, spec: ReidSpec | None) -> None:
        self.found = Findings()
        self._seen: dict[bytes, FirstSeen] = {}
        self._digests: dict[str, str] = {}
        self._spec = spec
        self._open_places = ExitStack()

    def __enter__(self) -> "DataSetReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._open_places.close()

    def read_splits(
        self,
        one: PlacedDataset,
        splits: tuple[str, ...] = (),
        *,
        needed: tuple[str, ...] = (),
        prefix: str = "",
    ) -> ImageStream:
        """The images of a data set, or of some of its splits; all names begin with `prefix`.

        Splits in `needed` must have images.
        """
        named = one.name
        if named.key == SYNTHETIC:
            assert self._spec
            made = _synthetic_items(self._spec, prefix=prefix)
            part = SetPart(SYNTHETIC, prefix)
            return ImageStream(made, self._spec.identities, self._spec.cameras, [part])
        place = self._open_places.enter_context(local_source(one.place, self._leave_out))
        named = self._with_split_file(named)
        listed = list_dataset(named, self._open_places.enter_context(open_tree(place)))
        if splits:
            listed = select_splits(listed, splits, needed=needed, name=named.key)
        self.found.problems += listed.problems
        self.found.warnings += listed.warnings
        items = check_images(
            track_progress(listed.images, total=len(listed.images), unit="images"),
            self.found,
            seen=self._seen,
            prefix=prefix,
            is_published=is_published(named),
        )
        items = chain(items, self._warnings_after_reading(listed))
        highest = max((image.pid or 0 for image in listed.images), default=0)
        part = SetPart(self._description(one), prefix, listed.protocol, listed.published)
        cameras = (i.camid for i in listed.images if i.split in TRAINING_SPLITS)
        highest_camera = max((camid for camid in cameras if camid is not None), default=-1)
        return ImageStream(items, highest, highest_camera + 1, [part])

    def _warnings_after_reading(self, listed: Listing) -> Iterator[Item]:
        """Yields no image; adds the warnings that need all images to have been read."""
        self.found.warnings += listed.warnings_after_reading()
        yield from ()

    def _with_split_file(self, named: DatasetName) -> DatasetName:
        """A data set whose table of splits, if it has one, is a local file."""
        place = named.options.get(SPLIT)
        if place is None:
            return named
        file = self._open_places.enter_context(local_file(place))
        if file.is_file():  # else its reader reports the error
            self._digests[place] = sha256(file.read_bytes())[:12]
        return named._replace(options={**named.options, SPLIT: str(file)})

    def describe(self, **placed: Sequence[PlacedDataset]) -> dict[str, str]:
        """The names of the data sets that were read, as the manifest has them: without places.

        placed: data sets by parameter; a parameter without data sets is left out.
        """
        return {
            role: join_dataset_names([self._description(one) for one in several])
            for role, several in placed.items()
            if several
        }

    def _description(self, one: PlacedDataset) -> str:
        """A data set's name, where a digest replaces the place of its split file."""
        place = one.name.options.get(SPLIT)
        return one.text if place is None else replace_split_file(one.text, self._digests[place])

    def _leave_out(self, name: str, why: str) -> None:
        """Record an object of a bucket that cannot be a file as a problem, like a damaged image."""
        self.found.problems.append(Problem("unknown name", name, why))

    def read_together(self, named: LearnedAndTested) -> ImageStream:
        """The training images of some data sets and the test images of others, or of the same.

        Image names begin with the name of their data set. Pids, and camids to train on, continue
        from one data set to the next, so that names and numbers are unique.
        """
        every = TRAINING_SPLITS if named.tested else (*TRAINING_SPLITS, *TEST_SPLITS)
        asked: list[tuple[PlacedDataset, tuple[str, ...], tuple[str, ...]]] = [
            *((one, every, ("train",)) for one in named.learned),
            *((one, TEST_SPLITS, ("query", "gallery")) for one in named.tested),
        ]
        taken: list[str] = []
        streams = []
        for number, (one, splits, needed) in enumerate(asked):
            role = "-target" if number >= len(named.learned) else ""
            taken.append(_free_name(one.name.key, role, taken))
            prefix = f"{taken[-1]}/"
            streams.append(self.read_splits(one, splits, needed=needed, prefix=prefix))
        return _join_streams(streams, learned=len(named.learned))


def _free_name(key: str, role: str, taken: Collection[str]) -> str:
    """A folder name for a data set: its key, with role and number if the key is taken."""
    names = chain([key, f"{key}{role}"], (f"{key}{role}-{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


def _join_streams(streams: Sequence[ImageStream], *, learned: int) -> ImageStream:
    """Streams in sequence, with pids and camids counted on; the first `learned` are trained on."""
    items, people, cameras, highest = [], 0, 0, 0
    for number, stream in enumerate(streams):
        items.append(number_on(stream.items, people=people, cameras=cameras))
        people += stream.highest_pid
        cameras += stream.cameras
        highest = people if number < learned else highest
    parts = [part for stream in streams for part in stream.parts]
    return ImageStream(chain.from_iterable(items), highest, cameras, parts)


def _synthetic_items(spec: ReidSpec, *, prefix: str) -> Iterator[Item]:
    """Pictures of synthetic people."""
    memory = worker_memory(spec.image_size)
    processes = worker_count(bytes_each=memory.each, bytes_beside=memory.beside)
    people = map_identities(make_reid_identity, spec, processes=processes)
    for person in track_progress(people, total=spec.identities, unit="identities"):
        for shot in person.shots:
            name = prefix + shot.name
            yield Item(name, shot.data, shot.pid, shot.camid, shot.split, shot.fields)
