"""The folder of a run: who uses it, and what it must not hold."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from components.runner.processes import CONTAINER_FILE

PIPELINE_FILE = "pipeline.yaml"  # in a run's folder, what is run
LOCK_FILE = ".lock"  # there too, as long as the folder is
_SECONDS_OF_A_LOOK = 0.2  # for which `process_using` may hold the lock, with much to spare


class RunError(Exception):
    """Why a run stopped, in words for the person who started it."""


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return any((folder / name).is_file() for name in (LOCK_FILE, PIPELINE_FILE))


def check_folder_of_runs(folder: Path) -> None:
    """Refuse a folder that holds what no run has left: a run replaces those of its tasks.

    Raises:
        RunError: it does.
    """
    found = {path.name for path in folder.iterdir()}
    if found and not is_run(folder):
        raise RunError(
            f"{folder} is not of a run: it holds {min(found)}, and no {PIPELINE_FILE}; choose"
            " another --name"
        )


def check_no_container(folder: Path) -> None:
    """Refuse a folder that a container writes to, which outlived the run that started it.

    Raises:
        RunError: there may be one.
    """
    for mark in sorted(folder.glob(f"*/{CONTAINER_FILE}")):
        container = mark.read_text()[:12]
        raise RunError(
            f"container {container} of a run that was killed may still write to {mark.parent};"
            f" go on with --runner docker, or: docker rm --force {container}; rm {mark}"
        )


def process_using(folder: Path) -> int | None:
    """The process whose run uses a folder now; None if none does, 0 if it is not known.

    Raises:
        OSError: the lock cannot be asked for, so that nobody can say.
    """
    try:
        file = (folder / LOCK_FILE).open()
    except (FileNotFoundError, NotADirectoryError):
        return None
    with file:
        try:
            # Shared: NFS gives an exclusive lock only to who may write.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            process = file.read().strip()
            return int(process) if process.isdecimal() else 0
    return None


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder; the lock ends with the process, however it ends.

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
    """Lock a file; once more after a moment, as somebody may only have looked who uses it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_SECONDS_OF_A_LOOK)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
