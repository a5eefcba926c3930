"""The shards of a set of pseudo textures in their storage: which are finished, and putting one.

A tar goes before its sidecar, and a put is all or nothing, so a sidecar means a finished unit. Two
workers on one unit leave two complete pairs with different names; the lowest name counts.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from components.process.threads import thread_pool
from components.storage.store import DamagedError, Storage
from san_core.checked_json import read_json
from san_core.images.shard import Shard, read_sidecar, shard_entry
from san_core.images.texture_set import parse_sidecar_name

log = logging.getLogger(__name__)

# How a shard that is found is looked at before it is believed.
VERIFY_LEVELS = ("none", "size", "sha256")
SIDECAR_THREADS = 8
TAR_CHUNK = 16 << 20


class FinishedUnit(NamedTuple):
    """The sidecar of a finished unit: its name, its bytes, and its size and sha256 of the tar."""

    name: str
    data: bytes
    tar: str
    size: int
    sha256: str

    def manifest_entry(self) -> dict[str, Any]:
        """The entry of the shard in a manifest."""
        return shard_entry(self.name, self.data)


def finished_units(
    storage: Storage, among: Collection[int], *, verify: str = "size"
) -> dict[int, FinishedUnit]:
    """The finished units with a number `among` these.

    Args:
        storage: where the shards are.
        among: the numbers that are asked for; nothing of others is read.
        verify: "none" believes a readable sidecar; "size" compares the size of its tar as well;
            "sha256" reads every tar, so that a damaged one counts as unfinished and is made again
            instead of being refused much later, in training.

    Raises:
        ValueError: `verify` is none of these.
    """
    check_verify(verify)
    sizes = {stat.name: stat.size for stat in storage.list("shards")}
    names = sorted(name for name in sizes if _unit_of_sidecar(name) in among)

    def read_unit(name: str) -> FinishedUnit | None:
        return _read_finished_unit(storage, name, sizes, verify)

    found: dict[int, FinishedUnit] = {}
    with thread_pool(SIDECAR_THREADS) as pool:
        for name, unit in zip(names, pool.map(read_unit, names), strict=True):
            if unit:
                found.setdefault(parse_sidecar_name(name)[0], unit)
    return found


def check_verify(verify: str) -> None:
    """Raise ValueError if a way to check shards is unknown."""
    if verify not in VERIFY_LEVELS:
        raise ValueError(f"verify {verify!r} is none of {', '.join(VERIFY_LEVELS)}")


def _unit_of_sidecar(name: str) -> int:
    """The unit of a sidecar; -1 for any other file among the shards."""
    try:
        return parse_sidecar_name(name)[0]
    except ValueError:
        return -1


def _read_finished_unit(
    storage: Storage, name: str, sizes: Mapping[str, int], verify: str
) -> FinishedUnit | None:
    """The unit of a sidecar; None if the sidecar or its tar is damaged."""
    try:
        data = storage.get(name)
        sidecar = read_sidecar(data, where=name)
        unit = FinishedUnit(name, data, sidecar["tar"], sidecar["size"], sidecar["sha256"])
    except FileNotFoundError:  # another process has just deleted it
        return None
    except (DamagedError, ValueError):
        log.warning("%s/%s is damaged; it counts as unfinished", storage.uri, name)
        return None
    is_whole = verify == "none" or sizes.get(unit.tar) == unit.size
    if is_whole and verify == "sha256":
        try:
            is_whole = tar_digest(storage, unit.tar, unit.size) == unit.sha256
        except (FileNotFoundError, DamagedError):
            is_whole = False
    if not is_whole:
        log.warning("%s/%s is missing or damaged; it counts as unfinished", storage.uri, unit.tar)
    return unit if is_whole else None


def tar_digest(storage: Storage, name: str, size: int) -> str:
    """The sha256 of a tar of `size` bytes as it lies in the store, read piece by piece."""
    digest = hashlib.sha256()
    for start in range(0, size, TAR_CHUNK):
        digest.update(storage.get_range(name, start, min(TAR_CHUNK, size - start)))
    return digest.hexdigest()


def put_shard(storage: Storage, shard: Shard) -> FinishedUnit:
    """Store a shard, its tar first."""
    storage.put_file(shard.tar_name, shard.tar, digest=shard.sha256)
    storage.put_bytes(shard.sidecar_name, shard.sidecar)
    return FinishedUnit(shard.sidecar_name, shard.sidecar, shard.tar_name, shard.size, shard.sha256)


def sidecar_names(storage: Storage) -> list[str]:
    """The names of all sidecars."""
    return [stat.name for stat in storage.list("shards") if _unit_of_sidecar(stat.name) >= 0]


def delete_replaced_shards(storage: Storage, made: FinishedUnit, former: Collection[str]) -> None:
    """Delete the pairs of the unit of `made` that were there before, as `former` sidecars tell.

    A pair that another worker has put since then stays, and so does a tar without a sidecar: it may
    be one that is just being put.
    """
    number = parse_sidecar_name(made.name)[0]
    for name in former:
        if _unit_of_sidecar(name) == number and name != made.name:
            storage.delete(name)
            storage.delete(name.removesuffix(".json") + ".tar")


def delete_other_shards(storage: Storage, keep: Mapping[int, FinishedUnit]) -> int:
    """Delete the shards that are not among `keep`, and what killed writers have left of some.

    Returns how many files went.
    """
    kept = {name for unit in keep.values() for name in (unit.name, unit.tar)}
    extra = {stat.name for stat in storage.list("shards")} - kept
    # Sidecars first: at no moment does one name a tar that has gone.
    for name in sorted(extra, key=lambda name: (name.endswith(".tar"), name)):
        storage.delete(name)
    return len(extra) + storage.sweep("shards")


def forget_overwriting(storage: Storage) -> None:
    """Delete what workers, of whatever number, have noted of an overwriting."""
    for stat in storage.list("overwriting"):
        storage.delete(stat.name)


class Overwriting:
    """Which units a worker has yet to make again, kept in the store until it has made them all.

    By it a worker that was killed goes on where it was, instead of making all units once more.
    """

    def __init__(self, storage: Storage, worker: str) -> None:
        self._storage = storage
        self._name = f"overwriting/{worker.replace('/', '-of-')}.json"
        try:
            told = storage.get(self._name)
            self._left: list[int] | None = read_json(told, list[int], where=self._name)
        except FileNotFoundError:
            self._left = None

    def left(self, units: Collection[int]) -> set[int]:
        """The units to make: those that an earlier run has left, or all."""
        if self._left is None:
            return set(units)
        left = set(units).intersection(self._left)
        log.warning(
            "going on with an overwriting that was stopped: %d of %d shards are left; delete %s/%s"
            " to begin anew",
            *(len(left), len(units), self._storage.uri, self._name),
        )
        return left

    def note_left(self, units: Collection[int]) -> None:
        """Keep which units are left now."""
        if units:
            self._storage.put_bytes(self._name, json.dumps(sorted(units)).encode())
        else:
            self._storage.delete(self._name)
