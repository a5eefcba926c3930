"""A saved network as files: which there are, and what they tell without torch."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict

from san_core import recipe as recipes
from san_core.checked_json import Rule, read_json_file
from san_core.recipe import Recipe

WEIGHTS_FILE = "weights.safetensors"
LAST_WEIGHTS_FILE = "last.safetensors"  # beside WEIGHTS where those are not the last but the best
RECIPE_FILE = "recipe.json"
SUMS_FILE = (
    "SHA256SUMS"  # as sha256sum writes it; files that it names are compared before they are used
)
COMPANION_FILES = (SUMS_FILE, "report.json", "MODEL_CARD.md")  # what may lie beside a generator
FORMAT_VERSION = 1
MOST_CLASSES = 10_000_000  # identities of a classifier
_FEW_CLASSES = f"a whole number from 0 to {MOST_CLASSES:,}"


class _Facts(TypedDict):
    """What is known of a network beside its recipe, and perhaps more."""

    num_classes: Annotated[int, Rule(range(MOST_CLASSES + 1).__contains__, _FEW_CLASSES)]
    seed: NotRequired[int]
    recipe: NotRequired[str]
    atlas: NotRequired[str | None]


class _RecipeFile(TypedDict):
    """What recipe.json holds."""

    format: int
    recipe: dict[str, Any]
    facts: _Facts


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
    document = read_json_file(path / RECIPE_FILE, _RecipeFile)
    if document["format"] != FORMAT_VERSION:
        told = f"format {document['format']}, this version reads {FORMAT_VERSION}"
        raise ValueError(f"{path / RECIPE_FILE}: {told}")
    try:
        return ModelDescription(recipes.from_fields(document["recipe"]), {**document["facts"]})
    except ValueError as error:
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
