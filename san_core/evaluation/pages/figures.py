"""How figures are written: which are shares, and how many digits a number has."""

import re

# Names of shares, also with the name of a data set or of an end of an interval.
_SHARES = re.compile(r"(val_)?(rank\d+|mAP|mINP)(_\w+)?|accuracy_\w+")


def is_share(name: str) -> bool:
    """Whether a figure of that name is a fraction, which people read in per cent."""
    return _SHARES.fullmatch(name) is not None


def number_in_words(value: float) -> str:
    """A number with four digits; one from a thousand on as a whole number."""
    return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1000 else f"{value:,.4g}"
