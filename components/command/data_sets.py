"""Data sets on their way into an image set: one, or one to train on and another to test on."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from typing import NamedTuple

from components.process.machine import worker_count
from components.process.progress import track_progress
from components.storage.transfer import local_source
from san_core.data.prepare import (
    TEST_SPLITS,
    TRAINING_SPLITS,
    Findings,
    FirstSeen,
    check_images,
    select_splits,
    shift_pids,
)
from san_core.data.readers.sources import (
    DATASET_FORMATS,
    SYNTHETIC,
    DatasetName,
    list_dataset,
    parse_dataset_and_target,
)
from san_core.data.records import Problem, PublishedCounts
from san_core.data.tree import open_tree
from san_core.images.shard import Item
from san_core.synthesis.dataset import make_reid_identity
from san_core.synthesis.spec import ReidSpec
from san_core.synthesis.workers import map_identities, worker_memory

log = logging.getLogger(__name__)


def resolve_data_sets(
    dataset: str, source: str, target: str, target_source: str
) -> tuple[DatasetName, DatasetName]:
    """The data set to learn and the one to test, which are the same if no target is named.

    Raises:
        ValueError: a name is wrong, or a data set has no place.
    """
    learned, tested = parse_dataset_and_target(dataset, target, target_source)
    _check_place("dataset", learned, "source", source)
    if target:
        _check_place("target", tested, "target-source", target_source)
    return learned, tested


def _check_place(what: str, named: DatasetName, flag: str, place: str) -> None:
    """A data set must be somewhere, unless it is synthetic."""
    if named.key == SYNTHETIC and place:
        log.warning("the %s %s is not used: the %s is synthetic", flag, place, what)
    if named.key != SYNTHETIC and not place:
        raise ValueError(f"{what} {named.key} needs --{flag}, the folder or archive it is in")


class ImageStream(NamedTuple):
    """Images on their way; `highest_pid` is the largest number among the people to train on."""

    items: Iterator[Item]
    highest_pid: int
    published: Mapping[str, PublishedCounts]
    protocol: str


class DataSetReader:
    """Reads data sets, and collects what is `found` there; places stay open until it is left."""

    def __init__(self, spec: ReidSpec | None) -> None:
        self.found = Findings()
        self._seen: dict[bytes, FirstSeen] = {}
        self._spec = spec
        self._open_places = ExitStack()

    def __enter__(self) -> "DataSetReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._open_places.close()

    def read_splits(
        self,
        named: DatasetName,
        source: str,
        splits: tuple[str, ...] = (),
        *,
        needed: tuple[str, ...] = (),
        prefix: str = "",
    ) -> ImageStream:
        """A data set, or some splits, of which some are needed; all names begin with `prefix`."""
        if named.key == SYNTHETIC:
            assert self._spec
            made = _synthetic_items(self._spec, prefix=prefix)
            return ImageStream(made, self._spec.train_identities, {}, "")
        place = self._open_places.enter_context(local_source(source, self._leave_out))
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
            is_published=DATASET_FORMATS[named.key].is_published,
        )
        highest = max((image.pid or 0 for image in listed.images), default=0)
        return ImageStream(items, highest, listed.published, listed.protocol)

    def _leave_out(self, name: str, why: str) -> None:
        """An object of a bucket that cannot be a file is a problem, as a damaged image is."""
        self.found.problems.append(Problem("unknown name", name, why))

    def read_cross_domain(
        self, learned: DatasetName, source: str, tested: DatasetName, target: str
    ) -> ImageStream:
        """The training images of one data set and the test images of another.

        Image names begin with those of their sets, and the target's people follow the source's, so
        that no name and no number stands for two.
        """
        other = tested.key if tested.key != learned.key else f"{tested.key}-target"
        first = self.read_splits(
            learned, source, TRAINING_SPLITS, needed=("train",), prefix=f"{learned.key}/"
        )
        asked = ("query", "gallery")
        second = self.read_splits(tested, target, TEST_SPLITS, needed=asked, prefix=f"{other}/")
        items = chain(first.items, shift_pids(second.items, by=first.highest_pid))
        published = {**first.published, **second.published}
        return ImageStream(items, first.highest_pid, published, second.protocol)


def _synthetic_items(spec: ReidSpec, *, prefix: str) -> Iterator[Item]:
    """Pictures of people who do not exist, by cameras that do not either."""
    memory = worker_memory(spec.image_size)
    processes = worker_count(bytes_each=memory.each, bytes_beside=memory.beside)
    people = map_identities(make_reid_identity, spec, processes=processes)
    for person in track_progress(people, total=spec.identities, unit="identities"):
        for shot in person.shots:
            name = prefix + shot.name
            yield Item(name, shot.data, shot.pid, shot.camid, shot.split, shot.fields)
