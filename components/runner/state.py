"""What a finished task left behind: enough to tell whether it was the same task and still holds.

`state.json` is written last, in one piece, and removed before the task is run again: while it is
there, the outputs it speaks of were whole. A manifest.json with a `uri` points at shards that lie
elsewhere; they are watched as well.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.storage.outputs import path_of, write_file
from components.storage.places import is_remote

NAME = "state.json"


@dataclass(frozen=True)
class State:
    """The record of a finished task.

    Attributes:
        key: what decided the result: settings, code and inputs, as a digest
        digests: sha256 of the content of each output artifact
        files: size in bytes and mtime in nanoseconds of every file, by absolute path
        remote: URIs of shards that are in a store, where nothing is checked from here
    """

    key: str
    digests: dict[str, str]
    files: dict[str, list[int]]
    remote: list[str]


def record(folder: Path, key: str, outputs: Mapping[str, Path]) -> State:
    """Write the state of a task that has just finished.

    Args:
        folder: the task's folder
        key: what decided the result
        outputs: where each output artifact lies

    Raises:
        FileNotFoundError: an output, or a shard that a manifest names, does not exist.
    """
    for name, path in outputs.items():
        if not path.exists():
            raise FileNotFoundError(f"its output {name} is not there: {path}")
    state = State(
        key=key,
        digests={name: digest(path) for name, path in outputs.items()},
        files=_stat(outputs.values()),
        remote=[uri for _, uri in _manifests(outputs.values()) if _folder_of(uri) is None],
    )
    write_file(folder / NAME, json.dumps(asdict(state), indent=1, sort_keys=True) + "\n")
    return state


def read(folder: Path) -> State | None:
    """The state of a task, or None if it never finished or has been removed."""
    try:
        return State(**json.loads((folder / NAME).read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError):  # not ours, or of another version
        return None


def holds(state: State, outputs: Mapping[str, Path]) -> bool:
    """Whether every file is as the task left it, none is gone and none was added."""
    try:
        return state.files == _stat(outputs.values())
    except (OSError, ValueError):
        return False


def digest(path: Path) -> str:
    """The sha256 of a file's content, or of the names and contents of the files in a folder."""
    if path.is_file():
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    total = hashlib.sha256()
    for file in _files(path):
        total.update(f"{file.relative_to(path).as_posix()} {digest(file)}\n".encode())
    return total.hexdigest()


def _stat(paths: Iterable[Path]) -> dict[str, list[int]]:
    """Size and mtime of every file of the artifacts, and of the shards they point at."""
    paths = list(paths)
    files = [file for path in paths for file in _files(path)]
    for manifest, uri in _manifests(paths):
        if (shards := _folder_of(uri)) is not None:
            files += [shards / name for name in _shard_files(manifest)]
    found = {}
    for file in files:
        facts = file.stat()
        found[str(file)] = [facts.st_size, facts.st_mtime_ns]
    return found


def _files(path: Path) -> list[Path]:
    """The files of an artifact in order of their names."""
    return [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())


def _manifests(paths: Iterable[Path]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Every manifest among the artifacts that points elsewhere, with its URI."""
    for path in paths:
        for file in _files(path):
            if file.name == "manifest.json":
                manifest = json.loads(file.read_bytes())
                if isinstance(manifest, dict) and isinstance(manifest.get("uri"), str):
                    yield manifest, manifest["uri"]


def _folder_of(uri: str) -> Path | None:
    """The folder on this machine that a URI names, or None if it names a store."""
    return None if is_remote(uri) else path_of(uri)


def _shard_files(manifest: Mapping[str, Any]) -> list[str]:
    """The names of the files of every shard, relative to the manifest's URI."""
    return [
        shard[part]
        for shard in manifest.get("shards", [])
        for part in ("tar", "sidecar")
        if part in shard
    ]
