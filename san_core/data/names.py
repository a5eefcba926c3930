"""What stands for a person's name, on any machine and for ever: hashes that choose and compare."""

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
    """Where a name falls in 0 to below 1, evenly by its sha256; elsewhere for another purpose.

    Of many people a share below S falls under S, whoever else is there, so that whom that chooses
    is chosen again when there are more people, images or cameras.
    """
    digest = hashlib.sha256(f"{purpose}\n{settled_name(name)}".encode("utf-8", "surrogateescape"))
    return int(digest.hexdigest()[: _PLACE_BITS // 4], 16) / float(1 << _PLACE_BITS)
