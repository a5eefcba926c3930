"""Data sets on their way into an image set: one, or one to train on and another to test on."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from typing import NamedTuple

from components.process.machine import cores
from components.process.progress import progress
from components.storage.transfer import local_source
from san_core.data.prepare import LEARNED, TESTED, First, checked, moved, only
from san_core.data.readers.sources import SOURCES, SYNTHETIC, Named, listing, paired
from san_core.data.records import Problem, Published
from san_core.data.tree import open_tree
from san_core.images.shard import Item
from san_core.synthesis.dataset import reid_identity
from san_core.synthesis.spec import ReidSpec
from san_core.synthesis.workers import over_identities

log = logging.getLogger(__name__)


def named(dataset: str, source: str, target: str, target_source: str) -> tuple[Named, Named]:
    """The data set to learn and the one to test, which are the same if no target is named.

    Raises:
        ValueError: a name is wrong, or a data set has no place.
    """
    learned, tested = paired(dataset, target, target_source)
    _check_place("dataset", learned, "source", source)
    if target:
        _check_place("target", tested, "target-source", target_source)
    return learned, tested


def _check_place(what: str, named: Named, flag: str, place: str) -> None:
    """A data set must be somewhere, unless it is synthetic."""
    if named.key == SYNTHETIC and place:
        log.warning("the %s %s is not used: the %s is synthetic", flag, place, what)
    if named.key != SYNTHETIC and not place:
        raise ValueError(f"{what} {named.key} needs --{flag}, the folder or archive it is in")


class Part(NamedTuple):
    """Images on their way; `highest` is the largest number among the people to train on."""

    items: Iterator[Item]
    highest: int
    published: Mapping[str, Published]
    protocol: str


class Reader:
    """Reads data sets, and collects what is wrong with them; places stay open until it is left.

    `twins` are images that a published data set has twice in a split; they are kept.
    """

    def __init__(self, spec: ReidSpec | None) -> None:
        self.problems: list[Problem] = []
        self.twins: list[Problem] = []
        self._seen: dict[str, First] = {}
        self._spec = spec
        self._open = ExitStack()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def part(
        self,
        named: Named,
        source: str,
        splits: tuple[str, ...] = (),
        *,
        needed: tuple[str, ...] = (),
        prefix: str = "",
    ) -> Part:
        """A data set, or some splits, of which some are needed; all names begin with `prefix`."""
        if named.key == SYNTHETIC:
            assert self._spec
            made = _synthetic(self._spec, prefix=prefix)
            return Part(made, self._spec.train_identities, {}, "")
        place = self._open.enter_context(local_source(source))
        found = listing(named, self._open.enter_context(open_tree(place)))
        if splits:
            found = only(found, splits, needed=needed, name=named.key)
        self.problems += found.problems
        images = progress(found.images, total=len(found.images), unit="images")
        twins = self.twins if SOURCES[named.key].is_published else None
        items = checked(images, self.problems, seen=self._seen, prefix=prefix, twins=twins)
        highest = max((image.pid or 0 for image in found.images), default=0)
        return Part(items, highest, found.published, found.protocol)

    def between(self, learned: Named, source: str, tested: Named, target: str) -> Part:
        """The training images of one data set and the test images of another.

        Image names begin with those of their sets, and the target's people follow the source's, so
        that no name and no number stands for two.
        """
        other = tested.key if tested.key != learned.key else f"{tested.key}-target"
        first = self.part(learned, source, LEARNED, needed=("train",), prefix=f"{learned.key}/")
        asked = ("query", "gallery")
        second = self.part(tested, target, TESTED, needed=asked, prefix=f"{other}/")
        items = chain(first.items, moved(second.items, by=first.highest))
        published = {**first.published, **second.published}
        return Part(items, first.highest, published, second.protocol)


def _synthetic(spec: ReidSpec, *, prefix: str) -> Iterator[Item]:
    """Pictures of people who do not exist, by cameras that do not either."""
    people = over_identities(reid_identity, spec, processes=cores())
    for person in progress(people, total=spec.identities, unit="identities"):
        for shot in person.shots:
            name = prefix + shot.name
            yield Item(name, shot.data, shot.pid, shot.camid, shot.split, shot.fields)
