"""The state of unfinished training, kept so that a killed step goes on where it was.

A checkpoint belongs to one training run and no other: it lies in a folder named by everything that
decides the result (recipe, seed, inputs, code), so that no run revives another's.
The last state stays when training is done: if what was trained is lost on its way to storage, the
step that is run again has it within seconds. Delete the folder when it is not needed any more.

A state passes through a file of this machine, so that memory never holds a copy of it.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import torch

from components.process.messages import note_copy
from components.storage.places import open_storage
from components.storage.store import Storage
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
        self._storage: Storage | None = open_storage(uri, folder) if uri else None
        self._is_described = False

    def save(self, state: dict[str, Any]) -> None:
        """Keep the state; an older one is replaced, all or nothing."""
        if self._storage is None:
            return
        if not self._is_described:
            self._storage.put_bytes(_RUN_NAME, self._run_key)
            self._is_described = True
        path = self._room / f"saving-{_OBJECT_NAME}"
        with path.open("wb") as file:
            file.write(bytes(_DIGEST_LENGTH))
            hashed = _HashedWriter(file)
            torch.save(state, hashed)  # type: ignore[arg-type]  # it writes and flushes, no more
            file.seek(0)
            file.write(hashed.digest.hexdigest().encode())
        self._storage.put_file(_OBJECT_NAME, path)
        path.unlink()

    def fetch(self) -> Path | None:
        """A file of this machine with the state kept last, for `read_state`.

        None if there is none, and then the nearest of another run is told.

        Raises:
            ValueError: it is damaged.
        """
        if self._storage is None:
            return None
        found = self._storage.stat(_OBJECT_NAME)
        if found is None:
            self._warn_of_other_run()
            return None
        path, digest = self._room / _OBJECT_NAME, hashlib.sha256()
        expected = self._storage.get_range(_OBJECT_NAME, 0, min(_DIGEST_LENGTH, found.size))
        with path.open("wb") as file:
            for start in range(_DIGEST_LENGTH, found.size, _CHUNK):
                data = self._storage.get_range(_OBJECT_NAME, start, min(_CHUNK, found.size - start))
                digest.update(data)
                file.write(data)
        if digest.hexdigest().encode() != expected:
            raise ValueError(
                f"checkpoint {self._storage.uri}/{_OBJECT_NAME} is damaged; delete it to train anew"
            )
        note_copy(path, f"{self._storage.uri}/{_OBJECT_NAME}")
        log.info("a state of this training is kept in %s", self._storage.uri)
        return path

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


def read_state(path: Path) -> dict[str, Any]:
    """The state in a file of `Checkpoint.fetch`, its tensors read from there as they are needed.

    Raises:
        ValueError: it holds something else.
    """
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:  # anything from EOFError to UnpicklingError
        raise ValueError(
            f"checkpoint {path} holds no state of training; delete it to train anew"
        ) from error
    log.info("going on after epoch %s", state.get("epoch"))
    return state


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

    def write(self, data: memoryview) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()
