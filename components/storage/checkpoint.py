"""Checkpoints of unfinished training, from which a killed step continues.

A checkpoint belongs to one training run: its folder is named by a digest of everything that decides
the result (recipe, seed, inputs, code), so that no run continues another's. The last checkpoint
stays when training is done. If the trained model is lost on its way to storage, the repeated step
has it again within seconds. Delete the folder when it is no longer needed. If the store is
unreachable, a checkpoint is skipped, training continues, and the next one is written as usual.

A state passes through a local file, so that memory never holds a copy of it.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, TypedDict

import torch

from components.process.messages import note_copy, os_error_message
from components.storage import retry
from components.storage.outputs import add_path_to_errors
from components.storage.places import open_storage
from components.storage.store import TRAINING_KEY_FILE, Stat, Storage
from san_core.checked_json import read_json
from san_core.images.shard import canonical_json, sha256
from san_core.model.saved import RECIPE_FILE, SUMS_FILE

log = logging.getLogger(__name__)

_OBJECT_NAME = "state.pt"
_MODEL_NAME = "model"  # beside it: its model, which every step can read
_FAILURE_NAME = "failed.json"  # beside it: the reason why the training cannot continue
_MOST_COMPARED = 100  # checkpoints of other runs that are compared
_DIGEST_LENGTH = 64  # hexadecimal digits of a sha256, before the state
_CHUNK = 8 << 20


class Checkpoint:
    """The checkpoint of one training run; with an empty URI there is none.

    Args:
        uri: folder or URI for the checkpoints of all runs.
        run_key: everything that decides the result of this run, as JSON.
        room: a local folder for the file that a state passes through.
        has_start_from: whether the step has --start-from, which messages then suggest.

    Attributes:
        run_key: everything that decides the result, with the version of torch, as canonical JSON.
    """

    def __init__(
        self, uri: str, run_key: Mapping[str, Any], *, room: Path, has_start_from: bool = False
    ) -> None:
        self._uri, self._room, self._has_start_from = uri, room, has_start_from
        self.run_key = canonical_json({**run_key, "torch": torch.__version__})
        folder = sha256(self.run_key)[:16]
        self._read_from: Storage | None = open_storage(uri, folder) if uri else None
        # Training waits while a state is written, and a later one would replace it anyway.
        quick = retry.SHORT_BACKOFF
        self._keep_in: Storage | None = open_storage(uri, folder, patience=quick) if uri else None
        self._is_described = False

    @property
    def is_kept(self) -> bool:
        """Whether checkpoints are written."""
        return self._keep_in is not None

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state atomically. A failure is only logged as a warning."""
        if self._keep_in is None:
            return
        try:
            self._describe_run(self._keep_in)
            path = self._room / f"saving-{_OBJECT_NAME}"
            try:
                _write_state(path, state)
                self._keep_in.put_file(_OBJECT_NAME, path)
            finally:
                path.unlink(missing_ok=True)
        except OSError as error:
            log.warning(
                "the checkpoint after epoch %s was not written, and training continues: %s",
                state.get("epoch"),
                os_error_message(error),
            )

    def fetch(self) -> Path | None:
        """A local file with the last state, for `read_state`.

        None if there is none; then the most similar run with a state is logged.

        Raises:
            ValueError: it is damaged.
            OSError: the store is unreachable, or denies reading or writing.
        """
        if self._read_from is None:
            return None
        found = self._stat_state(self._read_from)
        if found is None:
            self._warn_of_other_run()
            return None
        path = _fetch_state(self._read_from, found, self._room)
        log.info("found a checkpoint of this training in %s", self._read_from.uri)
        return path

    def keep_beside(self, name: str, content: bytes | str) -> None:
        """Write a file beside the state, such as the history; a failure is only a warning."""
        if self._keep_in is None:
            return
        data = content.encode() if isinstance(content, str) else content
        try:
            self._keep_in.put_bytes(name, data)
        except OSError as error:
            log.warning(
                "%s was not written, and training continues: %s", name, os_error_message(error)
            )

    def keep_model(self, folder: Path) -> None:
        """Write a model as `model` beside the state; a failure is only a warning.

        Its checksums are written last, so that an incomplete model is not accepted.
        """
        if self._keep_in is None:
            return
        names = sorted((path.name for path in folder.iterdir()), key=lambda n: (n == SUMS_FILE, n))
        try:
            for name in names:
                self._keep_in.put_file(f"{_MODEL_NAME}/{name}", folder / name)
        except OSError as error:
            log.warning(
                "the model was not written, and training continues: %s", os_error_message(error)
            )

    def keep_failure(self, message: str, *, has_model: bool) -> None:
        """Record why this training cannot continue, so that it is not tried again in vain."""
        told = {"failed": message, "has_model": has_model}
        self.keep_beside(_FAILURE_NAME, json.dumps(told) + "\n")

    def check_not_failed(self) -> None:
        """Raise ValueError if this training is known to fail."""
        if self._read_from is None:
            return
        try:
            if self._read_from.stat(_FAILURE_NAME) is None:
                return
        except PermissionError:  # as in `_stat_state`: S3 may deny a missing object
            return
        place = f"{self._read_from.uri}/{_FAILURE_NAME}"
        told = read_json(self._read_from.get(_FAILURE_NAME), _Failure, where=place)
        model = f"{self._read_from.uri}/{_MODEL_NAME}"
        raise ValueError(
            f"this training has failed before: {told['failed']}; "
            + (f"its best model until then is {model}; " if told["has_model"] else "")
            + f"change the recipe or the seed, or delete {place} to try it again"
        )

    def _stat_state(self, storage: Storage) -> Stat | None:
        """The size of the state; None if there is none.

        Without s3:ListBucket, S3 denies access to a missing object as to one that must not be read.
        The key of the run, written beside the state, distinguishes the two.

        Raises:
            PermissionError: reading or writing is denied.
        """
        try:
            return storage.stat(_OBJECT_NAME)
        except PermissionError:
            self._describe_run(storage)
            storage.get(TRAINING_KEY_FILE)
            log.warning(
                "%s denies access to this training's checkpoint, but not to a file just written"
                " beside it, so there is none (S3 reports that only with s3:ListBucket)",
                storage.uri,
            )
            return None

    def _describe_run(self, storage: Storage) -> None:
        """Write the key of the run beside its state, once."""
        if not self._is_described:
            storage.put_bytes(TRAINING_KEY_FILE, self.run_key)
            self._is_described = True

    def _warn_of_other_run(self) -> None:
        """Log the most similar run with a state, and the differences that prevent its use."""
        mine = _parse_run_key(self.run_key)
        try:
            others = list(self._other_runs(mine))
        except OSError as error:
            log.warning("checkpoints of other runs cannot be listed: %s", error)
            return
        if others:
            nearest = min(others, key=lambda other: len(other.differences))
            log.warning(
                "training starts anew: the checkpoint in %s is of another run of %s, which differs"
                " in %s; to continue it, give the same values as that run%s",
                *(nearest.place, mine.get("step"), "; ".join(nearest.differences)),
                self._how_to_start_from(nearest, mine),
            )

    def _how_to_start_from(self, other: "_OtherRun", mine: Mapping[str, Any]) -> str:
        """How this run can train another's model further; empty if it cannot, or does so."""
        if not self._has_start_from or not other.has_model or "start_from" in mine:
            return ""
        return (
            "; to train its model further with other values, add --start-from"
            f" {other.place} and init=model in --overrides"
        )

    def _other_runs(self, mine: Mapping[str, Any]) -> "Iterator[_OtherRun]":
        """The runs of the same step with a checkpoint beside this one's."""
        root = open_storage(self._uri)
        names = {stat.name for stat in root.list()}
        described = [n for n in sorted(names) if PurePosixPath(n).name == TRAINING_KEY_FILE]
        for name in described[:_MOST_COMPARED]:
            folder = PurePosixPath(name).parent
            theirs = _parse_run_key(root.get(name))
            is_same_step = theirs.get("step") == mine.get("step")
            if str(folder / _OBJECT_NAME) in names and is_same_step:
                place = f"{root.uri}/{folder}"
                has_model = str(folder / _MODEL_NAME / SUMS_FILE) in names
                yield _OtherRun(place, list(_differences(theirs, mine)), has_model)


def _write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state to a file, after the sha256 of its bytes.

    Raises:
        OSError: it cannot be written, even if torch raises another error.
    """
    with add_path_to_errors(path), path.open("wb") as file:
        file.write(bytes(_DIGEST_LENGTH))
        hashed = _HashedWriter(file)
        try:
            torch.save(state, hashed)  # type: ignore[arg-type]  # torch only writes and flushes
        except RuntimeError as error:
            if hashed.error is None:
                raise
            raise hashed.error from error
        file.seek(0)
        file.write(hashed.digest.hexdigest().encode())


def read_state(path: Path) -> dict[str, Any]:
    """The state in a file of `Checkpoint.fetch`; its tensors are read when they are needed.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:  # anything from EOFError to UnpicklingError
        raise no_state_error(path) from error
    if not isinstance(state, dict):
        raise no_state_error(path)
    return state


def no_state_error(path: Path, reason: str = "") -> ValueError:
    """The error for a file that should hold the state of a training and does not."""
    told = f" ({reason})" if reason else ""
    return ValueError(
        f"checkpoint {path} holds no state of training{told}; delete it to train anew"
    )


def model_at(place: str) -> str:
    """The place of a model: the place itself or, of a checkpoint, that of its model.

    Files are only listed, as a checkpoint is large.

    Args:
        place: folder or URI of a model or of a checkpoint, or anything else.

    Raises:
        ValueError: a checkpoint has no model yet; or there are several, which the message names.
        OSError: the store is unreachable.
    """
    listed = open_storage(place).list()
    names = {stat.name for stat in listed}
    if RECIPE_FILE in names or (state := _find_state(listed, place)) is None:
        return place
    folder = PurePosixPath(state.name).parent
    if str(folder / _MODEL_NAME / SUMS_FILE) not in names:
        checkpoint = _join(place, folder)
        raise ValueError(
            f"checkpoint {checkpoint} has no model yet: {checkpoint}/{_MODEL_NAME} is missing or"
            " incomplete"
        )
    return _join(place, folder / _MODEL_NAME)


def fetch_any_state(place: str, room: Path) -> Path:
    """A local file with the state at a place, for `read_state`.

    Args:
        place: folder or URI of a state, of the checkpoints of one run, or of the file itself.
        room: a local folder for the file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several, which the message names, or it is damaged.
        OSError: the store is unreachable.
    """
    storage = open_storage(place.rstrip("/").removesuffix(f"/{_OBJECT_NAME}"))
    found = _find_state(storage.list(), place)
    if found is None:
        raise FileNotFoundError(f"{place} holds no state of training ({_OBJECT_NAME})")
    return _fetch_state(storage, found, room)


def _find_state(listed: Sequence[Stat], place: str) -> Stat | None:
    """The only state of training among the objects at a place; None if there is none.

    Raises:
        ValueError: there are several, which the message names.
    """
    found = [stat for stat in listed if PurePosixPath(stat.name).name == _OBJECT_NAME]
    if len(found) > 1:
        folders = ", ".join(str(PurePosixPath(stat.name).parent) for stat in found)
        raise ValueError(
            f"{place} holds {len(found)} checkpoints; name one of the folders {folders}"
        )
    return found[0] if found else None


def _join(place: str, path: PurePosixPath) -> str:
    """The place of a path under a folder or URI."""
    return "/".join([place.rstrip("/"), *path.parts])


def _fetch_state(storage: Storage, found: Stat, room: Path) -> Path:
    """Copy a state to a file in a folder.

    Raises:
        ValueError: it is damaged.
    """
    path, digest = room / _OBJECT_NAME, hashlib.sha256()
    expected = storage.get_range(found.name, 0, min(_DIGEST_LENGTH, found.size))
    with path.open("wb") as file:
        for start in range(_DIGEST_LENGTH, found.size, _CHUNK):
            data = storage.get_range(found.name, start, min(_CHUNK, found.size - start))
            digest.update(data)
            file.write(data)
    place = f"{storage.uri}/{found.name}"
    if digest.hexdigest().encode() != expected:
        raise ValueError(f"checkpoint {place} is damaged; delete it to train anew")
    note_copy(path, place)
    return path


class _Failure(TypedDict):
    """The record that a training cannot continue."""

    failed: str
    has_model: bool


class _OtherRun(NamedTuple):
    place: str
    differences: list[str]
    has_model: bool


def _parse_run_key(data: bytes) -> dict[str, Any]:
    """The key of a run; empty if the text is not one."""
    try:
        return read_json(data, dict[str, Any], where=TRAINING_KEY_FILE)
    except ValueError:
        return {}


def differences_of_runs(one: bytes, other: bytes) -> list[str]:
    """The differences between two keys of runs, in words; empty if they are equal."""
    return list(_differences(_parse_run_key(one), _parse_run_key(other)))


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """The differences between two keys of runs, in words."""
    for name in sorted({*there, *here}):
        one, other = there.get(name), here.get(name)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            inner = ", ".join(_differences(one, other))
            yield f"{name} ({inner})"
        elif _is_short(one) and _is_short(other):
            yield f"{name} {one} there, {other} here"
        else:
            yield name  # a digest, which means nothing to a reader


def _is_short(value: Any) -> bool:
    return isinstance(value, int | float | str | list) and len(str(value)) < _DIGEST_LENGTH


class _HashedWriter:
    """A file for `torch.save` that computes the sha256 of its content."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: memoryview) -> int:
        self.digest.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()
