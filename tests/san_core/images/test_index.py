import tracemalloc

import pytest

from san_core.images.index import pack_records
from san_core.images.shard import Record


def _record(number, split="train", **fields):
    pid, camid = (None, None) if number % 3 == 2 else (number - 1, number)
    digest = f"{number:064x}"
    return Record(f"bild/ü{number}.jpg", pid, camid, split, number // 2, 512, 99, digest, fields)


RECORDS = [
    _record(0, frame=1, person="zoë"),
    _record(1, "query"),
    _record(2, "gallery", texture="a.png"),
    _record(3),
    _record(4, "query", frame=0),
]


def test_records_come_out_as_they_went_in():
    packed = pack_records(iter(RECORDS))
    assert list(packed) == RECORDS
    assert [packed[i] for i in range(-5, 5)] == [*RECORDS, *RECORDS]
    assert packed == RECORDS
    assert packed == pack_records(RECORDS)
    assert packed != RECORDS[:4]
    with pytest.raises(IndexError):
        packed[5]


def test_parts_are_sequences_of_records_too():
    packed = pack_records(RECORDS)
    assert packed[1:4] == RECORDS[1:4]
    asked = packed.in_splits(("query", "val"))
    assert asked == [RECORDS[1], RECORDS[4]]
    assert asked[1:] == [RECORDS[4]]
    assert asked.shards() == {0, 2}
    assert len(packed.in_splits(("val",))) == 0


def test_an_image_takes_little_memory():
    tracemalloc.start()
    packed = pack_records(_record(i) for i in range(20_000))
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size / len(packed) < 150
