"""The rows of the evidence: one measured run each, kept as they finish, and what they are of.

A row counts only for the code, the recipe and the data that it was measured with; rows of others
are refused, never mixed in.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from components.outputs import write_file

Row = dict[str, Any]


class ForeignRowsError(ValueError):
    """Rows were measured with other code, another recipe or other data than today's."""


class Kept:
    """A results file: rows, each with the number of its recipe among the recipes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        document = json.loads(path.read_bytes()) if path.is_file() else {}
        self.rows: list[Row] = document.get("rows", [])
        self.recipes: dict[str, Any] = document.get("recipes", {})

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, at once or not at all; its recipe is kept once."""
        fields = dict(row["recipe"])
        name = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
        self.recipes[name] = fields
        self.rows.append({**row, "recipe": name})
        write_file(self.path, self._text())

    def find(self, **wanted: Any) -> list[Row]:
        """The rows with these values."""
        return [r for r in self.rows if all(r.get(name) == v for name, v in wanted.items())]

    def recipe(self, row: Row) -> dict[str, Any]:
        """All fields of a row's recipe."""
        fields: dict[str, Any] = self.recipes[row["recipe"]]
        return fields

    def check(self, **expected: Any) -> None:
        """Raise ForeignRowsError unless every row has these values."""
        for row in self.rows:
            for name, value in expected.items():
                if row[name] != value:
                    raise ForeignRowsError(
                        f"{self.path.name}: the row {told(row)} was measured with {name} "
                        f"{str(row[name])[:12]}, today's is {str(value)[:12]}; measure anew with "
                        "make reproduce ARGS=--anew"
                    )

    def _text(self) -> str:
        """One line a row, so that what was added is what a diff shows."""
        recipes = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(fields)}" for name, fields in self.recipes.items()
        )
        rows = ",\n".join(f"  {json.dumps(row)}" for row in self.rows)
        return f'{{\n "recipes": {{\n{recipes}\n }},\n "rows": [\n{rows}\n ]\n}}\n'


def told(row: Mapping[str, Any]) -> str:
    """A row's name in messages."""
    return " ".join(str(row[name]) for name in ("arm", "difficulty", "budget", "seed"))


class Difference(NamedTuple):
    """A mean of paired differences with its 95 % interval (Student's t), in their unit."""

    mean: float
    low: float | None  # None for a single pair, which has no interval
    high: float | None
    pairs: int


def difference(values: Sequence[float]) -> Difference:
    """Of the differences of pairs. Raises ValueError if there is none."""
    if not values:
        raise ValueError("no pair of rows has a seed in common")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Difference(mean, None, None, 1)
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return Difference(mean, mean - half, mean + half, len(values))


def paired(rows: Iterable[Row], others: Iterable[Row], score: str = "mAP") -> list[float]:
    """Differences of a score, in points, of rows to the others of the same seed, by seed."""
    theirs = {row["seed"]: row[score] for row in others}
    mine = {row["seed"]: row[score] for row in rows}
    return [
        100 * (mine[seed] - theirs[seed])
        for seed in sorted(mine.keys() & theirs.keys())
        if mine[seed] is not None and theirs[seed] is not None
    ]
