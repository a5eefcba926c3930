"""The store: the finished steps of all runs in one folder, found by their keys.

`runs/.store/STEP/KEY-N/` is one attempt at a task: its outputs, its log and, written last, its
record (`components.runner.state`). `runs/NAME/TASK` is a link to it. A folder with a record is
never written again, so several runs can share it, and deleting one run does not harm another.

Two kinds of lock protect runs from each other; both end with the process, even if it is killed. A
run holds the lock of a key while it makes the step, and others wait. It holds the lock of the store
only while it finds, links or removes a folder.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from components.runner.processes import CONTAINER_FILE, LOG_FILE
from components.runner.state import STATE_FILE, TaskState, outputs_unchanged, read_state
from components.storage.places import real_path

STORE_FOLDER = ".store"
# The folders beside the steps that they share: textures, checkpoints, features of several workers,
# and copies from buckets.
SHARED_FOLDERS = ("textures", "checkpoints", "features", "cache")
KEY_DIGITS = 16  # digits of the key in the name of a folder; the record has the whole key
_LOCK_FILE = ".lock"
_TRY = re.compile(rf"([0-9a-f]{{{KEY_DIGITS}}})-([0-9]+)")

# Gives the paths of a task's outputs, by name, in its folder.
OutputsIn = Callable[[Path], Mapping[str, Path]]


class FinishedStep(NamedTuple):
    """A folder of the store, and its record."""

    folder: Path
    state: TaskState


class Making:
    """The lock of one key: no other run makes that step meanwhile."""

    def __init__(self, lock: TextIO) -> None:
        self._lock = lock

    def release(self) -> None:
        """Release the lock."""
        self._lock.close()


class Store:
    """The store of the runs in a folder.

    root: its folder, which need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = real_path(root)

    @classmethod
    def of_runs(cls, runs: Path) -> "Store":
        """The store of a folder of runs."""
        return cls(real_path(runs) / STORE_FOLDER)

    def holds(self, path: Path) -> bool:
        """Whether a path is in the store."""
        return real_path(path).is_relative_to(self.root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the store: within the block, nobody else links or removes a folder."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / _LOCK_FILE).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def take(self, step: str, key: str, *, link: Path, outputs: OutputsIn) -> FinishedStep | None:
        """The newest undamaged finished folder of a key, linked from a run; None if there is none.

        A folder is ignored if this run has started a later attempt, to which its link leads.
        """
        with self.locked():
            begun = _number(real_path(link)) if self._is_try_of(real_path(link), step, key) else 0
            for folder in reversed(self.tries(step, key)):
                found = read_state(folder)
                if (
                    found is None
                    or found.key != key
                    or not outputs_unchanged(found, outputs(folder))
                ):
                    continue
                if begun > _number(folder):
                    return None
                _link(link, folder)
                return FinishedStep(folder, found)
        return None

    def try_making(self, step: str, key: str) -> Making | int:
        """The lock of a key, or the process that holds it."""
        folder = self.root / step
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / f"{key[:KEY_DIGITS]}.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            process = lock.read().strip()
            lock.close()
            return int(process) if process.isdecimal() else 0
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return Making(lock)

    def begin(self, step: str, key: str, *, link: Path) -> Path:
        """A new folder for an attempt at a step, linked from a run; the caller holds its lock.

        Unfinished attempts are removed, except those that other runs link; their logs are kept as
        log-1.txt and so on. Finished attempts stay until there is a newer one.
        """
        with self.locked():
            former = self.tries(step, key)
            number = 1 + max(map(_number, former), default=0)
            folder = self.root / step / f"{key[:KEY_DIGITS]}-{number}"
            folder.mkdir()
            self._remove(
                (one for one in former if read_state(one) is None), folder, self.links(but=link)
            )
            _link(link, folder)
        return folder

    def replace_former(self, folder: Path) -> None:
        """Remove earlier attempts at a step that is now finished, except those that runs link."""
        step, key = folder.parent.name, folder.name[:KEY_DIGITS]
        with self.locked():
            former = [one for one in self.tries(step, key) if _number(one) < _number(folder)]
            self._remove(former, folder, self.links())

    def _remove(self, former: Iterable[Path], folder: Path, kept: Container[Path]) -> None:
        """Remove attempts, given oldest first, and keep their logs in a later one."""
        for other in reversed(list(former)):
            if other not in kept and not (other / CONTAINER_FILE).exists():
                _move_logs(other, folder)
                remove_folder(other)

    def tries(self, step: str, key: str) -> list[Path]:
        """The folders of a key, oldest first."""
        return sorted((self.root / step).glob(f"{key[:KEY_DIGITS]}-*"), key=_number)

    def all_folders(self) -> list[Path]:
        """Every folder of every step."""
        return sorted(path for path in self.root.glob("*/*-*") if _TRY.fullmatch(path.name))

    def links(self, *, but: Path | None = None) -> dict[Path, set[str]]:
        """The folders of the store that runs link, each with the names of the runs.

        but: a link to ignore.
        """
        found: dict[Path, set[str]] = {}
        for run in run_folders(self.root.parent):
            for link in run.iterdir():
                if link.is_symlink() and link != but and self.holds(link):
                    found.setdefault(real_path(link), set()).add(run.name)
        return found

    def _is_try_of(self, folder: Path, step: str, key: str) -> bool:
        is_here = folder.parent == self.root / step
        return is_here and folder.name.startswith(f"{key[:KEY_DIGITS]}-")


def run_folders(runs: Path) -> list[Path]:
    """The folders in a folder of runs that may be runs, by name."""
    if not runs.is_dir():
        return []
    return sorted(one for one in runs.iterdir() if one.is_dir() and not one.name.startswith("."))


def remove_folder(folder: Path) -> None:
    """Remove a folder of the store, its record first, so that no rest of it counts as finished."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _number(folder: Path) -> int:
    found = _TRY.fullmatch(folder.name)
    return int(found[2]) if found else 0


def _link(link: Path, folder: Path) -> None:
    """Point a link of a run to a folder, atomically; a folder of an older version is removed."""
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    target = os.path.relpath(folder, link.parent)
    if link.is_symlink() and os.readlink(link) == target:  # noqa: PTH115 - as it is written
        return
    beside = link.with_name(f".{link.name}.link")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target, target_is_directory=True)
    beside.replace(link)


def _move_logs(former: Path, folder: Path) -> None:
    """Keep the logs of an earlier attempt, numbered before those of later ones."""
    moved = [log for log in [*_numbered_logs(former), former / LOG_FILE] if log.is_file()]
    later = _numbered_logs(folder)
    for number, log in reversed(list(enumerate(later, 1 + len(moved)))):
        log.rename(folder / f"log-{number}.txt")
    for number, log in enumerate(moved, 1):
        log.rename(folder / f"log-{number}.txt")


def _numbered_logs(folder: Path) -> list[Path]:
    numbered = [path for path in folder.glob("log-*.txt") if path.stem[4:].isdecimal()]
    return sorted(numbered, key=lambda path: int(path.stem[4:]))
