"""The record of a finished task, which tells whether it was the same task and is unchanged.

`state.json` is written last, atomically, and removed before the task runs again. So while it
exists, the outputs that it lists were complete. A manifest.json with a `uri` refers to shards
elsewhere; they are checked too.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from components.storage.outputs import write_file
from components.storage.places import is_remote, local_path
from san_core.checked_json import read_json_file

STATE_FILE = "state.json"


@dataclass(frozen=True)
class TaskState:
    """The record of a finished task.

    Attributes:
        key: digest of settings, code and inputs
        digests: sha256 of the content of each output artifact
        files: size in bytes and mtime in nanoseconds of every file, by absolute path
        remote: URIs of shards in a remote store, which are not checked here
    """

    key: str
    digests: dict[str, str]
    files: dict[str, list[int]]
    remote: list[str]


class _StateFile(TypedDict):
    """The content of `state.json`."""

    key: str
    digests: dict[str, str]
    files: dict[str, list[int]]
    remote: list[str]


class _ShardFiles(TypedDict):
    """The files of a shard that a manifest names."""

    tar: str
    sidecar: str


class _Pointer(TypedDict):
    """A manifest that may refer to shards elsewhere."""

    uri: NotRequired[str]
    shards: NotRequired[list[_ShardFiles]]


def record_state(folder: Path, key: str, outputs: Mapping[str, Path]) -> TaskState:
    """Write the state of a task that has just finished.

    Args:
        folder: the task's folder
        key: its key
        outputs: the path of each output artifact

    Raises:
        FileNotFoundError: an output, or a shard that a manifest names, does not exist.
        ValueError: a manifest names a place that is neither local nor in a bucket.
    """
    for name, path in outputs.items():
        if not path.exists():
            raise FileNotFoundError(f"its output {name} is missing: {path}")
    state = TaskState(
        key=key,
        digests={name: content_digest(path) for name, path in outputs.items()},
        files=_file_stats(outputs.values()),
        remote=[
            uri for _, uri in _manifests_elsewhere(outputs.values()) if _local_folder(uri) is None
        ],
    )
    write_file(folder / STATE_FILE, json.dumps(asdict(state), indent=1, sort_keys=True) + "\n")
    return state


def read_state(folder: Path) -> TaskState | None:
    """The record of a task, or None if it has not finished or was removed."""
    try:
        told = read_json_file(folder / STATE_FILE, _StateFile)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:  # not of this project, or of another version
        return None
    return TaskState(told["key"], told["digests"], told["files"], told["remote"])


def outputs_unchanged(state: TaskState, outputs: Mapping[str, Path]) -> bool:
    """Whether every file is unchanged, none is missing and none was added."""
    try:
        is_whole = state.digests.keys() == outputs.keys()
        return is_whole and state.files == _file_stats(outputs.values())
    except (OSError, ValueError):
        return False


def content_digest(path: Path) -> str:
    """The sha256 of a file's content, or of the names and contents of the files in a folder.

    The place that a manifest refers to does not count: the same shards elsewhere are the same set.
    """
    if path.is_file():
        return _file_digest(path)
    total = hashlib.sha256()
    for file in _files(path):
        total.update(f"{file.relative_to(path).as_posix()} {content_digest(file)}\n".encode())
    return total.hexdigest()


def _file_digest(path: Path) -> str:
    if path.name == "manifest.json":
        with suppress(ValueError):  # somebody else's file of that name
            content = read_json_file(path, dict[str, Any])
            if content.pop("uri", None):
                return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_stats(paths: Iterable[Path]) -> dict[str, list[int]]:
    """Size and mtime of every file of the artifacts, and of the shards they refer to."""
    paths = list(paths)
    files = [file for path in paths for file in _files(path)]
    for manifest, uri in _manifests_elsewhere(paths):
        if (shards := _local_folder(uri)) is not None:
            files += [shards / name for name in _shard_files(manifest)]
    found = {}
    for file in files:
        facts = file.stat()
        found[str(file)] = [facts.st_size, facts.st_mtime_ns]
    return found


def _files(path: Path) -> list[Path]:
    """The files of an artifact, sorted by name."""
    return [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())


def _manifests_elsewhere(paths: Iterable[Path]) -> Iterator[tuple[_Pointer, str]]:
    """Every manifest among the artifacts that refers to shards elsewhere, with its URI."""
    for file in (file for path in paths for file in _files(path) if file.name == "manifest.json"):
        with suppress(ValueError):  # somebody else's file of that name, which points nowhere
            manifest = read_json_file(file, _Pointer)
            if uri := manifest.get("uri"):
                yield manifest, uri


def _local_folder(uri: str) -> Path | None:
    """The local folder of a URI, or None for a remote store."""
    return None if is_remote(uri) else local_path(uri)


def _shard_files(manifest: _Pointer) -> list[str]:
    """The names of the files of every shard, relative to the manifest's URI."""
    shards = manifest.get("shards", [])
    return [name for shard in shards for name in (shard["tar"], shard["sidecar"])]
