"""What a benchmark yields."""

from typing import NamedTuple


class Figure(NamedTuple):
    """A measured figure under its name."""

    name: str
    value: float
    unit: str
