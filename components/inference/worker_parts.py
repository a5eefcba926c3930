"""The storage of feature parts, one per worker, until they are joined.

All parts of the same features are in one folder, PLACE/FINGERPRINT/of-COUNT/NUMBER. The fingerprint
covers everything that determines the features. A part is complete when its features.json exists,
which is uploaded last.
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
    """The parameters of extract_features that determine features; so do images, model and code."""

    splits: str
    references: bool
    mirrored: str


def parts_folder(dataset: Path, model: Path, settings: FeatureSettings, *, code: str) -> str:
    """The name of the folder of all parts of some features. code: fingerprint of the code."""
    told = {
        "format": "san-feature-parts-1",
        "dataset": image_set_digest(dataset),
        "model": fingerprint(model),
        "code": code,
        **settings._asdict(),
    }
    return sha256(canonical_json(told))


def place_of_part(place: str, folder: str, part: ToldPart) -> str:
    """The URI of a part below a place."""
    return f"{place.rstrip('/')}/{folder}/of-{part['workers']}/{part['number']}"


def take_finished_part(uri: str, features: Path, part: ToldPart) -> bool:
    """Copy a complete part to `features`; return False if it is incomplete or damaged.

    Raises:
        OSError: the place cannot be read, or there is not enough disk space.
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
    """Raise ValueError unless a folder holds the complete part."""
    files = FeatureFiles(folder)
    if files.part != part:
        raise ValueError(f"it is part {files.part}, not {part}")
    count = len(files.index()[1])
    for name in files.matrix_names:
        files.rows(name, count)


def place_of_all_parts(place: str, folder: str) -> str:
    """The URI of the parts to join: of all complete sets, that with the fewest workers.

    If no set is complete, it is the set with the fewest missing parts; joining it reports them.

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
    """The numbers of finished workers, by worker count. names: files in a folder of parts."""
    found: dict[int, set[int]] = {}
    for name in names:
        if match := _PART.fullmatch(name):
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    return found
