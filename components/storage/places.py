"""Where bulk data lives: one small protocol for folders and object stores.

Names are relative POSIX paths under the root that a URI names. A put is all or nothing: a reader
sees the whole object or none, whenever the writer dies. `open_storage` takes a folder or a
file:///, s3:// or minio:// URI; what a bucket needs is in `components.storage.object_store`.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from components.storage.outputs import flush_entry, named, path_of
from san_core.images.shard import is_plain

BUCKETS = ("s3", "minio")


class DamagedError(OSError):
    """What arrives is not what was stored, however often it is read."""


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
        """Keep an object, replacing one of that name; all or nothing."""

    def put_file(self, name: str, path: Path, *, digest: str = "") -> None:
        """Keep the content of a file as an object, replacing one of that name; all or nothing.

        digest is the file's sha256 where it is known, so that it need not be made once more.
        """

    def get(self, name: str) -> bytes:
        """The bytes of an object."""

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes of an object from `offset`; OSError if it has fewer."""

    def stat(self, name: str) -> Stat | None:
        """Name, size and version of an object; None if there is none."""

    def list(self, folder: str = "") -> list[Stat]:
        """The objects in a folder and in its folders, in the order of their names."""

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens if there is none."""


class LocalStorage:
    """Objects as files under a folder; files whose names begin with a dot are not objects."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def uri(self) -> str:
        """The absolute URI of the root."""
        return self.root.as_uri()

    def put_bytes(self, name: str, data: bytes) -> None:
        """Keep an object: written beside its place, flushed to disk, then renamed into it."""
        with self._replacing(name) as file:
            file.write(data)

    def put_file(self, name: str, path: Path, *, digest: str = "") -> None:  # noqa: ARG002
        """Keep the content of a file, as `put_bytes` does; a folder keeps no digests."""
        with path.open("rb") as source, self._replacing(name) as file:
            shutil.copyfileobj(source, file, 1 << 20)

    @contextmanager
    def _replacing(self, name: str) -> Iterator[BinaryIO]:
        """A file to be written, which becomes the object when the block ends well."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        partial = Path(temporary)
        try:
            with named(target), os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.chmod(0o644)
            partial.replace(target)
            flush_entry(target.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def get(self, name: str) -> bytes:
        """The bytes of an object."""
        return (self.root / name).read_bytes()

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes of an object from `offset`; OSError if it has fewer."""
        path = self.root / name
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) < length:
            raise OSError(f"{path} ends at {offset + len(data)}, before byte {offset + length}")
        return data

    def stat(self, name: str) -> Stat | None:
        """Name, size and version of an object; None if there is none."""
        return self._stat(self.root / name)

    def list(self, folder: str = "") -> list[Stat]:
        """The objects in a folder and in its folders, in the order of their names."""
        found = []
        for parent, folders, names in os.walk(self.root / folder, onerror=_unless_missing):
            folders[:] = [name for name in folders if not name.startswith(".")]
            paths = (Path(parent, name) for name in names if not name.startswith("."))
            found += [one for path in paths if (one := self._stat(path))]
        return sorted(found)

    def _stat(self, path: Path) -> Stat | None:
        """What is known of a file; None if it is none, or has just been deleted."""
        try:
            facts = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        name = path.relative_to(self.root).as_posix()
        is_file = stat.S_ISREG(facts.st_mode)
        return Stat(name, facts.st_size, str(facts.st_mtime_ns)) if is_file else None

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens if there is none."""
        (self.root / name).unlink(missing_ok=True)


def _unless_missing(error: OSError) -> None:
    """A folder that is not there holds nothing; one that cannot be read is an error."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def open_storage(uri: str, *folders: str) -> Storage:
    """The storage that a URI names, or a folder under it.

    Args:
        uri: a folder, file:///folder, s3://bucket/prefix or minio://bucket/prefix.
        folders: names to be appended.

    Raises:
        ValueError: the URI is empty or of another kind, or names an impossible bucket.
        PermissionError: it names a bucket, and there are no credentials.
    """
    if is_remote(uri):
        from components.storage.object_store import ObjectStorage

        return ObjectStorage.open(uri, *folders)
    return LocalStorage(local_path(uri).joinpath(*folders))


def is_remote(uri: str) -> bool:
    """Whether a URI names a bucket, not a place on this machine."""
    return uri.partition("://")[0] in BUCKETS and "://" in uri


def place(text: str) -> Path | str:
    """How artifacts are named: a path or file:// URI, as a path; the URI of a bucket as it is.

    Raises:
        ValueError: it is empty or a URI of another kind.
    """
    return text if is_remote(text) else local_path(text)


def local_path(uri: str) -> Path:
    """The folder that a file:// URI or a plain path names.

    Raises:
        ValueError: it is empty or a URI of another kind.
    """
    if not uri:
        raise ValueError("a place is needed, such as /data/textures or s3://bucket/textures")
    scheme, found, rest = uri.partition("://")
    if found and scheme == "file" and rest.removeprefix("localhost").startswith("/"):
        return path_of(f"file://{rest.removeprefix('localhost')}")
    if found or uri.startswith("file:"):
        raise ValueError(f"{uri!r} is neither a folder nor a file:///, s3:// or minio:// URI")
    return Path(uri)


def check_name(name: str) -> None:
    """Names of objects stay below their root.

    Raises:
        ValueError: it is absolute, climbs up, or is not in its plain form.
    """
    if not is_plain(name):
        raise ValueError(f"object name {name!r} is not a plain relative path")
