"""The state of unfinished training, kept so that a killed step goes on where it was.

A checkpoint belongs to one training run and no other: it lies in a folder named by everything that
decides the result (recipe, seed, inputs, code), so that no run revives another's.
The last state stays when training is done: if what was trained is lost on its way to storage, the
step that is run again has it within seconds. Delete the folder when it is not needed any more.
A store that is away costs a state, not the training: the next one is tried again.

A state passes through a file of this machine, so that memory never holds a copy of it.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import torch

from components.process.messages import note_copy, os_error_message
from components.storage import retry
from components.storage.outputs import add_path_to_errors
from components.storage.places import open_storage
from components.storage.store import Stat, Storage
from san_core.checked_json import read_json
from san_core.images.shard import canonical_json, sha256

log = logging.getLogger(__name__)

_OBJECT_NAME = "state.pt"
_RUN_NAME = "run.json"  # beside it, the key of its run, for people and for other runs
_MOST_COMPARED = 100  # states of other runs that are looked at
_DIGEST_LENGTH = 64  # hexadecimal digits of a sha256, before the state
_CHUNK = 8 << 20


class Checkpoint:
    """Where one training run keeps its state; with an empty URI it keeps none.

    Args:
        uri: folder or URI under which the checkpoints of all runs lie.
        run_key: everything that decides what this run computes, as JSON.
        room: a folder of this machine for the file that a state passes through.
    """

    def __init__(self, uri: str, run_key: Mapping[str, Any], *, room: Path) -> None:
        self._uri, self._room = uri, room
        self._run_key = canonical_json({**run_key, "torch": torch.__version__})
        folder = sha256(self._run_key)[:16]
        self._read_from: Storage | None = open_storage(uri, folder) if uri else None
        # Training waits for a state to be kept, and the next one will do as well.
        quick = retry.SHORT_BACKOFF
        self._keep_in: Storage | None = open_storage(uri, folder, patience=quick) if uri else None
        self._is_described = False

    def save(self, state: dict[str, Any]) -> None:
        """Keep the state; an older one is replaced, all or nothing. A failure is only warned of."""
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
                "the state after epoch %s is not kept, training goes on: %s",
                state.get("epoch"),
                os_error_message(error),
            )

    def fetch(self) -> Path | None:
        """A file of this machine with the state kept last, for `read_state`.

        None if there is none, and then the nearest of another run is told.

        Raises:
            ValueError: it is damaged.
            OSError: the store is away, or does not let states be read and kept.
        """
        if self._read_from is None:
            return None
        storage, found = self._read_from, self._stat_state(self._read_from)
        if found is None:
            self._warn_of_other_run()
            return None
        path, digest = self._room / _OBJECT_NAME, hashlib.sha256()
        expected = storage.get_range(_OBJECT_NAME, 0, min(_DIGEST_LENGTH, found.size))
        with path.open("wb") as file:
            for start in range(_DIGEST_LENGTH, found.size, _CHUNK):
                data = storage.get_range(_OBJECT_NAME, start, min(_CHUNK, found.size - start))
                digest.update(data)
                file.write(data)
        place = f"{storage.uri}/{_OBJECT_NAME}"
        if digest.hexdigest().encode() != expected:
            raise ValueError(f"checkpoint {place} is damaged; delete it to train anew")
        note_copy(path, place)
        log.info("a state of this training is kept in %s", storage.uri)
        return path

    def _stat_state(self, storage: Storage) -> Stat | None:
        """The size of the state; None if there is none.

        S3 denies what is missing where s3:ListBucket is not allowed, just as it denies what must
        not be read. The key of the run, put beside the state, tells the two apart.

        Raises:
            PermissionError: states must not be read, or not be kept.
        """
        try:
            return storage.stat(_OBJECT_NAME)
        except PermissionError:
            self._describe_run(storage)
            storage.get(_RUN_NAME)
            log.warning(
                "%s denies the state of this training but not what was just put beside it: there is"
                " none (S3 says so only with s3:ListBucket)",
                storage.uri,
            )
            return None

    def _describe_run(self, storage: Storage) -> None:
        """Keep the key of the run beside its state, once."""
        if not self._is_described:
            storage.put_bytes(_RUN_NAME, self._run_key)
            self._is_described = True

    def _warn_of_other_run(self) -> None:
        """Say which state of another run lies here, and what would have to be equal to use it."""
        mine = _parse_run_key(self._run_key)
        try:
            others = list(self._other_runs(mine))
        except OSError as error:
            log.warning("states of other runs cannot be looked at: %s", error)
            return
        if others:
            nearest = min(others, key=lambda other: len(other.differences))
            log.warning(
                "training starts anew: the state in %s is of another run of %s, which differs in"
                " %s; to go on from it, give what that run was given",
                *(nearest.place, mine.get("step"), "; ".join(nearest.differences)),
            )

    def _other_runs(self, mine: Mapping[str, Any]) -> "Iterator[_OtherRun]":
        """The runs of the same step whose states are kept beside this one's."""
        root = open_storage(self._uri)
        names = {stat.name for stat in root.list()}
        described = [n for n in sorted(names) if PurePosixPath(n).name == _RUN_NAME]
        for name in described[:_MOST_COMPARED]:
            folder = PurePosixPath(name).parent
            theirs = _parse_run_key(root.get(name))
            is_same_step = theirs.get("step") == mine.get("step")
            if str(folder / _OBJECT_NAME) in names and is_same_step:
                place = f"{root.uri}/{folder}"
                yield _OtherRun(place, list(_differences(theirs, mine)))


def _write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state to a file, and before it the sha256 of its bytes.

    Raises:
        OSError: it cannot be written, also where torch has another error for that.
    """
    with add_path_to_errors(path), path.open("wb") as file:
        file.write(bytes(_DIGEST_LENGTH))
        hashed = _HashedWriter(file)
        try:
            torch.save(state, hashed)  # type: ignore[arg-type]  # it writes and flushes, no more
        except RuntimeError as error:
            if hashed.error is None:
                raise
            raise hashed.error from error
        file.seek(0)
        file.write(hashed.digest.hexdigest().encode())


def read_state(path: Path) -> dict[str, Any]:
    """The state in a file of `Checkpoint.fetch`, its tensors read from there as they are needed.

    Raises:
        ValueError: it holds something else.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:  # anything from EOFError to UnpicklingError
        raise no_state_error(path) from error
    if not isinstance(state, dict):
        raise no_state_error(path)
    log.info("going on after epoch %s", state.get("epoch"))
    return state


def no_state_error(path: Path, reason: str = "") -> ValueError:
    """What is said of a file that should hold a state of training, and does not."""
    told = f" ({reason})" if reason else ""
    return ValueError(
        f"checkpoint {path} holds no state of training{told}; delete it to train anew"
    )


class _OtherRun(NamedTuple):
    place: str
    differences: list[str]


def _parse_run_key(data: bytes) -> dict[str, Any]:
    """The key of a run; nothing if it is not one."""
    try:
        return read_json(data, dict[str, Any], where=_RUN_NAME)
    except ValueError:
        return {}


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """What two keys of runs differ in, in words."""
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
            yield name  # a digest, which tells people nothing


def _is_short(value: Any) -> bool:
    return isinstance(value, int | float | str | list) and len(str(value)) < _DIGEST_LENGTH


class _HashedWriter:
    """What `torch.save` writes to: a file, and the sha256 of what goes there."""

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
