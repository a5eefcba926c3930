"""Writing the outputs of a step, so that an incomplete output is never used.

A path exists only once it is complete: the output is written under another name beside it, flushed
to disk and renamed. `write_executor_output` reports the outputs to KFP, which shows the metadata of
artifacts, and of metrics only their metadata.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from components.process.scratch import remove_or_warn, vacant_folder
from san_core.checked_json import json_bytes, read_json, read_json_file
from san_core.disk import DISK_FULL_ERRORS, disk_full_error, reserve_space

# The folders at which KFP's launcher mounts each storage (kfp/dsl/types/artifact_types.py).
_MOUNTS = {"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/"}

# How artifacts are recognised: by files that only occur together, or by the content of a file.
PAIRED_FILES = (("recipe.json", "weights.safetensors"), ("features.json", "features.npy"))
SELF_DESCRIBING_FILES = ("manifest.json", "images/manifest.json", "report.json", "events.json")
# KFP types whose file, a JSON object, is reported to KFP as metadata.
SHOWN_BY_METADATA = ("system.Metrics", "system.ClassificationMetrics")


class FailedWithOutputsError(ValueError):
    """A step has failed, and its outputs, marked as failed, are kept."""


def check_succeeded(failure: str) -> None:
    """Raise if a step that has written its outputs has failed.

    failure: the reason; empty if it has not failed.

    Raises:
        FailedWithOutputsError: the step has failed.
    """
    if failure:
        raise FailedWithOutputsError(failure)


def check_replaceable(path: Path, *, is_file: bool = False) -> None:
    """Check that an output replaces at most an older output.

    Args:
        path: path of the output.
        is_file: whether the output is a file, not a folder.

    Raises:
        ValueError: `path` is not a name; is a file, but the output is a folder, or the reverse; is
            neither, such as /dev/null; or is a folder with content that no step has written.
    """
    if path.name in ("", ".."):
        raise ValueError(f"{str(path)!r} is not a name for an output")
    if is_file and path.is_dir():
        raise ValueError(f"{path} is a folder, but the output is a file; name another")
    if path.exists() and not path.is_dir() and not path.is_file():
        raise ValueError(
            f"{path} is a device or a pipe, and an output must not replace it; name another"
        )
    if not is_file and path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, but the output is a folder; name another")
    if path.is_dir() and any(path.iterdir()) and not _folder_is_written_by_step(path):
        raise ValueError(f"{path} is a folder that no step has written; name another, or empty it")


def check_page_replaceable(path: Path) -> None:
    """Check that a page or a JSON file replaces at most another one.

    Raises:
        ValueError: as `check_replaceable`; or there is a file of another kind, such as a picture.
    """
    check_replaceable(path, is_file=True)
    if not path.exists():
        return
    with path.open("rb") as content:
        start = content.read(64)
    if start and not start.lstrip().startswith((b"<", b"{", b"[")):
        raise ValueError(f"{path} is no page and no JSON that a step has written; name another")


def _folder_is_written_by_step(folder: Path) -> bool:
    def read(name: str) -> bytes:
        with suppress(OSError, ValueError):
            return json_bytes(folder / name)
        return b""

    telling = {*chain(*PAIRED_FILES), *SELF_DESCRIBING_FILES}
    return is_written_by_step({name for name in telling if (folder / name).is_file()}, read)


def is_written_by_step(names: Collection[str], read: Callable[[str], bytes]) -> bool:
    """Whether a step has written a folder, judged by its files.

    Args:
        names: the names of its files, relative to it
        read: returns the bytes of one of them
    """
    if any(all(name in names for name in pair) for pair in PAIRED_FILES):
        return True
    return any(has_step_format(read(name)) for name in SELF_DESCRIBING_FILES if name in names)


def has_step_format(data: bytes) -> bool:
    """Whether the content of a file, as JSON, states that a step has written it."""
    try:
        content = read_json(data, dict[str, Any], where="a file")
    except ValueError:
        return False
    return str(content.get("format", "")).startswith("san-")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new directory to fill, which becomes `path` when the block ends without an exception.

    An older `path` is replaced, if `check_replaceable` allows it. Leftovers of a killed process are
    removed. Two processes must not write the same `path` at once.
    """
    unfinished = vacant_folder(_hidden_sibling(path, "unfinished"))
    replaced = vacant_folder(_hidden_sibling(path, "replaced"))
    unfinished.mkdir(parents=True)
    try:
        with add_path_to_errors(path, DISK_FULL_ERRORS):
            yield unfinished
            _flush_tree(unfinished)
    except BaseException:
        remove_or_warn(unfinished)
        raise
    is_replacing = path.exists()
    if is_replacing:  # a rename cannot replace a directory that is not empty
        path.rename(replaced)
    unfinished.rename(path)
    flush_to_disk(path.parent)
    if is_replacing:
        remove_or_warn(replaced)


def write_file(path: Path, data: bytes | str) -> None:
    """Write a file atomically; text is UTF-8. Missing folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _hidden_sibling(path, "unfinished")
    content = data.encode() if isinstance(data, str) else data
    try:
        with unfinished.open("wb") as file:
            reserve_space(file, len(content), path=path)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)
    flush_to_disk(path.parent)


def write_metrics(path: Path, metrics: Mapping[str, float | int | str | bool]) -> None:
    """Write metrics as a JSON object, in the given order.

    Raises:
        ValueError: a metric is not finite, which JSON, and so KFP, cannot express.
    """
    for name, value in metrics.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"metric {name!r} is {value}, which is not a finite number")
    write_file(path, json.dumps(dict(metrics), indent=2, ensure_ascii=False) + "\n")


def write_roc(
    path: Path, *, confidence: Iterable[float], fpr: Iterable[float], tpr: Iterable[float]
) -> None:
    """Write a receiver operating characteristic in KFP's form; without points, no curve.

    Args:
        path: the file
        confidence: falling thresholds; pairs that are at least as similar count as matches
        fpr: the false positive rate at each
        tpr: the true positive rate, or recall, at each

    Raises:
        ValueError: a value is not finite, or values are missing.
    """
    points = [
        {"confidenceThreshold": float(c), "falsePositiveRate": float(f), "recall": float(t)}
        for c, f, t in zip(confidence, fpr, tpr, strict=True)
    ]
    for name, value in (item for point in points for item in point.items()):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}, which is not a finite number")
    content = {"confidenceMetrics": points} if points else {}
    write_file(path, json.dumps(content, indent=1) + "\n")


def write_executor_output(executor_input: Mapping[str, Any], written: Mapping[str, Path]) -> None:
    """Write KFP's executor_output.json: name, URI and metadata of every output artifact.

    Args:
        executor_input: KFP's description of the task, passed as `{{$}}`
        written: the path of each output artifact
    """
    declared = executor_input["outputs"].get("artifacts") or {}
    artifacts = {}
    for name, found in declared.items():
        artifact = found["artifacts"][0]
        is_shown = artifact.get("type", {}).get("schemaTitle") in SHOWN_BY_METADATA
        path = written.get(name, artifact_path(artifact))
        entry = {
            "name": artifact.get("name", ""),
            "uri": artifact["uri"],
            "metadata": read_json_file(path, dict[str, Any])
            if is_shown
            else _artifact_metadata(path),
        }
        artifacts[name] = {"artifacts": [entry]}
    write_file(
        Path(executor_input["outputs"]["outputFile"]),
        json.dumps({"artifacts": artifacts}, indent=2, ensure_ascii=False) + "\n",
    )


def artifact_path(artifact: Mapping[str, Any]) -> Path:
    """The local path of an artifact of the executor input."""
    custom = artifact.get("customPath") or artifact.get("custom_path")
    uri = str(custom or artifact["uri"])
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return Path(mount + uri.removeprefix(scheme))
    return path_from_uri(uri)


def path_from_uri(uri: str) -> Path:
    """The path of a file:// URI or a plain path; another URI becomes a relative path."""
    return Path(unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri)


def _artifact_metadata(path: Path) -> dict[str, Any]:
    """The facts in a directory's manifest that KFP shows beside the artifact."""
    manifest = path / "manifest.json"
    if not manifest.is_file():
        return {}
    data = json_bytes(manifest)
    document = read_json(data, dict[str, Any], where=str(manifest))
    facts: dict[str, Any] = {key: document[key] for key in ("count", "uri") if key in document}
    return {**facts, "sha256": hashlib.sha256(data).hexdigest()}


def _hidden_sibling(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.{what}")


def _flush_tree(folder: Path) -> None:
    """Flush `folder` to disk, with every file and directory in it."""
    for parent, _, names in os.walk(folder):
        for name in names:
            flush_to_disk(Path(parent, name))
        flush_to_disk(Path(parent))


@contextmanager
def add_path_to_errors(path: Path, only_errnos: Collection[int] = ()) -> Iterator[None]:
    """Add the file to errors of writing; that of a full disk does not name it.

    only_errnos: the error numbers that certainly concern `path`; empty means all.
    """
    try:
        yield
    except OSError as error:
        is_meant = error.errno in only_errnos if only_errnos else error.errno is not None
        if error.filename is None and is_meant:
            is_full = error.errno in DISK_FULL_ERRORS
            named = OSError(error.errno, error.strerror, str(path))
            raise (disk_full_error(path) if is_full else named) from error
        raise


def flush_to_disk(path: Path) -> None:
    """Flush a file, or the names in a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
