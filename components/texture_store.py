"""The shards of a set of pseudo textures in their storage: which are finished, and putting one.

A tar goes before its sidecar, and a put is all or nothing, so a sidecar means a finished unit. Two
workers on one unit leave two complete pairs with different names; the lowest name counts.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from components.storage import Storage
from san_core.imageset import Shard
from san_core.texture_set import unit_number


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


def finished_units(storage: Storage) -> dict[int, Finished]:
    """The finished units by their number; a sidecar whose tar is absent or cut short is none."""
    sizes = {stat.name: stat.size for stat in storage.list("shards")}
    found: dict[int, Finished] = {}
    for name in sorted(name for name in sizes if name.endswith(".json")):
        number, _ = unit_number(name)
        if number in found:
            continue
        data = storage.get(name)
        sidecar = json.loads(data)
        if sizes.get(sidecar["tar"]) == sidecar["size"]:
            found[number] = Finished(name, data, sidecar["tar"], sidecar["size"], sidecar["sha256"])
    return found


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
