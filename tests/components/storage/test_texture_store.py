import io
import json

import pytest

from components.storage.folder import LocalStorage
from components.storage.places import open_storage
from components.storage.texture_store import (
    Overwriting,
    delete_other_shards,
    delete_replaced_shards,
    finished_units,
    forget_overwriting,
    put_shard,
    sidecar_names,
)
from san_core.images.shard import Item, pack_shard, sha256


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path / "store")


@pytest.fixture
def shard(tmp_path):
    """A shard of one image with these bytes."""

    def make(number, data):
        items = [Item(f"{number}.png", data, 1, 0, "train")]
        return pack_shard(items, tmp_path / f"{sha256(data)}.tar", number, total=2)

    return make


def test_finished_units_are_found_with_what_their_sidecars_say(storage, shard):
    put = put_shard(storage, shard(1, b"one"))
    assert finished_units(storage, range(2)) == {1: put}
    assert put.sha256 == json.loads(put.data)["sha256"]
    assert put.manifest_entry()["tar"] == put.tar


def test_units_that_were_not_asked_for_are_not_read(storage, shard):
    put_shard(storage, shard(0, b"zero"))
    assert finished_units(storage, {1}) == {}


def test_tar_without_sidecar_is_not_finished(storage, shard):
    made = shard(0, b"zero")
    storage.put_file(made.tar_name, made.tar)
    assert finished_units(storage, range(2)) == {}


def test_a_tar_that_is_gone_is_warned_of_and_a_whole_one_is_not(storage, shard, caplog):
    gone = put_shard(storage, shard(0, b"zero"))
    put_shard(storage, shard(1, b"one"))
    storage.delete(gone.tar)
    assert list(finished_units(storage, range(2))) == [1]
    (warning,) = caplog.messages
    assert warning == f"{storage.uri}/{gone.tar} is missing or damaged; it counts as unfinished"


def test_of_two_complete_pairs_the_lowest_name_counts(storage, shard):
    pairs = [put_shard(storage, shard(0, data)) for data in (b"from a", b"from b")]
    assert pairs[0].name != pairs[1].name
    assert finished_units(storage, range(2)) == {0: min(pairs, key=lambda unit: unit.name)}


def test_damaged_pair_gives_way_to_a_whole_one(storage, shard):
    pairs = sorted(put_shard(storage, shard(0, data)) for data in (b"from a", b"from b"))
    tar = bytearray(storage.get(pairs[0].tar))
    tar[600] ^= 1
    storage.put_bytes(pairs[0].tar, bytes(tar))
    assert finished_units(storage, range(2), verify="sha256") == {0: pairs[1]}
    assert finished_units(storage, range(2), verify="size") == {0: pairs[0]}
    storage.put_bytes(pairs[0].tar, bytes(tar[:-1]))
    assert finished_units(storage, range(2), verify="size") == {0: pairs[1]}
    assert finished_units(storage, range(2), verify="none") == {0: pairs[0]}


def test_unknown_way_to_verify_is_refused(storage):
    with pytest.raises(ValueError, match="verify 'md5' is none of none, size, sha256"):
        finished_units(storage, range(2), verify="md5")


def test_former_pairs_of_a_unit_are_deleted_and_nothing_newer(storage, shard):
    put_shard(storage, shard(0, b"before"))
    other = put_shard(storage, shard(1, b"another unit"))
    former = sidecar_names(storage)
    meanwhile = put_shard(storage, shard(0, b"by another worker"))
    made = put_shard(storage, shard(0, b"by this one"))
    half = shard(0, b"being put")
    storage.put_file(half.tar_name, half.tar)
    delete_replaced_shards(storage, made, former)
    assert sorted(sidecar_names(storage)) == sorted([meanwhile.name, made.name, other.name])
    assert storage.stat(half.tar_name)
    assert len(storage.list("shards")) == 7


def test_foreign_files_among_the_shards_are_passed_over(storage, shard):
    put = put_shard(storage, shard(0, b"zero"))
    for name in ("shards/notes.txt", "shards/notes.json"):
        storage.put_bytes(name, b"mine")
    assert finished_units(storage, range(2)) == {0: put}
    assert sidecar_names(storage) == [put.name]


def test_overwriting_goes_on_with_what_a_former_life_has_left(storage):
    first = Overwriting(storage, "1/2")
    assert first.left({1, 3, 5}) == {1, 3, 5}
    first.note_left({3, 5})
    assert Overwriting(storage, "1/2").left({1, 3, 5}) == {3, 5}
    assert Overwriting(storage, "0/2").left({0, 2}) == {0, 2}
    first.note_left(set())
    assert Overwriting(storage, "1/2").left({1, 3, 5}) == {1, 3, 5}
    assert storage.list() == []


def test_overwritings_of_whatever_number_of_workers_are_forgotten(storage, shard):
    for worker in ("0/2", "1/2", "2/3"):
        Overwriting(storage, worker).note_left({1})
    put = put_shard(storage, shard(0, b"zero"))
    forget_overwriting(storage)
    assert [stat.name for stat in storage.list()] == sorted([put.name, put.tar])


@pytest.mark.s3
def test_sidecar_that_is_damaged_in_the_bucket_is_not_finished(s3, s3_server, shard):
    storage = open_storage(s3)
    put = put_shard(storage, shard(0, b"zero"))
    client, key = s3_server.client(), f"{storage.prefix}/{put.name}"
    told = {"sha256": sha256(put.data)}  # of what was put, not of what lies there now
    changed = put.data.replace(b'"size":', b'"sizf":')
    client.put_object(storage.bucket, key, io.BytesIO(changed), len(changed), metadata=told)
    assert finished_units(storage, range(2)) == {}


@pytest.mark.parametrize("content", [b"{", b"{}", b"[]"])
def test_unreadable_sidecar_is_not_finished(storage, shard, content):
    put = put_shard(storage, shard(0, b"zero"))
    storage.put_bytes(put.name, content)
    assert finished_units(storage, range(2)) == {}


def test_prune_deletes_what_no_unit_names(storage, shard):
    keep = put_shard(storage, shard(0, b"zero"))
    put_shard(storage, shard(1, b"one"))
    assert delete_other_shards(storage, {0: keep}) == 2
    assert finished_units(storage, range(2)) == {0: keep}
    assert len(storage.list("shards")) == 2


def test_prune_leaves_no_sidecar_of_a_tar_that_has_gone(storage, shard, monkeypatch):
    for number, data in enumerate((b"zero", b"one")):
        put_shard(storage, shard(number, data))
    delete = LocalStorage.delete

    def watched(store, name):
        delete(store, name)
        left = {stat.name for stat in store.list("shards")}
        for sidecar in (found for found in left if found.endswith(".json")):
            assert sidecar.replace(".json", ".tar") in left

    monkeypatch.setattr(LocalStorage, "delete", watched)
    assert delete_other_shards(storage, {}) == 4
