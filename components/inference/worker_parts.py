"""The features that workers embed, each its part, where they are kept until they are joined.

Parts of equal features lie in one folder, which is found by what decides them:
PLACE/FINGERPRINT/of-COUNT/NUMBER. A part is finished once its features.json, which is put last, is
there.
"""

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from components.storage.outputs import atomic_folder
from components.storage.places import open_storage
from components.storage.staging import image_set_digest
from components.storage.transfer import fetch_artifact
from san_core.evaluation.feature_files import FEATURES_FILE, FeatureFiles, ToldPart
from san_core.images.shard import canonical_json, sha256
from san_core.model.saved import fingerprint

log = logging.getLogger(__name__)

_PART = re.compile(rf"of-(\d+)/(\d+)/{re.escape(FEATURES_FILE)}")


class FeatureSettings(NamedTuple):
    """What decides features beside images, network and code, as extract_features is given it."""

    splits: str
    references: bool
    mirrored: str


def parts_folder(dataset: Path, model: Path, settings: FeatureSettings, *, code: str) -> str:
    """The name of the folder of all parts of some features. code: fingerprint of what embeds."""
    told = {
        "format": "san-feature-parts-1",
        "dataset": image_set_digest(dataset),
        "model": fingerprint(model),
        "code": code,
        **settings._asdict(),
    }
    return sha256(canonical_json(told))


def place_of_part(place: str, folder: str, part: ToldPart) -> str:
    """Where a part is kept below a place."""
    return f"{place.rstrip('/')}/{folder}/of-{part['workers']}/{part['number']}"


def take_finished_part(uri: str, features: Path, part: ToldPart) -> bool:
    """Bring a part that is finished to `features`; False if it is not, or is damaged.

    Raises:
        OSError: the place cannot be looked into, or there is no room.
    """
    if all(stat.name != FEATURES_FILE for stat in open_storage(uri).list()):
        return False
    try:
        with atomic_folder(features) as folder:
            fetch_artifact(uri, folder)
            _check_whole(folder, part)
    except FileNotFoundError:  # another try of this worker is just sending it
        return False
    except ValueError as error:
        log.warning("%s is made again: %s", uri, error)
        return False
    log.info("taken from %s, where it is finished", uri)
    return True


def _check_whole(folder: Path, part: ToldPart) -> None:
    """Raise ValueError unless a folder holds a part, whole."""
    files = FeatureFiles(folder)
    if files.part != part:
        raise ValueError(f"it is part {files.part}, not {part}")
    count = len(files.index()[1])
    for name in files.matrix_names:
        files.rows(name, count)


def place_of_all_parts(place: str, folder: str) -> str:
    """Where the parts are that are to be joined: of the fewest workers that have all finished.

    Where none have, those that lack least; whoever joins them says what is missing.

    Raises:
        FileNotFoundError: there is no part.
    """
    storage = open_storage(place, folder)
    found = finished_workers(stat.name for stat in storage.list())
    if not found:
        raise FileNotFoundError(
            f"{storage.uri} holds no part of these features: run extract_features for every worker,"
            " with the same settings and code"
        )
    count = min(found, key=lambda workers: (workers - len(found[workers]), workers))
    return f"{storage.uri}/of-{count}"


def finished_workers(names: Iterable[str]) -> dict[int, set[int]]:
    """Which workers have finished, by how many they are. names: of files in a folder of parts."""
    found: dict[int, set[int]] = {}
    for name in names:
        if match := _PART.fullmatch(name):
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    return found
