"""The messages of a step: with URIs instead of local copies, and a last line for Kubernetes.

Files of a bucket are copied to temporary folders. Code that makes a copy notes its URI with
`note_copy`; code that writes a message lets `name_uris` put the URI back.
"""

import io
import logging
import os
import re
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from components.process.torchrun import is_first_rank
from san_core.disk import DISK_FULL_ERRORS, disk_full_error

# Every container of a pod has this file. Argo and kubectl show its content as the pod's message.
TERMINATION_LOG = Path("/dev/termination-log")
# Files that docker and podman create in their containers.
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
MOST_BYTES = 4096  # of the file, that Kubernetes keeps
WARNING_MARK = "warning: "  # marks warnings in a log

_URI_OF_COPY: dict[str, str] = {}
# Control characters but tab and end of line, marks of direction, and halves of characters.
_UNSHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# The part of a presigned URL that grants access.
SIGNATURE = re.compile(
    r"(?i)((?<=[?&])(?:x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig"
    r"|awsaccesskeyid))=[^&\s\"'<>]*"
)


def note_copy(path: Path, uri: str) -> None:
    """Remember that a local path is, or will be, a copy of a URI."""
    _URI_OF_COPY[str(path)] = uri.rstrip("/")


def name_uris(text: str) -> str:
    """A message with URIs instead of the paths of their copies."""
    for path in sorted(_URI_OF_COPY, key=len, reverse=True):
        text = _URI_OF_COPY[path].join(re.split(rf"{re.escape(path)}(?![\w-])", text))
    return text


@contextmanager
def forget_copies() -> Iterator[None]:
    """Forget the copies noted within the block when it ends."""
    before = dict(_URI_OF_COPY)
    try:
        yield
    finally:
        _URI_OF_COPY.clear()
        _URI_OF_COPY.update(before)


def printable(text: str) -> str:
    """Text that is safe to show, as a name may contain commands for a terminal.

    Control characters except line ends, and marks that change the direction of writing, are shown
    as their numbers. Signatures of presigned URLs are left out.
    """
    shown = _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return SIGNATURE.sub(r"\1=...", shown)


def os_error_message(error: OSError) -> str:
    """`path: what is wrong with it` instead of `[Errno 2] ...: 'path'`."""
    if error.filename is None or error.strerror is None:
        return str(error) or type(error).__name__
    if error.errno in DISK_FULL_ERRORS and error.strerror == os.strerror(error.errno):
        written = error.filename2 or error.filename  # of a copy the first is read
        error = disk_full_error(Path(os.fsdecode(written)))
    other = f" -> {error.filename2}" if error.filename2 is not None else ""
    told = f"{error.filename}{other}: {error.strerror}"
    if isinstance(error, FileExistsError) and Path(os.fsdecode(error.filename)).is_file():
        told = f"{error.filename} is a file, but must be a folder"
    if isinstance(error, PermissionError):
        told += f" for user {os.getuid()}"
        if any(mark.exists() for mark in CONTAINER_MARKS):
            told += '; docker run --user "$(id -u):$(id -g)" runs a step as you'
    return told


def open_standard_streams() -> None:
    """Let streams that a shell has closed (`>&-`) lead nowhere, and show any name in any encoding.

    Else the next file that is opened would have the number of such a stream, and what a library
    prints would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(number, True)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_output_closed() -> bool:
    """Whether nobody reads standard output any more, such as after `| head`."""
    watched = select.poll()
    watched.register(1, 0)
    return any(events & select.POLLERR for _, events in watched.poll(0))


def drop_output() -> int:
    """Let what is still to be printed go nowhere; returns the exit status of a closed output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return 128 + signal.SIGPIPE


def leave_last_words(line: str) -> None:
    """Write the termination message of a pod; do nothing where the file does not exist.

    A message that is too long is cut between two characters.
    """
    told = line.encode("utf-8", "backslashreplace")[:MOST_BYTES].decode("utf-8", "ignore")
    with suppress(OSError):  # it is missing, or of another user; stderr has the line anyway
        opened = os.open(TERMINATION_LOG, os.O_WRONLY | os.O_TRUNC)  # never created here
        with os.fdopen(opened, "wb") as file:
            file.write(told.encode())


class _LineFormatter(logging.Formatter):
    """The time, a mark before warnings, and the message with URIs instead of copies."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(mark)s%(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        record.mark = WARNING_MARK if record.levelno >= logging.WARNING else ""
        return printable(name_uris(super().format(record)))


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Log one line per message to stderr, with the time, in UTF-8, within the block.

    Of torchrun's processes, only the first logs progress.
    """
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO if is_first_rank() else logging.ERROR)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
