"""What to say after a name that nothing has."""

import difflib
import re
from collections.abc import Iterable


def suggestion(wrong: str, names: Iterable[str]) -> str:
    """What to say after an unknown name: the one that may have been meant, and all there are."""
    names = list(names)
    plain = {_plain(name): name for name in names}
    close = difflib.get_close_matches(_plain(wrong), plain, n=1)
    meant = f"; did you mean {plain[close[0]]!r}?" if close else ";"
    return f"{meant} there are {', '.join(names)}"


def _plain(name: str) -> str:
    """A name without what is easily mistaken in it: capitals, and how words are joined."""
    return re.sub(r"[\W_]", "", name).lower()
