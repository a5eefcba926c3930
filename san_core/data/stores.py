"""Files of a data set under POSIX names: in a folder, a .zip or a .tar."""

import bz2
import errno
import gzip
import lzma
import os
import posixpath
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from san_core.data.tar_members import tar_members
from san_core.disk import DISK_FULL_ERRORS, disk_full_error, reserve_space
from san_core.images.shard import MOST_FILE_BYTES, is_plain_path

MOST_FOLDERS_DEEP = 100
# Limits on the files that links of an archive may lead to: per file, and a minimum.
MOST_LINKED_TIMES, ALWAYS_LINKED_FILES = 4, 10_000
# Limits on what a compressed .tar may unpack to: times its size, and a minimum in bytes.
MOST_UNPACKED_TIMES, ALWAYS_UNPACKED_BYTES = 100, 4 << 30
_MOST_ROUNDS = 40  # of links that lead to links
_CHUNK = 1 << 20
# Errors that mean "no such file"; any other is an error of the file system.
_ABSENT_ERRORS = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)

# Errors of `zipfile` for a directory that is damaged or of a later version.
_BAD_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error)


class UnreadableError(ValueError):
    """A file of a data set cannot be read; `reason` says why, without its name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.reason = reason


class Entries(NamedTuple):
    """The entries of a folder by bare name, sorted."""

    files: list[str]
    folders: list[str]


class Store(Protocol):
    """The files that a tree reads; names are paths from the root, and "" is the root."""

    def entries(self, folder: str) -> Entries | None:
        """The entries of a folder; None if there is no such folder."""

    def read(self, name: str) -> bytes:
        """The bytes of a file."""

    def is_file(self, name: str) -> bool:
        """Whether there is a file of that name."""

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of that name."""

    def identity(self, folder: str) -> object:
        """An identifier of a folder, the same through every link to it."""

    def local_path(self, name: str) -> Path | None:
        """The path of a file on this machine; None inside an archive."""

    def copy_to(self, name: str, target: BinaryIO) -> None:
        """Write the bytes of a file into another, piece by piece."""


class FolderStore:
    """A folder of the file system."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def entries(self, folder: str) -> Entries | None:
        """The entries of a folder; None if there is no such folder."""
        found = Entries([], [])
        try:
            with os.scandir(self._full_path(folder)) as scanned:
                for entry in scanned:
                    (found.folders if _is_folder(entry) else found.files).append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Entries(sorted(found.files), sorted(found.folders))

    def read(self, name: str) -> bytes:
        """The bytes of a file; pipes and devices are refused, so reading never blocks."""
        path = self._full_path(name)
        with _name_file(path), open(path, "rb", buffering=0, opener=_open_at_once) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise UnreadableError(path, "is a pipe or a device, not a file")
            _check_size(path, facts.st_size)
            return file.read()

    def is_file(self, name: str) -> bool:
        """Whether there is a file of that name."""
        try:
            found = os.stat(self._full_path(name))  # noqa: PTH116 - no Path for every image
        except OSError as error:
            if error.errno not in _ABSENT_ERRORS:
                raise
            return False
        return stat.S_ISREG(found.st_mode)

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of that name."""
        return Path(self._full_path(name)).is_dir()

    def identity(self, folder: str) -> object:
        """Where the folder is on its disk."""
        facts = os.stat(self._full_path(folder))  # noqa: PTH116 - no Path for every folder
        return facts.st_dev, facts.st_ino

    def local_path(self, name: str) -> Path | None:
        """Where the file lies by itself."""
        return Path(self._full_path(name))

    def copy_to(self, name: str, target: BinaryIO) -> None:
        """Write the bytes of a file into another."""
        with Path(self._full_path(name)).open("rb") as file:
            shutil.copyfileobj(file, target, _CHUNK)

    def _full_path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for a writer if it is a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _check_size(name: str, size: int) -> None:
    """Raise UnreadableError if a file is too large to be read at once."""
    if size > MOST_FILE_BYTES:
        raise UnreadableError(name, f"has {size:,} bytes; at most {MOST_FILE_BYTES:,} are read")


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a folder; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno not in _ABSENT_ERRORS:
            raise
        return False


class _FolderIndex:
    """The folders of an archive, made from the names of its files."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._folders: dict[str, tuple[set[str], set[str]]] = {"": (set(), set())}

    def add(self, name: str, *, is_folder: bool) -> str:
        """Add a file or folder; returns its normalised name.

        Raises:
            ValueError: it would lie outside of the archive.
        """
        plain = name.removeprefix("./").rstrip("/")
        if plain in ("", "."):
            return ""
        if not is_plain_path(plain):
            raise ValueError(f"{self._place} has a file named {name!r}, which leads out of it")
        if plain.count("/") > MOST_FOLDERS_DEEP:
            raise ValueError(f"{self._place} has folders nested deeper than {MOST_FOLDERS_DEEP}")
        if is_folder:
            self._ensure_folder(plain)
        else:
            parent, _, bare = plain.rpartition("/")
            self._ensure_folder(parent)[0].add(bare)
        return plain

    def _ensure_folder(self, name: str) -> tuple[set[str], set[str]]:
        if name not in self._folders:
            self._folders[name] = (set(), set())
            parent, _, bare = name.rpartition("/")
            self._ensure_folder(parent)[1].add(bare)
        return self._folders[name]

    def entries(self, folder: str) -> Entries | None:
        """The entries of a folder; None if there is no such folder."""
        if folder not in self._folders:
            return None
        files, folders = self._folders[folder]
        return Entries(sorted(files), sorted(folders))

    def files_below(self, folder: str) -> Iterator[str]:
        """The names of the files in a folder and in its folders."""
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            files, folders = self._folders[here]
            yield from [f"{here}/{name}" for name in files]
            waiting += [f"{here}/{name}" for name in folders]


class ZipStore:
    """A .zip, whose files are found by its directory."""

    def __init__(self, path: Path, exit_stack: ExitStack) -> None:
        self._place = str(path)
        try:
            self._zip = exit_stack.enter_context(zipfile.ZipFile(path))
        except _BAD_ZIP_ERRORS as error:
            raise ValueError(f"{path} is not a whole .zip: {error}") from error
        index = _FolderIndex(str(path))
        infos = self._zip.infolist()
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            name = info.filename.replace("\\", "/")  # as some programs of Windows part folders
            is_folder = name.endswith("/")
            plain = index.add(name, is_folder=is_folder)
            if plain and not is_folder:
                self._infos[plain] = info
        self._index = index
        if locked := [i.filename for i in infos if i.flag_bits & 1]:
            raise ValueError(f"{path} is encrypted with a password ({locked[0]}); decrypt it first")

    def entries(self, folder: str) -> Entries | None:
        """The entries of a folder; None if there is no such folder."""
        return self._index.entries(folder)

    def read(self, name: str) -> bytes:
        """The bytes of a file, no more than the archive's directory says."""
        info, where = self._infos[name], f"{self._place}: {name}"
        _check_size(where, info.file_size)
        with _unpack_errors(where), self._zip.open(info) as file:
            return b"".join(iter(partial(file.read, _piece_size(info)), b""))

    def is_file(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return name in self._infos

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of that name."""
        return self._index.entries(name) is not None

    def identity(self, folder: str) -> object:
        """Its name: a link counts as a folder of its own."""
        return folder

    def local_path(self, name: str) -> Path | None:  # noqa: ARG002
        """None: it lies in the archive."""
        return None

    def copy_to(self, name: str, target: BinaryIO) -> None:
        """Write the bytes of a file into another."""
        info = self._infos[name]
        reserve_space(target, info.file_size, path=Path(target.name))
        with _unpack_errors(f"{self._place}: {name}"), self._zip.open(info) as file:
            shutil.copyfileobj(file, target, _piece_size(info))


def _piece_size(info: zipfile.ZipInfo) -> int:
    """How much of a compressed file to read at once, so that the output fits into memory.

    For bzip2 and LZMA, `zipfile` unpacks all the bytes that were read, however many they become.
    """
    is_bounded = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return _CHUNK if is_bounded else 4096


class TarStore:
    """A .tar, whose files are found by one pass over its headers; links are followed.

    A compressed one is unpacked into one temporary file first, since its files cannot be
    reached otherwise.
    """

    def __init__(self, path: Path, exit_stack: ExitStack) -> None:
        self._place = str(path)
        self._file = _open_uncompressed_tar(path, exit_stack)
        self._index = _FolderIndex(self._place)
        self._ranges: dict[str, tuple[int, int]] = {}
        links: dict[str, str] = {}
        for member in tar_members(self._file, self._place):
            self._add_member(member, links)
        self._resolve_links(links)

    def _add_member(self, member: tarfile.TarInfo, links: dict[str, str]) -> None:
        """Add the file of a header; adds a link's target, from the root, to `links`."""
        if member.isdir():
            self._index.add(member.name, is_folder=True)
        elif member.isreg() and not member.issparse():
            name = self._index.add(member.name, is_folder=False)
            self._ranges[name] = member.offset_data, member.size
        elif member.issym():  # leads from its own folder, and a hard link from the root
            start = posixpath.dirname(member.name)
            links[_normalise_name(member.name)] = _normalise_name(
                posixpath.join(start, member.linkname)
            )
        elif member.islnk():
            links[_normalise_name(member.name)] = _normalise_name(member.linkname)
        else:
            what = (
                "a sparse file" if member.issparse() else "neither a file nor a folder nor a link"
            )
            raise ValueError(
                f"{self._place} holds {member.name}, which is {what}; pack the archive without it"
            )

    def _resolve_links(self, links: dict[str, str]) -> None:
        """Add links as the files they lead to, or as folders with the files there.

        Raises:
            ValueError: a link leads to nothing in the archive, or to a folder around it; or links
                lead to too many files, as nested folders of links can.
        """
        left, stands_for = dict(links), 0
        most = max(ALWAYS_LINKED_FILES, MOST_LINKED_TIMES * len(self._ranges))
        waited_for = Counter(folder for name in links for folder in _folders_above(name))
        for _ in range(_MOST_ROUNDS):
            for name, there in list(left.items()):
                if not self._is_resolvable(there, waited_for):
                    continue
                stands_for += self._add_link(name, there)
                if stands_for > most:
                    raise ValueError(
                        f"{self._place} has links that lead to more than {most:,} files; pack it"
                        " without links to folders"
                    )
                del left[name]
                waited_for.subtract(_folders_above(name))
        if left:
            name, there = next(iter(left.items()))
            raise ValueError(
                f"{self._place} has links to files that are not in it ({len(left):,}, such as "
                f"{name}"
                f" to {there}); pack those files too: tar --dereference --hard-dereference"
            )

    def _is_resolvable(self, there: str, waited_for: Mapping[str, int]) -> bool:
        """Whether a link can be followed: it leads to a file, or to a folder without open links."""
        if there in self._ranges:
            return True
        is_folder = there not in ("", ".") and self.is_folder(there)
        return is_folder and not waited_for.get(there)

    def _add_link(self, name: str, there: str) -> int:
        """Add a link to a file or a folder; returns the number of files it leads to."""
        if there in self._ranges:
            self._ranges[self._index.add(name, is_folder=False)] = self._ranges[there]
            return 1
        self._index.add(name, is_folder=True)
        inner = list(self._index.files_below(there))  # no more than were counted so far
        for file in inner:
            same = self._index.add(name + file.removeprefix(there), is_folder=False)
            self._ranges[same] = self._ranges[file]
        return len(inner)

    def entries(self, folder: str) -> Entries | None:
        """The entries of a folder; None if there is no such folder."""
        return self._index.entries(folder)

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        start, size = self._ranges[name]
        _check_size(f"{self._place}: {name}", size)
        with _name_file(self._place):
            data = os.pread(self._file.fileno(), size, start)
        if len(data) < size:
            raise ValueError(f"{self._place} ends within {name}: it is incomplete")
        return data

    def is_file(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return name in self._ranges

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of that name."""
        return self._index.entries(name) is not None

    def identity(self, folder: str) -> object:
        """Its name: a link counts as a folder of its own."""
        return folder

    def local_path(self, name: str) -> Path | None:  # noqa: ARG002
        """None: it lies in the archive."""
        return None

    def copy_to(self, name: str, target: BinaryIO) -> None:
        """Write the bytes of a file into another."""
        start, size = self._ranges[name]
        reserve_space(target, size, path=Path(target.name))
        for offset in range(start, start + size, _CHUNK):
            length = min(_CHUNK, start + size - offset)
            data = os.pread(self._file.fileno(), length, offset)
            if len(data) < length:
                raise ValueError(f"{self._place} ends within {name}: it is incomplete")
            target.write(data)


def _folders_above(name: str) -> Iterator[str]:
    """The folders that a file is in, from its own to the highest."""
    while name := name.rpartition("/")[0]:
        yield name


def _normalise_name(name: str) -> str:
    """A normalised name in an archive; it may lead out of the archive."""
    return posixpath.normpath(name)


@contextmanager
def _name_file(path: str) -> Iterator[None]:
    """Add the file's name to errors of reading, which lack it."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, path) from error


@contextmanager
def _unpack_errors(what: str) -> Iterator[None]:
    """A context that reports errors of damaged data as such, and errors of this machine unchanged.

    Raises:
        ValueError: the data is damaged, or compressed by an unknown method.
    """
    try:
        yield
    except (
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        OSError,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            # Of this machine, such as a full disk, and not of the archive.
            raise OSError(error.errno, error.strerror, error.filename or what) from error
        raise UnreadableError(what, f"cannot be unpacked: {error}") from error


_UNPACKERS: dict[str, Callable[[Path], Any]] = {
    "gz": gzip.GzipFile,
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}


def _open_uncompressed_tar(path: Path, exit_stack: ExitStack) -> BinaryIO:
    """The file of a .tar, or a temporary file with the content of a compressed .tar."""
    suffix = path.suffix.lower().lstrip(".")
    kind = {"tgz": "gz", "tbz2": "bz2", "txz": "xz"}.get(suffix, suffix)
    if kind not in _UNPACKERS:
        return exit_stack.enter_context(path.open("rb"))
    plain = exit_stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    with _unpack_errors(str(path)), _UNPACKERS[kind](path) as packed:
        _unpack(packed, plain, path)
    plain.seek(0)
    return plain


def _unpack(packed: BinaryIO, plain: BinaryIO, path: Path) -> None:
    """Write what an archive unpacks to into a temporary file.

    Raises:
        ValueError: it is far larger than the archive.
        OSError: there is no room for it.
    """
    most = max(ALWAYS_UNPACKED_BYTES, MOST_UNPACKED_TIMES * path.stat().st_size)
    try:
        while piece := packed.read(_CHUNK):
            if plain.tell() + len(piece) > most:
                raise UnreadableError(
                    str(path),
                    f"unpacks to more than {most:,} bytes; if that is expected, unpack it yourself",
                )
            plain.write(piece)
        plain.flush()
    except OSError as error:
        if error.errno not in DISK_FULL_ERRORS:
            raise
        raise disk_full_error(Path(tempfile.gettempdir())) from error
