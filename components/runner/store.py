"""The finished steps of all runs beside each other, each found by what decided its result.

`runs/.store/STEP/KEY-N/` is one try of a task: its outputs, its log and, written last, its record
(`components.runner.state`). `runs/NAME/TASK` is a link to it. A folder with a record is never
written to again, so that several runs share it, and deleting one of them harms no other.

Two locks keep runs from harming each other, and end with the process, however it ends: that of a
key is held by the run that makes the step, while others wait for it; that of the store is held for
moments, while a folder is looked up and linked, or removed.
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
# Beside the steps, what they share: textures, states of training, features of several workers, and
# copies from buckets.
SHARED_FOLDERS = ("textures", "checkpoints", "features", "cache")
KEY_DIGITS = 16  # of a key, in the name of a folder; the record has the whole key
_LOCK_FILE = ".lock"
_TRY = re.compile(rf"([0-9a-f]{{{KEY_DIGITS}}})-([0-9]+)")

# Where the outputs of a task lie, by their names, in a folder of it.
OutputsIn = Callable[[Path], Mapping[str, Path]]


class FinishedStep(NamedTuple):
    """A folder of the store, and its record."""

    folder: Path
    state: TaskState


class Making:
    """The right to make one step: nobody else does meanwhile."""

    def __init__(self, lock: TextIO) -> None:
        self._lock = lock

    def release(self) -> None:
        """Let others look at what was made, or make it."""
        self._lock.close()


class Store:
    """The store of the runs in a folder.

    root: its own folder, which need not be there.
    """

    def __init__(self, root: Path) -> None:
        self.root = real_path(root)

    @classmethod
    def of_runs(cls, runs: Path) -> "Store":
        """The store of a folder of runs."""
        return cls(real_path(runs) / STORE_FOLDER)

    def holds(self, path: Path) -> bool:
        """Whether a path lies in the store."""
        return real_path(path).is_relative_to(self.root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within the block no run links a folder of the store, and none is removed."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / _LOCK_FILE).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def take(self, step: str, key: str, *, link: Path, outputs: OutputsIn) -> FinishedStep | None:
        """The newest finished folder of a key that is whole, linked from a run; None without one.

        One is not taken that this run has begun to make anew: its link leads to a later try.
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
        """The right to make a step; or the process that has it."""
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
        """A new folder to make a step in, linked from a run; whoever calls has the right to.

        What unfinished tries have left is removed, but for folders that other runs link; their
        logs are kept as log-1.txt and so on. Finished ones stay until there is another.
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
        """Remove the former tries of what is finished in a folder, but for those that runs link."""
        step, key = folder.parent.name, folder.name[:KEY_DIGITS]
        with self.locked():
            former = [one for one in self.tries(step, key) if _number(one) < _number(folder)]
            self._remove(former, folder, self.links())

    def _remove(self, former: Iterable[Path], folder: Path, kept: Container[Path]) -> None:
        """Remove tries, given oldest first, and keep their logs in a later one."""
        for other in reversed(list(former)):
            if other not in kept and not (other / CONTAINER_FILE).exists():
                _move_logs(other, folder)
                remove_folder(other)

    def tries(self, step: str, key: str) -> list[Path]:
        """The folders of a key, the oldest first."""
        return sorted((self.root / step).glob(f"{key[:KEY_DIGITS]}-*"), key=_number)

    def all_folders(self) -> list[Path]:
        """Every folder of every step."""
        return sorted(path for path in self.root.glob("*/*-*") if _TRY.fullmatch(path.name))

    def links(self, *, but: Path | None = None) -> dict[Path, set[str]]:
        """The folders of the store that runs link, each with the names of the runs.

        but: a link that does not count.
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
    """The folders in a folder of runs that may be runs, by their names."""
    if not runs.is_dir():
        return []
    return sorted(one for one in runs.iterdir() if one.is_dir() and not one.name.startswith("."))


def remove_folder(folder: Path) -> None:
    """Remove a folder of the store; what is left if that is stopped is believed by nobody."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _number(folder: Path) -> int:
    found = _TRY.fullmatch(folder.name)
    return int(found[2]) if found else 0


def _link(link: Path, folder: Path) -> None:
    """Let a link of a run lead to a folder, in one go; what an older version left there goes."""
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
    """Keep the logs of a former try, numbered before those that are kept of later ones."""
    moved = [log for log in [*_numbered_logs(former), former / LOG_FILE] if log.is_file()]
    later = _numbered_logs(folder)
    for number, log in reversed(list(enumerate(later, 1 + len(moved)))):
        log.rename(folder / f"log-{number}.txt")
    for number, log in enumerate(moved, 1):
        log.rename(folder / f"log-{number}.txt")


def _numbered_logs(folder: Path) -> list[Path]:
    numbered = [path for path in folder.glob("log-*.txt") if path.stem[4:].isdecimal()]
    return sorted(numbered, key=lambda path: int(path.stem[4:]))
