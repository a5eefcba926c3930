"""The files of a saved network, and what can be read from them without torch.

A network is a folder with weights.safetensors and recipe.json, or an ONNX file with the same facts
in its metadata (`onnx_file`).
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict

from san_core import recipe as recipes
from san_core.checked_json import Rule, json_bytes, read_json, read_json_file
from san_core.data.trained_on import TrainedOn
from san_core.model.onnx_file import DESCRIPTION, read_metadata
from san_core.recipe import Recipe

WEIGHTS_FILE = "weights.safetensors"
LAST_WEIGHTS_FILE = "last.safetensors"  # beside WEIGHTS, if those are the best and not the last
RECIPE_FILE = "recipe.json"
HISTORY_FILE = "history.jsonl"  # a record per epoch of its training
ONNX_SUFFIX = ".onnx"
SUMS_FILE = "SHA256SUMS"  # as sha256sum writes it and `sha256sum --check` reads it
COMPANION_FILES = (SUMS_FILE, "report.json", "MODEL_CARD.md")  # what may lie beside a generator
FORMAT_VERSION = 1
MOST_CLASSES = 10_000_000  # identities of a classifier
_SUM = re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<name>[^/]+)")
_MOST_SUMS_BYTES = 1 << 16
_FEW_CLASSES = f"a whole number from 0 to {MOST_CLASSES:,}"


class _Facts(TypedDict):
    """Facts of a network beside its recipe; there may be more keys."""

    num_classes: Annotated[int, Rule(range(MOST_CLASSES + 1).__contains__, _FEW_CLASSES)]
    seed: NotRequired[int]
    recipe: NotRequired[str]
    atlas: NotRequired[str | None]
    trained_on: NotRequired[TrainedOn]
    failed: NotRequired[str]  # why its training ended early


class _RecipeFile(TypedDict):
    """What recipe.json holds."""

    format: int
    recipe: dict[str, Any]
    facts: _Facts


class ModelDescription(NamedTuple):
    """The content of recipe.json: the recipe, and facts ("num_classes" and whatever was saved)."""

    recipe: Recipe
    facts: dict[str, Any]


def onnx_file(path: Path) -> Path | None:
    """The ONNX file of a network: the path itself, or the only one in a folder without weights.

    None if the network is not an ONNX file.
    """
    if path.is_file() and path.suffix == ONNX_SUFFIX:
        return path
    if not path.is_dir() or (path / RECIPE_FILE).exists() or (path / WEIGHTS_FILE).exists():
        return None
    found = list(path.glob(f"*{ONNX_SUFFIX}"))
    return found[0] if len(found) == 1 else None


def read_description(path: Path) -> ModelDescription:
    """The recipe and the facts of the network saved in directory `path`, or in an ONNX file.

    Raises:
        FileNotFoundError: the directory lacks one of the two files.
        ValueError: recipe.json is damaged, one of the two does not match SHA256SUMS (if it exists),
            or an ONNX file lacks its recipe.
    """
    if (file := onnx_file(path)) is not None:
        if (file.parent / SUMS_FILE).exists() and path.is_dir():
            _check_sums(path, (file.name,))
        return parse_description(read_metadata(file)[DESCRIPTION].encode(), where=str(file))
    for name in (RECIPE_FILE, WEIGHTS_FILE):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} holds no model: {name} is missing")
    if (path / SUMS_FILE).exists():
        _check_sums(path, (RECIPE_FILE, WEIGHTS_FILE))
    return parse_description(json_bytes(path / RECIPE_FILE), where=str(path / RECIPE_FILE))


def description_text(recipe: Recipe, facts: Mapping[str, Any]) -> str:
    """What recipe.json holds, as JSON."""
    document = {"format": FORMAT_VERSION, "recipe": asdict(recipe), "facts": dict(facts)}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def parse_description(data: bytes, *, where: str) -> ModelDescription:
    """The recipe and the facts in the content of a recipe.json.

    where: its name in errors.

    Raises:
        ValueError: it is damaged, or has another version.
    """
    document = read_json(data, _RecipeFile, where=where)
    if document["format"] != FORMAT_VERSION:
        told = f"format {document['format']}, this version reads {FORMAT_VERSION}"
        raise ValueError(f"{where}: {told}")
    try:
        return ModelDescription(recipes.from_fields(document["recipe"]), {**document["facts"]})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def fingerprint(path: Path, name: str = WEIGHTS_FILE) -> str:
    """sha256 (hexadecimal) of a file of the network saved in directory `path`, or of an ONNX file.

    Raises:
        FileNotFoundError: there is none.
    """
    if name == WEIGHTS_FILE and (exported := onnx_file(path)) is not None:
        path, name = exported.parent, exported.name
    if not (path / name).is_file():
        raise FileNotFoundError(f"{path} holds no model: {name} is missing")
    with (path / name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def failure_of(path: Path) -> str:
    """Why the training of the network saved in directory `path` failed; empty if it did not."""
    if not (path / RECIPE_FILE).is_file():
        return ""
    facts = read_json_file(path / RECIPE_FILE, dict[str, Any]).get("facts")
    return str(facts.get("failed", "")) if isinstance(facts, dict) else ""


def lacks_sums(path: Path) -> bool:
    """Whether directory `path` holds a network without checksums, so that damage goes unnoticed.

    Older versions wrote no checksums.
    """
    return (path / RECIPE_FILE).is_file() and not (path / SUMS_FILE).exists()


def write_sums(path: Path) -> None:
    """Write the checksums of all files in directory `path`; call it when all files are written."""
    names = sorted(file.name for file in path.iterdir() if file.name != SUMS_FILE)
    lines = [f"{fingerprint(path, name)}  {name}\n" for name in names]
    (path / SUMS_FILE).write_text("".join(lines))


def _check_sums(path: Path, names: Sequence[str]) -> None:
    """Raise ValueError if these files do not match their checksums."""
    with (path / SUMS_FILE).open("rb") as file:
        lines = file.read(_MOST_SUMS_BYTES).decode("utf-8", "replace").splitlines()
    told = {}
    for line in lines:
        if not (found := _SUM.fullmatch(line)):
            raise ValueError(f"{path / SUMS_FILE}: {line[:80]!r} is not the sha256 of a file")
        told[found["name"]] = found["digest"]
    for name in names:
        if name not in told:
            raise ValueError(f"{path / SUMS_FILE} has no sha256 of {name}")
        if fingerprint(path, name) != told[name]:
            raise ValueError(f"{path / name} is damaged: its sha256 is not that of {SUMS_FILE}")
