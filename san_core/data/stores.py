"""Files of a data set under POSIX names: in a folder, a .zip or a .tar."""

import bz2
import gzip
import lzma
import os
import posixpath
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from san_core.images.shard import is_plain_path

_CHUNK = 1 << 20


class Entries(NamedTuple):
    """What lies in a folder, each by its bare name, sorted."""

    files: list[str]
    folders: list[str]


class Store(Protocol):
    """What a tree reads from; names are paths from its root, "" is the root itself."""

    def entries(self, folder: str) -> Entries | None:
        """What lies in a folder; None if there is no such folder."""

    def read(self, name: str) -> bytes:
        """The bytes of a file."""

    def is_file(self, name: str) -> bool:
        """Whether there is a file of that name."""

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of that name."""

    def local_path(self, name: str) -> Path | None:
        """Where a file lies on this machine by itself; None inside an archive."""

    def copy_to(self, name: str, target: BinaryIO) -> None:
        """Write the bytes of a file into another, piece by piece."""


class FolderStore:
    """A folder of the file system."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def entries(self, folder: str) -> Entries | None:
        """What lies in a folder; None if there is no such folder."""
        found = Entries([], [])
        try:
            with os.scandir(self._full_path(folder)) as scanned:
                for entry in scanned:
                    (found.folders if entry.is_dir() else found.files).append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Entries(sorted(found.files), sorted(found.folders))

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with open(self._full_path(name), "rb", buffering=0) as file:  # noqa: PTH123 - twice as fast
            return file.read()

    def is_file(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return os.path.isfile(self._full_path(name))  # noqa: PTH113 - no Path for every image

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of that name."""
        return Path(self._full_path(name)).is_dir()

    def local_path(self, name: str) -> Path | None:
        """Where the file lies by itself."""
        return Path(self._full_path(name))

    def copy_to(self, name: str, target: BinaryIO) -> None:
        """Write the bytes of a file into another."""
        with Path(self._full_path(name)).open("rb") as file:
            shutil.copyfileobj(file, target, _CHUNK)

    def _full_path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


class _FolderIndex:
    """The folders of an archive, made from the names of its files."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._folders: dict[str, tuple[set[str], set[str]]] = {"": (set(), set())}

    def add(self, name: str, *, is_folder: bool) -> str:
        """Take a file or folder; returns its name in plain form.

        Raises:
            ValueError: it would lie outside of the archive.
        """
        plain = name.removeprefix("./").rstrip("/")
        if plain in ("", "."):
            return ""
        if not is_plain_path(plain):
            raise ValueError(f"{self._place} has a file named {name!r}, which leads out of it")
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
        """What lies in a folder; None if there is no such folder."""
        if folder not in self._folders:
            return None
        files, folders = self._folders[folder]
        return Entries(sorted(files), sorted(folders))


class ZipStore:
    """A .zip, whose files are found by its directory."""

    def __init__(self, path: Path, exit_stack: ExitStack) -> None:
        self._place = str(path)
        try:
            self._zip = exit_stack.enter_context(zipfile.ZipFile(path))
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is not a whole .zip: {error}") from error
        index = _FolderIndex(str(path))
        infos = self._zip.infolist()
        self._infos = {index.add(i.filename, is_folder=i.is_dir()): i for i in infos}
        self._infos = {name: info for name, info in self._infos.items() if not info.is_dir()}
        self._index = index
        if locked := [i.filename for i in infos if i.flag_bits & 1]:
            raise ValueError(f"{path} is locked by a password ({locked[0]}); unlock it first")

    def entries(self, folder: str) -> Entries | None:
        """What lies in a folder; None if there is no such folder."""
        return self._index.entries(folder)

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with _unpack_errors(f"{self._place}: {name}"):
            return self._zip.read(self._infos[name])

    def is_file(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return name in self._infos

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of that name."""
        return self._index.entries(name) is not None

    def local_path(self, name: str) -> Path | None:  # noqa: ARG002
        """None: it lies in the archive."""
        return None

    def copy_to(self, name: str, target: BinaryIO) -> None:
        """Write the bytes of a file into another."""
        with (
            _unpack_errors(f"{self._place}: {name}"),
            self._zip.open(self._infos[name]) as file,
        ):
            shutil.copyfileobj(file, target, _CHUNK)


class TarStore:
    """A .tar, whose files are found by one pass over its headers; links are what they lead to.

    A compressed one is unpacked into one temporary file first, since its files cannot be
    reached otherwise.
    """

    def __init__(self, path: Path, exit_stack: ExitStack) -> None:
        self._file = _open_uncompressed_tar(path, exit_stack)
        index = _FolderIndex(str(path))
        self._ranges: dict[str, tuple[int, int]] = {}
        links: dict[str, str] = {}
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                for member in tar:
                    self._add_member(member, index, links, place=str(path))
        except tarfile.TarError as error:
            raise ValueError(f"{path} is not a whole .tar: {error}") from error
        self._resolve_links(links, index, place=str(path))
        self._index = index
        self._place = str(path)

    def _add_member(
        self, member: tarfile.TarInfo, index: _FolderIndex, links: dict[str, str], *, place: str
    ) -> None:
        """Take what a header tells of; `links` learns where links lead to, from the root."""
        if member.isdir():
            index.add(member.name, is_folder=True)
        elif member.isreg() and not member.issparse():
            name = index.add(member.name, is_folder=False)
            self._ranges[name] = member.offset_data, member.size
        elif member.issym():  # leads from its own folder, and a hard link from the root
            start = posixpath.dirname(member.name)
            links[_normalise_name(member.name)] = _normalise_name(
                posixpath.join(start, member.linkname)
            )
        elif member.islnk():
            links[_normalise_name(member.name)] = _normalise_name(member.linkname)
        else:
            what = "a sparse file" if member.issparse() else "neither file, folder nor link"
            raise ValueError(f"{place} holds {member.name}, which is {what}; pack it without")

    def _resolve_links(self, links: dict[str, str], index: _FolderIndex, *, place: str) -> None:
        """Take links as the files they lead to, or as folders with the files there.

        Raises:
            ValueError: one leads to nothing in the archive, or to a folder that it is in.
        """
        left = dict(links)
        while found := [
            name for name, there in left.items() if self._is_resolvable(there, left, index)
        ]:
            for name in found:
                there = left.pop(name)
                if there in self._ranges:
                    self._ranges[index.add(name, is_folder=False)] = self._ranges[there]
                    continue
                index.add(name, is_folder=True)
                inner = [file for file in self._ranges if file.startswith(f"{there}/")]
                for file in inner:
                    same = index.add(name + file.removeprefix(there), is_folder=False)
                    self._ranges[same] = self._ranges[file]
        if left:
            name, there = next(iter(left.items()))
            raise ValueError(
                f"{place} has links that lead to nothing in it ({len(left):,}, such as {name} to "
                f"{links[name]}); pack what they lead to: tar --dereference --hard-dereference"
            )

    def _is_resolvable(self, there: str, left: dict[str, str], index: _FolderIndex) -> bool:
        """Whether a link can be followed: to a file, or a folder that no link is left in."""
        if there in self._ranges:
            return True
        is_folder = there not in ("", ".") and index.entries(there) is not None
        return is_folder and not any(name.startswith(f"{there}/") for name in left)

    def entries(self, folder: str) -> Entries | None:
        """What lies in a folder; None if there is no such folder."""
        return self._index.entries(folder)

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        start, size = self._ranges[name]
        data = os.pread(self._file.fileno(), size, start)
        if len(data) < size:
            raise ValueError(f"{self._place} ends within {name}: it is not whole")
        return data

    def is_file(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return name in self._ranges

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of that name."""
        return self._index.entries(name) is not None

    def local_path(self, name: str) -> Path | None:  # noqa: ARG002
        """None: it lies in the archive."""
        return None

    def copy_to(self, name: str, target: BinaryIO) -> None:
        """Write the bytes of a file into another."""
        start, size = self._ranges[name]
        for offset in range(start, start + size, _CHUNK):
            length = min(_CHUNK, start + size - offset)
            data = os.pread(self._file.fileno(), length, offset)
            if len(data) < length:
                raise ValueError(f"{self._place} ends within {name}: it is not whole")
            target.write(data)


def _normalise_name(name: str) -> str:
    """A name in an archive in its plain form; it may lead out of the archive."""
    return posixpath.normpath(name)


@contextmanager
def _unpack_errors(what: str) -> Iterator[None]:
    """Errors of damaged data in the block are told as such, and those of this machine as they are.

    Raises:
        ValueError: the data is damaged, or packed in a way that is not known.
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
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of this machine, such as a full disk, and not of the archive
        raise ValueError(f"{what} cannot be unpacked: {error}") from error


_UNPACKERS: dict[str, Callable[[Path], Any]] = {
    "gz": gzip.GzipFile,
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}


def _open_uncompressed_tar(path: Path, exit_stack: ExitStack) -> BinaryIO:
    """The file of a .tar, or a temporary one with what a compressed .tar holds."""
    suffix = path.suffix.lower().lstrip(".")
    kind = {"tgz": "gz", "tbz2": "bz2", "txz": "xz"}.get(suffix, suffix)
    if kind not in _UNPACKERS:
        return exit_stack.enter_context(path.open("rb"))
    plain = exit_stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    with _unpack_errors(str(path)), _UNPACKERS[kind](path) as packed:
        shutil.copyfileobj(packed, plain, _CHUNK)
    plain.seek(0)
    return plain
