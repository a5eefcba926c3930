"""Where a data set lies: a folder, a .zip or a .tar, read in one way and never unpacked by hand.

A tree holds folders and files under POSIX names. Names for which `is_litter` is true are not in it.
"""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from san_core.data.stores import (
    MOST_FOLDERS_DEEP,
    Entries,
    FolderStore,
    Store,
    TarStore,
    ZipStore,
)

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

# Names of files that desktops, archivers and servers leave behind, in lower case.
_LITTER = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
        *("__macosx", "icon\r", "@eadir", "#recycle", "lost+found"),
        *("readme", "readme.txt", "readme.md"),
    }
)

_MOST_SHOWN = 8  # names in a message

T = TypeVar("T")


class Tree:
    """A folder of a data set, in the file system or in an archive; to be closed.

    Attributes:
        place: its name in error messages.
        given_file: the name of the file that the user pointed to, if it was a file and no archive.
    """

    def __init__(
        self,
        store: Store,
        place: str,
        *,
        folder: str = "",
        given_file: str = "",
        exit_stack: ExitStack,
    ) -> None:
        self.place = place
        self.given_file = given_file
        self._store = store
        self._folder = folder
        self._exit_stack = exit_stack

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit_stack.close()

    def enter_context(self, context: AbstractContextManager[T]) -> T:
        """Enter a context that is left when the tree is closed."""
        return self._exit_stack.enter_context(context)

    def subtree(self, folder: str) -> "Tree":
        """The folder of that name inside this one; closed with it."""
        place = f"{self.place}/{folder}"
        return Tree(
            self._store, place, folder=self._store_name(folder), exit_stack=self._exit_stack
        )

    def unwrap_archive(self) -> "Tree":
        """The only entry of an archive, if it is a folder; else this tree."""
        files, folders = self.entries()
        if isinstance(self._store, FolderStore) or files or len(folders) != 1:
            return self
        return self.subtree(folders[0])

    def entries(self, folder: str = "") -> Entries:
        """The entries of a folder; none if there is no such folder."""
        found = self._store.entries(self._store_name(folder)) or Entries([], [])
        return Entries(*([name for name in names if not is_litter(name)] for names in found))

    def describe_entries(self, folder: str = "") -> str:
        """The entries of a folder in words for a message: some names, or nothing."""
        names = sorted(name for kind in self.entries(folder) for name in kind)
        return (", ".join(names[:_MOST_SHOWN]) or "nothing") + ", ..." * (len(names) > _MOST_SHOWN)

    def walk(self, folder: str = "") -> Iterator[str]:
        """The names of all files in a folder and in its folders, sorted folder by folder.

        Raises:
            ValueError: links lead to one folder twice, or folders are nested too deep.
        """
        return self._walk(folder, {}, MOST_FOLDERS_DEEP) if self.is_folder(folder) else iter(())

    def _walk(self, folder: str, seen: dict[object, str], levels: int) -> Iterator[str]:
        """As `walk`; `seen` has the name of every folder so far, by its identifier."""
        twin = seen.setdefault(self._store.identity(self._store_name(folder)), folder)
        if twin != folder:
            raise ValueError(
                f"{self.place}/{folder} is {self.place}/{twin} by a link; its files would be read "
                "twice"
            )
        if not levels:
            raise ValueError(f"{self.place}/{folder}: folders are nested too deep")
        files, folders = self.entries(folder)
        start = f"{folder}/" if folder else ""
        for name, is_folder in sorted(
            [*((f, False) for f in files), *((f, True) for f in folders)]
        ):
            if is_folder:
                yield from self._walk(start + name, seen, levels - 1)
            else:
                yield start + name

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of that name."""
        return self._store.is_folder(self._store_name(name))

    def is_file(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return self._store.is_file(self._store_name(name))

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        return self._store.read(self._store_name(name))

    def local_path(self, name: str) -> Path:
        """A file of this machine with the content of a file; a copy, if the tree is an archive."""
        inside = self._store_name(name)
        if (path := self._store.local_path(inside)) is not None:
            return path
        file = self.enter_context(tempfile.NamedTemporaryFile())  # noqa: SIM115
        self._store.copy_to(inside, file)  # type: ignore[arg-type]  # it has the methods of a file
        file.flush()
        return Path(file.name)

    def find_file(self, name: str, *, depth: int) -> str | None:
        """The file of a name in this folder or up to `depth` folders below; the first of them."""
        level = [""]
        for _ in range(depth + 1):
            for folder in level:
                if self.is_file(folder + name):
                    return folder + name
            level = [f"{f}{inner}/" for f in level for inner in self.entries(f).folders]
        return None

    def _store_name(self, name: str) -> str:
        name = name.rstrip("/")
        return f"{self._folder}/{name}" if self._folder and name else self._folder or name


def open_tree(path: Path) -> Tree:
    """The tree in a folder or an archive; of any other file, the folder it is in.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: the archive is damaged, or has a file that would lie outside of it.
    """
    if path.is_dir():
        return Tree(FolderStore(path), str(path), exit_stack=ExitStack())
    if not path.is_file():
        raise FileNotFoundError(f"there is no folder {path}, and no archive of that name")
    if not is_archive(path.name):
        return Tree(
            FolderStore(path.parent), str(path.parent), given_file=path.name, exit_stack=ExitStack()
        )
    with ExitStack() as kept:
        kind = ZipStore if path.suffix.lower() == ".zip" else TarStore
        store = kind(path, kept)
        return Tree(store, str(path), exit_stack=kept.pop_all())


def is_archive(name: str) -> bool:
    """Whether a file of that name is read as a tree of its own."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def is_litter(name: str) -> bool:
    """Whether a file or folder of that bare name is not data: hidden, or left by a program.

    A readme counts too.
    """
    return name.startswith((".", "~$")) or name.endswith("~") or name.lower() in _LITTER
