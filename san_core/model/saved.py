"""A saved network as files: which there are, and what they tell without torch."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from san_core import recipe as recipes
from san_core.recipe import Recipe

WEIGHTS = "weights.safetensors"
LAST = "last.safetensors"  # beside WEIGHTS where those are not the last but the best
RECIPE = "recipe.json"
SUMS = "SHA256SUMS"  # as sha256sum writes it; files that it names are compared before they are used
COMPANIONS = (SUMS, "report.json", "MODEL_CARD.md")  # what may lie beside a generator
FORMAT = 1


class Description(NamedTuple):
    """What recipe.json says: the recipe, and facts ("num_classes" and whatever was saved)."""

    recipe: Recipe
    facts: dict[str, Any]


def describe(path: Path) -> Description:
    """The recipe and the facts of the network saved in directory `path`.

    Raises:
        FileNotFoundError: the directory lacks one of the two files.
        ValueError: recipe.json is damaged, or a file is not what SHA256SUMS, if it is there, says.
    """
    for name in (RECIPE, WEIGHTS):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} holds no model: {name} is missing")
    if (path / SUMS).exists():
        _check_sums(path)
    try:
        document = json.loads((path / RECIPE).read_text())
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}, this version reads {FORMAT}")
        facts: dict[str, Any] = document["facts"]
        if type(facts["num_classes"]) is not int:
            raise ValueError(f"num_classes {facts['num_classes']!r} is not a whole number")
        return Description(recipes.from_json(json.dumps(document["recipe"])), facts)
    except KeyError as error:
        raise ValueError(f"{path / RECIPE}: the key {error} is missing") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path / RECIPE}: {error}") from error


def fingerprint(path: Path, name: str = WEIGHTS) -> str:
    """sha256 (hexadecimal) of a file of the network saved in directory `path`.

    Raises:
        FileNotFoundError: there is none.
    """
    if not (path / name).is_file():
        raise FileNotFoundError(f"{path} holds no model: {name} is missing")
    with (path / name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_sums(path: Path) -> None:
    for line in (path / SUMS).read_text().splitlines():
        digest, _, name = line.partition("  ")
        if name not in (RECIPE, WEIGHTS):
            raise ValueError(f"{path / SUMS}: {line!r} is not the sha256 of a file of a model")
        if fingerprint(path, name) != digest:
            raise ValueError(f"{path / name} is damaged: its sha256 is not that of {SUMS}")
