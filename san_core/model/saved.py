"""A saved network as files: which there are, and what they tell without torch."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from san_core import recipe as recipes
from san_core.recipe import Recipe

WEIGHTS_FILE = "weights.safetensors"
LAST_WEIGHTS_FILE = "last.safetensors"  # beside WEIGHTS where those are not the last but the best
RECIPE_FILE = "recipe.json"
SUMS_FILE = (
    "SHA256SUMS"  # as sha256sum writes it; files that it names are compared before they are used
)
COMPANION_FILES = (SUMS_FILE, "report.json", "MODEL_CARD.md")  # what may lie beside a generator
FORMAT_VERSION = 1


class ModelDescription(NamedTuple):
    """What recipe.json says: the recipe, and facts ("num_classes" and whatever was saved)."""

    recipe: Recipe
    facts: dict[str, Any]


def read_description(path: Path) -> ModelDescription:
    """The recipe and the facts of the network saved in directory `path`.

    Raises:
        FileNotFoundError: the directory lacks one of the two files.
        ValueError: recipe.json is damaged, or a file is not what SHA256SUMS, if it is there, says.
    """
    for name in (RECIPE_FILE, WEIGHTS_FILE):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} holds no model: {name} is missing")
    if (path / SUMS_FILE).exists():
        _check_sums(path)
    try:
        document = json.loads((path / RECIPE_FILE).read_text())
        if document["format"] != FORMAT_VERSION:
            raise ValueError(f"format {document['format']!r}, this version reads {FORMAT_VERSION}")
        facts: dict[str, Any] = document["facts"]
        if type(facts["num_classes"]) is not int:
            raise ValueError(f"num_classes {facts['num_classes']!r} is not a whole number")
        return ModelDescription(recipes.from_json(json.dumps(document["recipe"])), facts)
    except KeyError as error:
        raise ValueError(f"{path / RECIPE_FILE}: the key {error} is missing") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path / RECIPE_FILE}: {error}") from error


def fingerprint(path: Path, name: str = WEIGHTS_FILE) -> str:
    """sha256 (hexadecimal) of a file of the network saved in directory `path`.

    Raises:
        FileNotFoundError: there is none.
    """
    if not (path / name).is_file():
        raise FileNotFoundError(f"{path} holds no model: {name} is missing")
    with (path / name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_sums(path: Path) -> None:
    for line in (path / SUMS_FILE).read_text().splitlines():
        digest, _, name = line.partition("  ")
        if name not in (RECIPE_FILE, WEIGHTS_FILE):
            raise ValueError(f"{path / SUMS_FILE}: {line!r} is not the sha256 of a file of a model")
        if fingerprint(path, name) != digest:
            raise ValueError(f"{path / name} is damaged: its sha256 is not that of {SUMS_FILE}")
