"""The rows of the evidence: one measured run each, kept as they finish, and what they are of.

A row counts only for the code, the recipes, the data and the machine that it was measured with;
rows of others are refused, never mixed in.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from components.storage.outputs import write_file

Row = dict[str, Any]


class ForeignRowsError(ValueError):
    """Rows were measured with other code, another recipe or on another machine than today's."""


class RowsFile:
    """A results file: rows, each with the names of its recipes among the recipes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        document = json.loads(path.read_bytes()) if path.is_file() else {}
        self.rows: list[Row] = document.get("rows", [])
        self.recipes: dict[str, Any] = document.get("recipes", {})

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, at once or not at all; a recipe, SAN-PG's too, is kept once."""
        made_by = row["generator"]
        if made_by is not None and made_by["recipe"] is not None:
            made_by = {**made_by, "recipe": self._add_recipe(made_by["recipe"])}
        self.rows.append({**row, "recipe": self._add_recipe(row["recipe"]), "generator": made_by})
        write_file(self.path, self._text())

    def drop(self, arms: Collection[str]) -> None:
        """Forget the rows of some arms; the file does with the first row that is added."""
        self.rows = [row for row in self.rows if row["arm"] not in arms]

    def find(self, **wanted: Any) -> list[Row]:
        """The rows with these values."""
        return [r for r in self.rows if all(r.get(name) == v for name, v in wanted.items())]

    def recipe(self, row: Row) -> dict[str, Any]:
        """All fields of the recipe by which a row was trained, or of SAN-PG's for its facts."""
        fields: dict[str, Any] = self.recipes[row["recipe"]]
        return fields

    def check_value(self, row: Row, name: str, then: Any, today: Any) -> None:
        """Raise ForeignRowsError if a row was measured with another value than today's."""
        if then != today:
            raise ForeignRowsError(
                f"{self.path.name}: the row {row_name(row)} was measured with {name} "
                f"{_short(then)}, today's is {_short(today)}; measure anew with --anew"
            )

    def _add_recipe(self, fields: Mapping[str, Any]) -> str:
        """The name of a recipe, which is kept."""
        name = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
        self.recipes[name] = dict(fields)
        return name

    def _text(self) -> str:
        """One line a row, so that what was added is what a diff shows."""
        recipes = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(fields)}" for name, fields in self.recipes.items()
        )
        rows = ",\n".join(f"  {json.dumps(row)}" for row in self.rows)
        return f'{{\n "recipes": {{\n{recipes}\n }},\n "rows": [\n{rows}\n ]\n}}\n'


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def row_name(row: Mapping[str, Any]) -> str:
    """A row's name in messages."""
    return " ".join(str(row[name]) for name in ("arm", "difficulty", "budget", "seed"))


def mean_score(rows: Sequence[Row], score: str = "mAP", *, test: str = "test") -> float:
    """The mean of a score over rows, a fraction."""
    return float(np.mean([row["scores"][test][score] for row in rows]))


class Difference(NamedTuple):
    """A mean of paired differences, in their unit; its 95 % interval (Student's t) is ± half."""

    mean: float
    half: float | None  # None for a single pair, which has no interval
    pairs: int


def mean_difference(values: Sequence[float]) -> Difference:
    """Of the differences of pairs. Raises ValueError if there is none."""
    if not values:
        raise ValueError("no pair of rows has a seed in common")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Difference(mean, None, 1)
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return Difference(mean, half, len(values))


def paired_differences(
    rows: Iterable[Row], others: Iterable[Row], score: str = "mAP", *, test: str = "test"
) -> list[float]:
    """Differences of a score, in points, of rows to the others of the same seed, by seed.

    test: on which people, a name of score.TESTS.
    """
    theirs = {row["seed"]: row["scores"][test][score] for row in others}
    mine = {row["seed"]: row["scores"][test][score] for row in rows}
    return [
        100 * (mine[seed] - theirs[seed])
        for seed in sorted(mine.keys() & theirs.keys())
        if mine[seed] is not None and theirs[seed] is not None
    ]
