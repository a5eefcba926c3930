"""Hashes of a person's name, the same on every machine, to choose people and to compare them."""

import hashlib
import re
import unicodedata

_WHOLE_NUMBER = re.compile(r"-?\d{1,9}")
_PLACE_BITS = 52  # of a sha256, taken as a fraction: as many as a float holds


def settled_name(name: str) -> str:
    """A name in one spelling: numbers without zeros before them, an accent with its letter."""
    if _WHOLE_NUMBER.fullmatch(name):
        return str(int(name))
    return unicodedata.normalize("NFC", name)


def place_of_name(name: str, purpose: str) -> float:
    """The place of a name in 0 to below 1, uniform by its sha256; each purpose gives another place.

    Of many people about a share S falls below S. The place depends on no other person, so the same
    people are chosen again when people, images or cameras are added.
    """
    digest = hashlib.sha256(f"{purpose}\n{settled_name(name)}".encode("utf-8", "surrogateescape"))
    return int(digest.hexdigest()[: _PLACE_BITS // 4], 16) / float(1 << _PLACE_BITS)
