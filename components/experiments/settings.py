"""The settings of runs: their differences, and their form in words."""

from collections.abc import Sequence
from typing import Any

from components.experiments.record import Run


def differing_parameters(runs: Sequence[Run]) -> list[str]:
    """The names of the parameters whose values differ between runs that have them."""
    values: dict[str, list[Any]] = {}
    for run in runs:
        for name, value in run.record.request.parameters.items():
            values.setdefault(name, []).append(value)
    return [name for name, found in values.items() if any(one != found[0] for one in found)]


def value_in_words(value: Any) -> str:
    """The value of a setting in a cell of a table."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text or "(empty)"
