"""Several data sets in the words of one parameter: `market1501+cuhk03:labeled`.

Their places stand in another parameter in the same order, with blanks between them; a blank within
one is written %20. The place of a single data set is taken as it is, blanks included.
"""

from collections.abc import Sequence

_JOINED = "+"
_BLANK = "%20"


def split_dataset_names(text: str) -> list[str]:
    """The names that + joins, in their order; one where it joins none."""
    return [name.strip() for name in text.split(_JOINED)]


def join_dataset_names(names: Sequence[str]) -> str:
    """What `split_dataset_names` takes apart."""
    return _JOINED.join(names)


def split_dataset_places(names: str, places: str) -> list[str]:
    """The places of data sets, in their order; that of a single one is `places` itself."""
    if _JOINED not in names:
        return [places] if places else []
    return [place.replace(_BLANK, " ") for place in places.split()]


def join_dataset_places(names: str, places: Sequence[str]) -> str:
    """What `split_dataset_places` takes apart with these names."""
    if _JOINED not in names:
        return "".join(places)
    return " ".join(place.replace(" ", _BLANK) for place in places)
