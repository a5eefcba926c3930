"""The folder of a run: its lock, and checks of its content."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from components.runner.processes import CONTAINER_FILE

PIPELINE_FILE = "pipeline.yaml"  # in a run's folder: the pipeline
LOCK_FILE = ".lock"  # in it too, never deleted
_SECONDS_OF_A_LOOK = 0.2  # how long `process_using` may hold the lock, generously


class RunError(Exception):
    """The reason why a run stopped, for the person who started it."""


def is_run(folder: Path) -> bool:
    """Whether a folder is of a run."""
    return any((folder / name).is_file() for name in (LOCK_FILE, PIPELINE_FILE))


def check_folder_of_runs(folder: Path) -> None:
    """Refuse a folder with files that are not of a run, as a run replaces the folders of its tasks.

    Raises:
        RunError: it has such files.
    """
    found = {path.name for path in folder.iterdir()}
    if found and not is_run(folder):
        raise RunError(
            f"{folder} is not of a run: it has {min(found)}, but no {PIPELINE_FILE}; choose another"
            " --name"
        )


def check_no_container(folder: Path) -> None:
    """Refuse a folder to which a container of a killed run may still write.

    Raises:
        RunError: there may be such a container.
    """
    for mark in sorted(folder.glob(f"*/{CONTAINER_FILE}")):
        container = mark.read_text()[:12]
        raise RunError(
            f"container {container} of a run that was killed may still write to {mark.parent};"
            f" continue with --runner docker, or: docker rm --force {container}; rm {mark}"
        )


def process_using(folder: Path) -> int | None:
    """The process whose run uses a folder now; None if there is none, 0 if it is unknown.

    Raises:
        OSError: the lock cannot be tried.
    """
    try:
        file = (folder / LOCK_FILE).open()
    except (FileNotFoundError, NotADirectoryError):
        return None
    with file:
        try:
            # Shared: NFS grants an exclusive lock only with write access.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            process = file.read().strip()
            return int(process) if process.isdecimal() else 0
    return None


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder; the lock ends with the process, even if it is killed.

    Raises:
        RunError: another run uses it.
    """
    with (folder / LOCK_FILE).open("a+") as file:
        try:
            _lock_or_retry(file)
        except BlockingIOError:
            file.seek(0)
            raise RunError(
                f"{folder} is in use by another run (process {file.read().strip()}); "
                "wait for it, or choose another --name"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _lock_or_retry(file: TextIO) -> None:
    """Lock a file; try again after a moment, as another process may only have looked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_SECONDS_OF_A_LOOK)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
