"""The shards of a set of pseudo textures in their storage: which are finished, and putting one.

A tar goes before its sidecar, and a put is all or nothing, so a sidecar means a finished unit. Two
workers on one unit leave two complete pairs with different names; the lowest name counts.
"""

import json
import logging
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from components.storage import Storage
from san_core.imageset import Shard, sha256
from san_core.texture_set import unit_number

log = logging.getLogger(__name__)


class Finished(NamedTuple):
    """The sidecar of a finished unit: its name, its bytes, and its size and sha256 of the tar."""

    name: str
    data: bytes
    tar: str
    size: int
    sha256: str

    def described(self) -> dict[str, Any]:
        """The shard as manifests speak of it."""
        return {"sidecar": self.name, "tar": self.tar, "size": self.size, "sha256": self.sha256}


def finished_units(storage: Storage, among: Collection[int]) -> dict[int, Finished]:
    """The finished units with a number `among` these; one with a damaged file is not finished.

    Every tar is read and compared with its sidecar, so that a damaged one is made again instead of
    being refused much later, in training.
    """
    sizes = {stat.name: stat.size for stat in storage.list("shards")}
    found: dict[int, Finished] = {}
    for name in sorted(name for name in sizes if name.endswith(".json")):
        number, _ = unit_number(name)
        if number in among and number not in found and (unit := _read(storage, name, sizes)):
            found[number] = unit
    return found


def _read(storage: Storage, name: str, sizes: Mapping[str, int]) -> Finished | None:
    """The unit of a sidecar; None if the sidecar or its tar is not whole."""
    data = storage.get(name)
    try:
        sidecar = json.loads(data)
        unit = Finished(name, data, sidecar["tar"], sidecar["size"], sidecar["sha256"])
    except (ValueError, KeyError, TypeError):
        log.warning("%s/%s is damaged; it counts as unfinished", storage.uri, name)
        return None
    if sizes.get(unit.tar) != unit.size or sha256(storage.get(unit.tar)) != unit.sha256:
        log.warning("%s/%s is missing or damaged; it counts as unfinished", storage.uri, unit.tar)
        return None
    return unit


def put_shard(storage: Storage, shard: Shard) -> Finished:
    """Store a shard, its tar first."""
    storage.put(shard.tar_name, shard.tar)
    storage.put(shard.sidecar_name, shard.sidecar)
    sidecar = json.loads(shard.sidecar)
    return Finished(
        shard.sidecar_name, shard.sidecar, shard.tar_name, sidecar["size"], sidecar["sha256"]
    )


def prune(storage: Storage, keep: Mapping[int, Finished]) -> int:
    """Delete the shards that are not among `keep`; returns how many files went."""
    named = {name for unit in keep.values() for name in (unit.name, unit.tar)}
    extra = [stat.name for stat in storage.list("shards") if stat.name not in named]
    for name in extra:
        storage.delete(name)
    return len(extra)
