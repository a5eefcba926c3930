"""Every data set that can be read, by its key, with the options it takes.

A data set is named as `KEY` or `KEY:OPTION,OPTION`, such as `cuhk03:detected,classic=7`; several
are joined by + (see `several`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import NamedTuple

from san_core.data.held_out import ALL, SPLIT, SPLIT_FILE
from san_core.data.prepare import train_on_all
from san_core.data.readers import (
    csv_table,
    cuhk03,
    file_names,
    folders,
    images,
    market1501,
    msmt17,
    partial,
    vehicleid,
)
from san_core.data.readers.several import split_dataset_names, split_dataset_places
from san_core.data.records import Listing
from san_core.data.tree import Tree

SYNTHETIC = "synthetic"
IMAGES = "images"
MIN_SYNTHETIC_IDENTITIES = 6  # of synthetic people; one in three is for testing, at least two
UNTRAINABLE = {
    IMAGES: "it has no identities; generate_textures makes textures from it",
    "partial": "it has only queries and a gallery; name it as target, and another data set as "
    "dataset",
}


_ALL_OPTION = {
    ALL: "trains on all images, also queries and gallery; scores are not benchmark results"
}


class DatasetFormat(NamedTuple):
    """How a data set is read, its description, its options, and whether it is published."""

    listing: Callable[[Tree, Mapping[str, str]], Listing]
    description: str
    options: Mapping[str, str]
    is_published: bool = True


DATASET_FORMATS = {
    "market1501": DatasetFormat(
        market1501.listing, "Market-1501, the folder as published", market1501.OPTIONS | _ALL_OPTION
    ),
    "cuhk03": DatasetFormat(
        cuhk03.listing,
        "CUHK03, read from `cuhk-03.mat`; new protocol (767/700) or a classic split",
        cuhk03.OPTIONS | _ALL_OPTION,
    ),
    "msmt17": DatasetFormat(
        msmt17.listing, "MSMT17, V1 or V2, by its lists", msmt17.OPTIONS | _ALL_OPTION
    ),
    "partial": DatasetFormat(
        partial.listing, "Partial-REID or Partial-iLIDS; for testing only", partial.OPTIONS
    ),
    "csv": DatasetFormat(
        csv_table.listing,
        "a table of your own: path, pid, optional camid and split, boxes in frames",
        csv_table.OPTIONS | _ALL_OPTION,
        is_published=False,
    ),
    "folders": DatasetFormat(
        folders.listing,
        "a folder for every identity, optional splits, cameras",
        folders.OPTIONS | _ALL_OPTION,
        is_published=False,
    ),
    "file_names": DatasetFormat(
        file_names.listing,
        "folders of files whose names carry identity and camera, of people, vehicles, animals",
        file_names.OPTIONS | _ALL_OPTION,
    ),
    "vehicleid": DatasetFormat(
        vehicleid.listing, "VehicleID, by its lists", vehicleid.OPTIONS | _ALL_OPTION
    ),
    IMAGES: DatasetFormat(
        images.listing,
        "photographs without identities, to make textures from",
        {},
        is_published=False,
    ),
}


class DatasetName(NamedTuple):
    """The parsed name of a data set."""

    key: str
    options: dict[str, str]


def parse_dataset_name(dataset: str) -> DatasetName:
    """The key and the options of a data set's name; an option without a value has the value "".

    Raises:
        ValueError: there is no such data set, or an option is unknown or malformed.
    """
    key, _, rest = dataset.strip().partition(":")
    if key != SYNTHETIC and key not in DATASET_FORMATS:
        raise ValueError(
            f"no data set {key!r}; there are {', '.join([SYNTHETIC, *DATASET_FORMATS])}"
            + _closest_key_hint(key, [SYNTHETIC, *DATASET_FORMATS])
        )
    known = DATASET_FORMATS[key].options if key in DATASET_FORMATS else {}
    options: dict[str, str] = {}
    for word in filter(None, rest.split(",")):
        name, equals, value = word.strip().partition("=")
        if name not in known:
            there = f"it takes {', '.join(known)}" if known else "it takes none"
            raise ValueError(f"data set {key} has no option {name!r}; {there}")
        wants_value = known[name].startswith(f"{name}=")
        if wants_value != bool(equals and value):
            how = known[name].partition(":")[0] if wants_value else f"{name}, without a value"
            raise ValueError(f"option {word!r} of data set {key}: write {how}")
        if name in options:
            raise ValueError(f"option {name!r} of data set {key} is given twice")
        options[name] = value
    return DatasetName(key, options)


class PlacedDataset(NamedTuple):
    """One of several data sets: its name as written and parsed, and its place.

    `place` is empty for synthetic people, and if no place was given.
    """

    text: str
    name: DatasetName
    place: str


def parse_placed_datasets(
    names: str, places: str, *, role: str = "dataset", place_role: str = "source"
) -> list[PlacedDataset]:
    """The data sets joined by +, with their places in the same order; synthetic has none.

    Args:
        names: such as "market1501+cuhk03:labeled".
        places: such as "s3://b/market s3://b/cuhk03"; empty if not given.
        role: the parameter that holds the names, for messages.
        place_role: the parameter that holds the places.

    Raises:
        ValueError: a name is wrong, a data set is named twice with the same place, or the number of
            places does not match.
    """
    texts = split_dataset_names(names)
    parsed = _parse_joined_names(texts)
    told = split_dataset_places(names, places)
    wanted = [text for text, name in zip(texts, parsed, strict=True) if name.key != SYNTHETIC]
    if told and not wanted:
        raise ValueError(
            f"{place_role} is {places}, but {role} is {names}, which is rendered and has no "
            f"source. {role} must name the data set at that place, such as market1501"
        )
    if len(texts) > 1 and told and len(told) != len(wanted):
        raise ValueError(
            f"{place_role} has {len(told)} places, and {role} names {len(wanted)} data sets with "
            f"a place ({', '.join(wanted)}): give one for each, in the same order, separated by "
            "spaces; write a space within a place as %20"
        )
    left = iter(told)
    found = [
        PlacedDataset(text, name, next(left, "") if name.key != SYNTHETIC else "")
        for text, name in zip(texts, parsed, strict=True)
    ]
    for number, one in enumerate(found):
        if any((one.name, one.place) == (other.name, other.place) for other in found[:number]):
            raise ValueError(f"{role} names {one.text} twice, with the same place")
    return found


def _parse_joined_names(texts: Sequence[str]) -> list[DatasetName]:
    """The parsed names that + joined.

    Raises:
        ValueError: one is wrong, perhaps because a + belongs to a place.
    """
    try:
        return [parse_dataset_name(text) for text in texts]
    except ValueError as error:
        cut = (one for one, rest in pairwise(texts) if not re.match(r"\w+(:|$)", rest))
        if any(f"{SPLIT}=" in text for text in cut):
            raise ValueError(
                f"{error}. A + joins data sets. In the place of option {SPLIT}, write a + as %2B "
                f"in a URI: {SPLIT}=file:///data/c%2B%2B/{SPLIT_FILE}"
            ) from error
        raise


class LearnedAndTested(NamedTuple):
    """The data sets for training, and those for testing; none if they are the same."""

    learned: list[PlacedDataset]
    tested: list[PlacedDataset]

    @property
    def leaves_nobody(self) -> bool:
        """Whether all images are for training, so that nobody is left for testing."""
        return not self.tested and all(ALL in one.name.options for one in self.learned)

    @property
    def has_synthetic(self) -> bool:
        """Whether people are to be rendered."""
        return any(one.name.key == SYNTHETIC for one in (*self.learned, *self.tested))


def parse_dataset_and_target(
    dataset: str, target: str, *, source: str = "", target_source: str = ""
) -> LearnedAndTested:
    """The data sets for training and for testing, from the four parameters.

    Raises:
        ValueError: a name or place is wrong, a target cannot be used for testing, only its place is
            given, or a data set cannot be used for training.
    """
    learned = parse_placed_datasets(dataset, source)
    if len(learned) > 1:
        for one in learned:
            check_trainable(one.name)
    _check_learned_once(learned)
    if not target:
        if target_source:
            raise ValueError(
                f"target_source is {target_source}, but target is empty: name the data set there"
            )
        return LearnedAndTested(learned, [])
    tested = parse_placed_datasets(target, target_source, role="target", place_role="target_source")
    if all(any(one.name.key == SYNTHETIC for one in each) for each in (learned, tested)):
        raise ValueError("dataset and target are both synthetic; leave the target out")
    if whole := [one.text for one in tested if ALL in one.name.options]:
        raise ValueError(
            f"target {whole[0]} would be used for training as a whole: leave option all out"
        )
    if any(one.name.key == IMAGES for one in tested):
        raise ValueError(f"target {IMAGES} has no identities, so it cannot be used for testing")
    return LearnedAndTested(learned, tested)


def _check_learned_once(learned: list[PlacedDataset]) -> None:
    """Raise ValueError if a published set is named twice: its people would count twice."""
    keys = [one.name.key for one in learned if is_published(one.name)]
    if twice := [key for key in keys if keys.count(key) > 1 and key != "file_names"]:
        raise ValueError(
            f"dataset names {twice[0]} {keys.count(twice[0])} times: the same identities would "
            "count as different people; name it once"
        )


def is_published(named: DatasetName) -> bool:
    """Whether the data set is published; one read by a user's own pattern is not."""
    if named.key == SYNTHETIC:
        return False
    return DATASET_FORMATS[named.key].is_published and "pattern" not in named.options


def check_trainable(learned: DatasetName) -> None:
    """Check that a data set has identities to train on.

    Raises:
        ValueError: this kind of data set never has any.
    """
    if learned.key in UNTRAINABLE:
        raise ValueError(
            f"dataset {learned.key} cannot be used for training: {UNTRAINABLE[learned.key]}"
        )


def check_synthetic_identities(identities: int) -> None:
    """Check that there are synthetic people for training and for testing.

    Raises:
        ValueError: there are too few.
    """
    if identities < MIN_SYNTHETIC_IDENTITIES:
        raise ValueError(
            f"identities is {identities}: at least {MIN_SYNTHETIC_IDENTITIES} are needed, 2 of "
            "them for testing"
        )


def _closest_key_hint(word: str, among: list[str]) -> str:
    close = get_close_matches(word.lower(), among, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def list_dataset(named: DatasetName, tree: Tree) -> Listing:
    """The listing of a data set in a tree.

    Raises:
        FileNotFoundError: the tree is not that data set.
        ValueError: it is not, or a file was given where a folder or an archive is read.
    """
    if tree.given_file and named.key != "csv":
        raise ValueError(
            f"{tree.place}/{tree.given_file} is neither a folder nor an archive (.zip, .tar, "
            f".tar.gz); data set {named.key} is read from these"
        )
    listed = DATASET_FORMATS[named.key].listing(tree, named.options)
    return train_on_all(listed, name=named.key) if ALL in named.options else listed
