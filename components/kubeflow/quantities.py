"""Counts, cores, sizes and times, as people write them for Kubernetes.

Each parser raises a ValueError that says what would be right; the caller adds what was found.
"""

import re
from decimal import Decimal

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_count(text: str) -> int:
    """A whole number, 0 included."""
    if not re.fullmatch(r"[0-9]+", text):
        raise ValueError("not a whole number, such as 1")
    return int(text)


def parse_cores(text: str) -> str:
    """A number of cores above 0, as written."""
    if not re.fullmatch(r"[0-9]+m|[0-9]+(\.[0-9]+)?", text) or not Decimal(text.rstrip("m")):
        raise ValueError("not a number of cores, such as 4, 0.5 or 500m")
    return text


def cores_of(text: str) -> Decimal:
    """The number of cores in a word of `parse_cores`: 500m is 0.5."""
    return Decimal(text[:-1]) / 1000 if text.endswith("m") else Decimal(text)


def parse_size(text: str) -> str:
    """A size above 0; a fraction of a unit becomes a whole number of a smaller one.

    KFP takes no fractions, so 1.5Gi becomes 1536Mi.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGT]i|[MGT])", text)
    if not match or not Decimal(match[1]):
        raise ValueError("not a size, such as 16Gi, 1.5Gi or 500Mi")
    amount, unit = Decimal(match[1]), match[2]
    if amount == int(amount):
        return f"{int(amount)}{unit}"
    smallest = "Ki" if unit.endswith("i") else "M"
    for smaller in (one for one in reversed(_BYTES) if one.endswith("i") == unit.endswith("i")):
        whole = amount * _BYTES[unit] / _BYTES[smaller]
        if whole == int(whole):
            return f"{int(whole)}{smaller}"
    raise ValueError(f"not a whole number of {smallest}")


def parse_seconds(text: str) -> int:
    """A time above 0 in seconds."""
    amount, unit = text[:-1], text[-1:]
    if not re.fullmatch(r"[0-9]+", amount) or not int(amount) or unit not in _SECONDS:
        raise ValueError("not a time, such as 90s, 30m, 12h or 2d")
    return int(amount) * _SECONDS[unit]
