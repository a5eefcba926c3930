"""What people read of a step: the URIs they know, and the last line, which Kubernetes keeps.

What lies in a bucket is copied to folders that nobody knows. Whoever makes a copy notes what it
stands for, whoever speaks lets `name_uris` put the URI back.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Every container of a pod has this file. Argo and kubectl show what is in it as the pod's message.
TERMINATION_LOG = Path("/dev/termination-log")
MOST_BYTES = 4096  # that Kubernetes keeps of it
WARNING_MARK = "warning: "  # how a log tells warnings from what is only told

_URI_OF_COPY: dict[str, str] = {}


def note_copy(path: Path, uri: str) -> None:
    """Remember that a path of this machine is, or will be, a copy of what lies at a URI."""
    _URI_OF_COPY[str(path)] = uri.rstrip("/")


def name_uris(text: str) -> str:
    """A message with URIs in the place of the paths of their copies."""
    for path in sorted(_URI_OF_COPY, key=len, reverse=True):
        text = _URI_OF_COPY[path].join(re.split(rf"{re.escape(path)}(?![\w-])", text))
    return text


@contextmanager
def forget_copies() -> Iterator[None]:
    """What is noted within the block is forgotten when it ends."""
    before = dict(_URI_OF_COPY)
    try:
        yield
    finally:
        _URI_OF_COPY.clear()
        _URI_OF_COPY.update(before)


def leave_last_words(line: str) -> None:
    """Write a line where Kubernetes looks for it; where there is no such file, do nothing.

    What is too long is cut between two characters.
    """
    told = line.encode("utf-8", "backslashreplace")[:MOST_BYTES].decode("utf-8", "ignore")
    with suppress(OSError):  # there is none, or it is somebody else's; stderr has the line anyway
        opened = os.open(TERMINATION_LOG, os.O_WRONLY | os.O_TRUNC)  # never made here
        with os.fdopen(opened, "wb") as file:
            file.write(told.encode())
