"""The protocol of every store of bulk data, for folders and object stores.

Names are relative POSIX paths under the root that a URI names. A put is all or nothing: a reader
sees the whole object or none, whenever the writer dies.
"""

from pathlib import Path
from typing import NamedTuple, Protocol

from san_core.images.shard import is_plain_path

TRAINING_KEY_FILE = "run.json"  # beside the state of a training: what decides its result
MOST_IN_MEMORY = 512 << 20  # bytes of an object that is read at once


class DamagedError(OSError):
    """The data that arrive are not the stored data, in every attempt."""


class Stat(NamedTuple):
    """An object in a store.

    name is its path under the root; size is in bytes; version changes whenever it is rewritten.
    """

    name: str
    size: int
    version: str


class Storage(Protocol):
    """A root under which named objects are kept; may be used by several threads at once.

    Whatever goes wrong is an OSError that says in one line what and where: FileNotFoundError for an
    object or bucket that is not there, PermissionError for credentials that are missing or refused,
    ConnectionError for a server that does not answer. What may pass (a server restarting, a broken
    connection) is tried again before that.
    """

    @property
    def uri(self) -> str:
        """The absolute URI of the root."""

    def put_bytes(self, name: str, data: bytes) -> None:
        """Write an object atomically, replacing one of that name."""

    def put_file(self, name: str, path: Path, *, digest: str = "") -> None:
        """Keep the content of a file as an object, replacing one of that name; all or nothing.

        digest is the file's sha256 where it is known, so that it need not be made once more.
        """

    def get(self, name: str, *, most: int = MOST_IN_MEMORY) -> bytes:
        """The bytes of an object; OSError if there are more than `most`, of which none is kept."""

    def get_file(self, name: str, path: Path) -> None:
        """Copy an object to a file; it may be larger than memory."""

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes of an object from `offset`; OSError if it has fewer."""

    def stat(self, name: str) -> Stat | None:
        """Name, size and version of an object; None if there is none."""

    def list(self, folder: str = "") -> list[Stat]:
        """The objects in a folder and its subfolders, sorted by name."""

    def is_empty(self) -> bool:
        """Whether there is no object; a store in a bucket is asked once, however much it holds."""

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens if there is none."""

    def sweep(self, folder: str = "") -> int:
        """Remove the leftovers of killed writers from a folder; return the number of files."""


def check_fits_memory(where: str, size: int, most: int) -> None:
    """Raise OSError if an object is larger than what is read at once."""
    if size > most:
        raise OSError(f"{where} has {size:,} bytes; at most {most:,} are read at once")


def check_object_name(name: str) -> None:
    """Names of objects stay below their root.

    Raises:
        ValueError: it is absolute, climbs up, or is not in its plain form.
    """
    if not is_plain_path(name):
        raise ValueError(f"object name {name!r} is not a plain relative path")
