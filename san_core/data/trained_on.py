"""The training images and people that a saved network records, and which of a test set it has seen.

Images are identified by their bytes and people by their names, each by a short hash. If people have
only numbers, the data set's key is hashed too: number 7 of two published sets is not one person. In
a user's own set, whose key says nothing, a number counts as seen only if an image of the set was
seen too.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypedDict

from san_core.checked_json import Rule
from san_core.data.names import settled_name
from san_core.data.records import LabelledImage, person_name
from san_core.images.shard import Record

_DIGITS = 12  # of a hash: a million against a million collide once in 300 cases
_NUMBER = re.compile(r"-?\d+")
_NAMING = re.compile(r"[:,] *((?:like|pattern)=[^,]*)")  # of readers of many sets
_OWN_SETS = ("csv", "folders", "file_names")  # several sets with one key cannot be told apart

Hashes = Annotated[
    str,
    Rule(re.compile(rf"(?:[0-9a-f]{{{_DIGITS}}})*").fullmatch, f"hashes of {_DIGITS} digits each"),
]


class NamedSet(TypedDict):
    """A data set by its name and the sha256 of its manifest."""

    name: str
    fingerprint: str


class TrainedOn(TypedDict):
    """The record in recipe.json: the data sets, and the sorted hashes of images and people."""

    data_sets: list[NamedSet]
    images: Hashes
    people: Hashes


class SeenInTraining(TypedDict):
    """How many of some images a network was trained on, and how many of their people."""

    images: int
    of_images: int
    people: int
    of_people: int


class DescribedSet(NamedTuple):
    """A set of images with the sha256 and the provenance of its manifest."""

    fingerprint: str
    provenance: Mapping[str, Any]


def describe_training(records: Iterable[Record], of: DescribedSet) -> TrainedOn:
    """The record of a network that is trained on some images of a set."""
    images, people = set[str](), set[str]()
    for record in records:
        images.add(record.sha256[:_DIGITS])
        people |= _person_hash(record, of.provenance)
    name = str(of.provenance.get("dataset") or of.provenance.get("made_by") or "unknown")
    told = NamedSet(name=name, fingerprint=of.fingerprint)
    return TrainedOn(data_sets=[told], images=_joined(images), people=_joined(people))


def merge_trainings(trainings: Sequence[TrainedOn]) -> TrainedOn:
    """The joined record of a network trained on all of these, or started from one that was."""
    sets: list[NamedSet] = []
    for training in trainings:
        sets += [one for one in training["data_sets"] if one not in sets]
    return TrainedOn(
        data_sets=sets,
        images=_joined({h for training in trainings for h in _parted(training["images"])}),
        people=_joined({h for training in trainings for h in _parted(training["people"])}),
    )


def count_seen(
    training: TrainedOn, records: Iterable[Record], provenance: Mapping[str, Any]
) -> SeenInTraining:
    """How many images of a set, and how many of its people, a training has seen.

    provenance: of the set. Distractors and junk are not people.
    """
    known, known_people = set(_parted(training["images"])), set(_parted(training["people"]))
    seen = SeenInTraining(images=0, of_images=0, people=0, of_people=0)
    people, seen_people = set[str](), set[str]()
    for record in records:
        is_seen = record.sha256[:_DIGITS] in known
        seen["of_images"] += 1
        seen["images"] += is_seen
        person = _person_hash(record, provenance)
        people |= person
        if is_seen or not _is_own_number(record, provenance):
            seen_people |= person & known_people
    return {**seen, "people": len(seen_people), "of_people": len(people)}


def seen_in_words(seen: SeenInTraining) -> str:
    """A warning that a network was trained on test images or people; empty if it was not."""
    parts = []
    if seen["people"]:
        parts.append(f"{seen['people']:,} of the {seen['of_people']:,} identities (by their names)")
    if seen["images"]:
        parts.append(f"{seen['images']:,} of the {seen['of_images']:,} images")
    return f"trained on {' and '.join(parts)}" if parts else ""


def _person_hash(record: LabelledImage, provenance: Mapping[str, Any]) -> set[str]:
    """The hash of the person of an image; None if the person has no name."""
    if record.pid is None or (record.pid < 1 and "texture" not in record.fields):
        return set()
    name = settled_name(str(record.fields.get("texture") or person_name(record)))
    if _NUMBER.fullmatch(name) or "texture" in record.fields:
        name = f"{_scope(record.name, provenance)}\n{name}"
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape"))
    return {digest.hexdigest()[:_DIGITS]}


def _scope(name: str, provenance: Mapping[str, Any]) -> str:
    """The scope in which a person's number is unique: the data set's key, or more."""
    dataset = _dataset_of(name, provenance)
    key = dataset.partition(":")[0]
    spec = provenance.get("spec")
    if isinstance(spec, dict) and key in ("synthetic", "make_pit"):
        return f"{key} {spec.get('seed')}"
    naming = _NAMING.search(dataset)
    return f"{key} {naming[1].strip()}" if naming else key


def _is_own_number(record: LabelledImage, provenance: Mapping[str, Any]) -> bool:
    """Whether the person of an image is a number in a user's own set."""
    dataset = _dataset_of(record.name, provenance)
    is_own = dataset.partition(":")[0] in _OWN_SETS and "like=" not in dataset
    return is_own and _NUMBER.fullmatch(settled_name(person_name(record))) is not None


def _dataset_of(name: str, provenance: Mapping[str, Any]) -> str:
    """The name of an image's data set, options included."""
    parts = provenance.get("parts") or []
    part = next((one["name"] for one in parts if name.startswith(one["prefix"])), None)
    return str(part or provenance.get("dataset") or provenance.get("made_by"))


def _joined(hashes: set[str]) -> str:
    return "".join(sorted(hashes))


def _parted(hashes: str) -> list[str]:
    return [hashes[start : start + _DIGITS] for start in range(0, len(hashes), _DIGITS)]
