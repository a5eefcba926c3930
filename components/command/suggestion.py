"""What to say after a name that nothing has."""

import difflib
from collections.abc import Iterable


def suggestion(wrong: str, names: Iterable[str]) -> str:
    """What to say after an unknown name: the one that may have been meant, and all there are."""
    names = list(names)
    close = difflib.get_close_matches(wrong, names, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{meant} there are {', '.join(names)}"
