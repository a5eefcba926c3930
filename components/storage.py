"""Where bulk data lives: one small protocol for folders and object stores.

Names are relative POSIX paths under the root that a URI names. A put is all or nothing: a reader
sees the whole object or none, whenever the writer dies.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from components.outputs import flush_entry, path_of


class Stat(NamedTuple):
    """An object in a store: its name under the root, and its size in bytes."""

    name: str
    size: int


class Storage(Protocol):
    """A root under which named objects are kept."""

    @property
    def uri(self) -> str:
        """The absolute URI of the root."""

    def put(self, name: str, data: bytes) -> None:
        """Keep an object, replacing one of that name; all or nothing."""

    def get(self, name: str) -> bytes:
        """The bytes of an object; FileNotFoundError if there is none."""

    def stat(self, name: str) -> Stat | None:
        """Name and size of an object; None if there is none."""

    def list(self, folder: str) -> Iterator[Stat]:
        """The objects in a folder, in the order of their names; none if there is no folder."""

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens if there is none."""


class LocalStorage:
    """Objects as files under a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def uri(self) -> str:
        """The absolute URI of the root."""
        return self.root.as_uri()

    def put(self, name: str, data: bytes) -> None:
        """Keep an object: written beside its place, flushed to disk, then renamed into it."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(partial).chmod(0o644)
            Path(partial).replace(target)
            flush_entry(target.parent)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise

    def get(self, name: str) -> bytes:
        """The bytes of an object; FileNotFoundError if there is none."""
        return (self.root / name).read_bytes()

    def stat(self, name: str) -> Stat | None:
        """Name and size of an object; None if there is none."""
        path = self.root / name
        return Stat(name, path.stat().st_size) if path.is_file() else None

    def list(self, folder: str) -> Iterator[Stat]:
        """The objects in a folder, in the order of their names; none if there is no folder."""
        place = self.root / folder
        if not place.is_dir():
            return
        for path in sorted(place.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                yield Stat(f"{folder}/{path.name}", path.stat().st_size)

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens if there is none."""
        (self.root / name).unlink(missing_ok=True)


def open_storage(uri: str, *folders: str) -> Storage:
    """The storage a URI names, or a folder under it: file:///folder, or a plain path.

    Raises:
        ValueError: the URI is empty or of another kind.
    """
    return LocalStorage(local_path(uri).joinpath(*folders))


def local_path(uri: str) -> Path:
    """The folder that a file:// URI or a plain path names.

    Raises:
        ValueError: it is empty or a URI of another kind.
    """
    if not uri:
        raise ValueError("a storage location is needed, such as /data/textures or file:///data/x")
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return path_of(f"file://{parts.path}")
    if "://" in uri or parts.scheme == "file":
        raise ValueError(f"storage {uri!r} is neither a folder nor a file:///... URI")
    return Path(uri)
