"""Several data sets named in one parameter: `market1501+cuhk03:labeled`.

Their places are in another parameter, in the same order and separated by spaces; a space within a
place is written %20. The place of a single data set is taken as it is, spaces included.
"""

from collections.abc import Sequence

_JOINED = "+"
_BLANK = "%20"


def split_dataset_names(text: str) -> list[str]:
    """The names joined by +, in order; a single name if there is no +."""
    return [name.strip() for name in text.split(_JOINED)]


def join_dataset_names(names: Sequence[str]) -> str:
    """The inverse of `split_dataset_names`."""
    return _JOINED.join(names)


def split_dataset_places(names: str, places: str) -> list[str]:
    """The places of data sets, in order; for a single data set, `places` itself."""
    if _JOINED not in names:
        return [places] if places else []
    return [place.replace(_BLANK, " ") for place in places.split()]


def join_dataset_places(names: str, places: Sequence[str]) -> str:
    """The inverse of `split_dataset_places` for these names."""
    if _JOINED not in names:
        return "".join(places)
    return " ".join(place.replace(" ", _BLANK) for place in places)
