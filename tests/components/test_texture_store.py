import json

import pytest

from components.storage import LocalStorage
from components.texture_store import finished_units, prune, put_shard
from san_core.imageset import Item, pack


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path)


def _shard(number, data):
    return pack([Item(f"{number}.png", data, 1, 0, "train")], number, total=2)


def test_finished_units_are_found_with_what_their_sidecars_say(storage):
    put = put_shard(storage, _shard(1, b"one"))
    assert finished_units(storage, range(2)) == {1: put}
    assert put.sha256 == json.loads(put.data)["sha256"]
    assert put.described()["tar"] == put.tar


def test_units_that_were_not_asked_for_are_not_read(storage):
    put_shard(storage, _shard(0, b"zero"))
    assert finished_units(storage, {1}) == {}


def test_tar_without_sidecar_is_not_finished(storage):
    shard = _shard(0, b"zero")
    storage.put(shard.tar_name, shard.tar)
    assert finished_units(storage, range(2)) == {}


def test_of_two_complete_pairs_the_lowest_name_counts(storage):
    pairs = [put_shard(storage, _shard(0, data)) for data in (b"from a", b"from b")]
    assert pairs[0].name != pairs[1].name
    assert finished_units(storage, range(2)) == {0: min(pairs, key=lambda unit: unit.name)}


def test_damaged_pair_gives_way_to_a_whole_one(storage):
    pairs = sorted(put_shard(storage, _shard(0, data)) for data in (b"from a", b"from b"))
    tar = bytearray(storage.get(pairs[0].tar))
    tar[600] ^= 1
    storage.put(pairs[0].tar, bytes(tar))
    assert finished_units(storage, range(2)) == {0: pairs[1]}


@pytest.mark.parametrize("content", [b"{", b"{}", b"[]"])
def test_unreadable_sidecar_is_not_finished(storage, content):
    put = put_shard(storage, _shard(0, b"zero"))
    storage.put(put.name, content)
    assert finished_units(storage, range(2)) == {}


def test_prune_deletes_what_no_unit_names(storage):
    keep = put_shard(storage, _shard(0, b"zero"))
    put_shard(storage, _shard(1, b"one"))
    assert prune(storage, {0: keep}) == 2
    assert finished_units(storage, range(2)) == {0: keep}
    assert len(list(storage.list("shards"))) == 2
