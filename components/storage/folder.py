"""A folder as a store: objects are files."""

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from components.storage.outputs import add_path_to_errors, flush_to_disk
from components.storage.store import MOST_IN_MEMORY, Stat, check_fits_memory

PARTIAL_SUFFIX = ".san-partial"
SECONDS_TO_LOCK = 10.0  # maximum time in which a writer locks a file that it has begun
# Locks may hold on one node only, so a put removes no file that another node may still write.
SECONDS_WITHOUT_LOCK = 6 * 3600.0


class LocalStorage:
    """Objects as files under a folder; files whose names begin with a dot are not objects."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._swept: set[Path] = set()

    @property
    def uri(self) -> str:
        """The absolute URI of the root."""
        return self.root.as_uri()

    def put_bytes(self, name: str, data: bytes) -> None:
        """Write an object: to a file beside its path, flushed to disk, then renamed."""
        with self._open_replacement(name) as file:
            file.write(data)

    def put_file(self, name: str, path: Path, *, digest: str = "") -> None:  # noqa: ARG002
        """Write the content of a file, as `put_bytes` does; a folder stores no digests."""
        with path.open("rb") as source, self._open_replacement(name) as file:
            shutil.copyfileobj(source, file, 1 << 20)

    @contextmanager
    def _open_replacement(self, name: str) -> Iterator[BinaryIO]:
        """A file to write, which becomes the object when the block ends without an error."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.parent not in self._swept:
            self._swept.add(target.parent)
            _sweep(target.parent, SECONDS_WITHOUT_LOCK)
        handle, temporary = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=PARTIAL_SUFFIX, dir=target.parent
        )
        partial = Path(temporary)
        with suppress(OSError):  # on a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            with add_path_to_errors(target), os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                partial.chmod(0o644)
                partial.replace(target)  # while it is locked, so that nobody removes it
            flush_to_disk(target.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def get(self, name: str, *, most: int = MOST_IN_MEMORY) -> bytes:
        """The bytes of an object; OSError if there are more than `most`."""
        path = self.root / name
        if path.exists() and not path.is_file():
            raise OSError(f"{path} is not a file")
        check_fits_memory(str(path), path.stat().st_size, most)
        return path.read_bytes()

    def get_file(self, name: str, path: Path) -> None:
        """Copy an object into a file."""
        shutil.copyfile(self.root / name, path)

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
        return self._file_stat(self.root / name)

    def list(self, folder: str = "") -> list[Stat]:
        """The objects in a folder and its subfolders, sorted by name."""
        found = []
        for parent, folders, names in os.walk(self.root / folder, onerror=_raise_unless_missing):
            folders[:] = [name for name in folders if not name.startswith(".")]
            paths = (Path(parent, name) for name in names if not name.startswith("."))
            found += [one for path in paths if (one := self._file_stat(path))]
        return sorted(found)

    def is_empty(self) -> bool:
        """Whether there is no object."""
        return not self.list()

    def _file_stat(self, path: Path) -> Stat | None:
        """The status of a file; None if it is not a file, or was just deleted."""
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

    def sweep(self, folder: str = "") -> int:
        """Remove the leftovers of killed writers from a folder; return the number of files."""
        return _sweep(self.root / folder, SECONDS_TO_LOCK)


def _sweep(folder: Path, seconds: float) -> int:
    """Remove files that nobody writes and that are old enough; return their number."""
    partials = folder.glob(f".*{PARTIAL_SUFFIX}")
    left = [path for path in partials if _is_abandoned(path, seconds)]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def _is_abandoned(partial: Path, seconds: float) -> bool:
    """Whether a file is unlocked and old enough, as a writer may have only just begun it."""
    try:
        with partial.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return time.time() - partial.stat().st_mtime > seconds
    except OSError:
        return False


def _raise_unless_missing(error: OSError) -> None:
    """Ignore a missing folder, which holds nothing; one that cannot be read is an error."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
