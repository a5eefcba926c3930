from dataclasses import replace

import pytest

from san_core.images.shard import Record
from san_core.images.texture_set import (
    TextureSettings,
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
    with pytest.raises(ValueError, match="precision 'int8' is none of float32"):
        replace(SETTINGS, precision="int8")


def _records(n):
    return [Record(f"{i}.jpg", 0, 0, "train", 0, 0, 0, "") for i in range(n)]


def test_workers_share_every_image_once():
    work = split_into_units(_records(25), 4)
    shares = [units_of_worker(f"{i}/3", work) for i in range(3)]
    assert [[u.number for u in s] for s in shares] == [[0, 3, 6], [1, 4], [2, 5]]
    names = sorted(r.name for s in shares for u in s for r in u.records)
    assert names == sorted(r.name for r in _records(25))


@pytest.mark.parametrize("worker", ["2/2", "1", "a/b", "-1/2", "0/0", "1/2/3"])
def test_impossible_worker_is_refused(worker):
    with pytest.raises(ValueError, match=f"worker '{worker}' is not i/n"):
        units_of_worker(worker, [])


def test_texture_is_named_after_its_image():
    assert texture_name("train/0002_c1s1_000451_03.jpg") == "train/0002_c1s1_000451_03.png"


def test_unit_number_is_read_from_a_sidecars_name():
    assert parse_sidecar_name("shards/00007-of-00130.0123456789ab.json") == (7, 130)
    with pytest.raises(ValueError, match="is not the name of a shard's sidecar"):
        parse_sidecar_name("shards/readme.txt")
