from dataclasses import asdict, replace

import pytest

from san_core.images.index import pack_records
from san_core.images.shard import Record, canonical_json, sha256
from san_core.images.texture_set import (
    TextureSettings,
    fused_with,
    parse_sidecar_name,
    split_into_units,
    texture_name,
    units_of_worker,
)

SETTINGS = TextureSettings(source="aa", dataset="bb", split="train", texture_size=64)


@pytest.mark.parametrize(
    "change",
    [
        {"source": "ab"},
        {"dataset": "bc"},
        {"split": "query"},
        {"texture_size": 128},
        {"shard_size": 10},
        {"precision": "bfloat16"},
        {"codec": "jpeg"},
    ],
)
def test_every_setting_leads_to_another_folder(change):
    assert replace(SETTINGS, **change).folder != SETTINGS.folder


def test_equal_settings_lead_to_one_folder():
    assert replace(SETTINGS).folder == SETTINGS.folder


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="1 to 1000 images, not 1001"):
        replace(SETTINGS, shard_size=1001)
    with pytest.raises(ValueError, match="precision 'int8' is not one of float32"):
        replace(SETTINGS, precision="int8")


def _records(n):
    return pack_records(Record(f"{i}.jpg", 0, 0, "train", 0, 0, 0, "0" * 64) for i in range(n))


def test_workers_share_every_image_once():
    work = split_into_units(_records(25), 4)
    shares = [units_of_worker(f"{i}/3", work) for i in range(3)]
    assert [[u.number for u in s] for s in shares] == [[0, 3, 6], [1, 4], [2, 5]]
    names = sorted(r.name for s in shares for u in s for r in u.records)
    assert names == sorted(r.name for r in _records(25))


def test_images_that_would_have_one_texture_are_refused_before_any_is_made():
    names = ("a/0.jpg", "b/0.png", "a/0.png")
    records = pack_records(Record(n, 0, 0, "train", 0, 0, 0, "0" * 64) for n in names)
    with pytest.raises(ValueError, match=r"images a/0\.jpg and a/0\.png differ only in"):
        split_into_units(records, 10)
    assert len(split_into_units(records[:2], 10)) == 1


@pytest.mark.parametrize("worker", ["2/2", "1", "a/b", "-1/2", "0/0", "1/2/3"])
def test_impossible_worker_is_refused(worker):
    with pytest.raises(ValueError, match=f"worker '{worker}' is not i/n"):
        units_of_worker(worker, [])


def test_texture_is_named_after_its_image():
    assert texture_name("train/0002_c1s1_000451_03.jpg") == "train/0002_c1s1_000451_03.png"


def test_unit_number_is_read_from_a_sidecars_name():
    assert parse_sidecar_name("shards/00007-of-00130.0123456789ab.json") == (7, 130)
    many = "shards/100000-of-1234567.0123456789ab.json"
    assert parse_sidecar_name(many) == (100_000, 1_234_567)
    with pytest.raises(ValueError, match="is not the name of a shard's sidecar"):
        parse_sidecar_name("shards/readme.txt")


def _people(*pids):
    return pack_records(
        Record(f"{i}.jpg", pid, 0, "train", 0, 0, 0, "0" * 64) for i, pid in enumerate(pids)
    )


def _fused_units(records, size):
    return [
        (
            [record.name.removesuffix(".jpg") for record in unit.records],
            None if unit.whole is None else len(unit.whole),
        )
        for unit in split_into_units(records, size, fuse="person")
    ]


def test_shards_of_fused_textures_hold_whole_people():
    assert _fused_units(_people(1, 2, 1, 3, 2, 3, 4), 4) == [
        (["0", "2", "1", "4"], None),
        (["3", "5", "6"], None),
    ]


def test_who_has_more_images_than_a_shard_holds_has_shards_of_their_own():
    assert _fused_units(_people(1, 2, 2, 2, 2, 2, 3), 2) == [
        (["0"], None),
        (["1", "2"], 5),
        (["3", "4"], 5),
        (["5"], 5),
        (["6"], None),
    ]


def test_images_of_unknown_people_stay_separate():
    records = _people(None, 1, None, 0, 0, 1)
    assert _fused_units(records, 3) == [(["0", "1", "5"], None), (["2", "3", "4"], None)]
    assert len({fused_with(record) for record in records}) == 5  # the two of person 1 together


def test_fused_textures_have_their_own_digest_and_others_keep_theirs():
    # of the settings that had no field `fuse`
    assert SETTINGS.fingerprint == (
        sha256(canonical_json({k: v for k, v in asdict(SETTINGS).items() if k != "fuse"}))
    )
    assert replace(SETTINGS, fuse="person").folder != SETTINGS.folder
    with pytest.raises(ValueError, match="fuse 'pid' is not one of none, person"):
        replace(SETTINGS, fuse="pid")
