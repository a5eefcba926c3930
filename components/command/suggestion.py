"""Suggestions for unknown names."""

import difflib
import re
from collections.abc import Iterable


def suggestion(wrong: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: a similar name, and all known ones."""
    names = list(names)
    plain = {_plain(name): name for name in names}
    close = difflib.get_close_matches(_plain(wrong), plain, n=1)
    meant = f"; did you mean {plain[close[0]]!r}?" if close else ";"
    return f"{meant} there are {', '.join(names)}"


def _plain(name: str) -> str:
    """A name without capitals and separators, which are easily mistaken."""
    return re.sub(r"[\W_]", "", name).lower()
