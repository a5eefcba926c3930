import errno
import hashlib
import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from san_core.images import imageset, shard
from san_core.images.imageset import ImageSet, manifest_bytes, write_imageset
from san_core.images.shard import Item


def test_every_image_comes_back_as_it_was_packed(tmp_path, items):
    packed = items(7)
    write_imageset(tmp_path, packed, total=7, shard_size=3, provenance={})
    with ImageSet.open(tmp_path) as images:
        assert [images.read(record) for record in images.records] == [i.data for i in packed]
        assert [
            (r.name, r.pid, r.camid, r.split, dict(r.fields), r.shard) for r in images.records
        ] == [
            (i.name, i.pid, i.camid, i.split, dict(i.fields), n // 3) for n, i in enumerate(packed)
        ]


def test_shards_open_with_any_tar(small_set):
    tars = sorted((small_set.path / "shards").glob("*.tar"))
    names = []
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
                names.append(member.name)
    assert names == [f"{i:04d}.jpg" for i in range(7)]


def test_a_shard_is_named_after_its_content(small_set):
    for path in (small_set.path / "shards").glob("*.tar"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.name.split(".")[1] == digest[:12]
        assert json.loads(path.with_suffix(".json").read_bytes())["sha256"] == digest


def test_equal_images_give_equal_bytes(tmp_path, items):
    for copy in ("a", "b"):
        write_imageset(tmp_path / copy, items(5), total=5, shard_size=2, provenance={"seed": 1})
    files = [
        {p.relative_to(tmp_path / c): p.read_bytes() for p in (tmp_path / c).rglob("*.*")}
        for c in ("a", "b")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 3 * 3 + 1  # tar, sidecar and contact sheet of three shards; manifest


def test_manifest_counts_images_identities_and_cameras(tmp_path, items):
    more = [Item("q.jpg", items(1)[0].data, 9, None, "query")]
    write_imageset(tmp_path, [*items(4), *more], total=5, provenance={})
    assert ImageSet.open(tmp_path).manifest["splits"] == {
        "query": {"images": 1, "identities": 1, "cameras": 0},
        "train": {"images": 4, "identities": 2, "cameras": 2},
    }


def test_flipped_bit_is_refused_naming_shard_and_image(small_set):
    record = small_set.records[4]
    tar = small_set.path / small_set.manifest["shards"][record.shard]["tar"]
    data = bytearray(tar.read_bytes())
    data[record.offset + record.size // 2] ^= 1
    tar.write_bytes(data)
    with ImageSet.open(small_set.path) as images:
        with pytest.raises(ValueError, match=rf"{tar.name} is damaged.*image 0004.jpg"):
            images.verify()
        with pytest.raises(ValueError, match=rf"{tar.name} is damaged.*image 0004.jpg"):
            images.read(record)
        images.read(small_set.records[3])  # its neighbour is still good


def test_flipped_bit_between_images_is_found_by_verify(small_set):
    tar = small_set.path / small_set.manifest["shards"][0]["tar"]
    data = bytearray(tar.read_bytes())
    data[10] ^= 1  # in the name of the first entry's header
    tar.write_bytes(data)
    with (
        ImageSet.open(small_set.path) as images,
        pytest.raises(ValueError, match=rf"{tar.name} is damaged"),
    ):
        images.verify()


def test_truncated_tar_is_refused_by_name(small_set):
    tar = small_set.path / small_set.manifest["shards"][1]["tar"]
    tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(ValueError, match=rf"{tar.name} is damaged: it has \d+ bytes where \d+"):
        ImageSet.open(small_set.path)


@pytest.mark.parametrize("kind", ["tar", "sidecar"])
def test_missing_shard_file_is_refused_by_name(small_set, kind):
    name = small_set.manifest["shards"][2][kind]
    (small_set.path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"shard file {name} is missing"):
        ImageSet.open(small_set.path)


def test_changed_sidecar_is_refused_by_name(small_set):
    name = small_set.manifest["shards"][0]["sidecar"]
    sidecar = small_set.path / name
    sidecar.write_bytes(sidecar.read_bytes().replace(b'"pid":0', b'"pid":1'))
    with pytest.raises(ValueError, match=f"shard {name} is damaged"):
        ImageSet.open(small_set.path)


def forge_first_image(small_set, **facts):
    """Give the first image of a set other facts, with sidecar and manifest in agreement."""
    manifest = json.loads((small_set.path / "manifest.json").read_bytes())
    shard = manifest["shards"][0]
    path = small_set.path / shard["sidecar"]
    sidecar = json.loads(path.read_bytes())
    sidecar["images"][0] |= facts
    path.write_text(json.dumps(sidecar))
    shard["sidecar_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    shard["sidecar_size"] = path.stat().st_size
    (small_set.path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"size": 2**50}, r"images\[0\].size is 1125899906842624; it must be .* to 268435456"),
        ({"offset": 10**9}, "would end after its tar"),
    ],
)
def test_image_that_its_tar_cannot_hold_is_refused(small_set, facts, message):
    forge_first_image(small_set, **facts)
    with pytest.raises(ValueError, match=message):
        ImageSet.open(small_set.path)


def test_sidecar_larger_than_memory_is_not_read(small_set):
    name = small_set.manifest["shards"][0]["sidecar"]
    os.truncate(small_set.path / name, 1 << 42)
    with pytest.raises(ValueError, match=f"shard {name} is damaged"):
        ImageSet.open(small_set.path)


def test_image_that_is_too_large_for_a_set_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shard, "MOST_FILE_BYTES", 9)
    item = Item("a.jpg", b"0123456789", 1, 0, "train")
    with pytest.raises(ValueError, match=r"image a\.jpg has 10 bytes; at most 9 fit"):
        write_imageset(tmp_path / "set", [item], provenance={})


def test_set_without_manifest_is_unfinished(small_set):
    (small_set.path / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no manifest.json: it is not a finished"):
        ImageSet.open(small_set.path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 200_000, "is nested too deep to be read"),
        ("5", "is not the manifest of an image set"),
        ('{"format": "something else"}', "is not the manifest of an image set"),
        ('{"format": "san-imageset", "version": 99}', "has format version 99; .* reads 1"),
    ],
)
def test_foreign_manifest_is_refused(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        ImageSet.open(tmp_path)


def test_asking_for_an_absent_split_names_those_there_are(small_set):
    with pytest.raises(ValueError, match="no images in split query or gallery; it has train"):
        small_set.records_in_splits("query", "gallery")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tar", "../escaped.tar", r"shards\[1\].tar is .* be the name of a shard's tar"),
        (
            "sidecar",
            "shards/../../x.json",
            r"shards\[1\].sidecar is .* of a shard's sidecar",
        ),
        ("size", "12", r"manifest.json: shards\[1\].size is '12'; it must be a whole number"),
        ("size", -1, r"shards\[1\].size is -1; it must be a whole number from 0"),
        ("sidecar_sha256", None, r"shards\[1\].sidecar_sha256 is None; it must be text"),
    ],
)
def test_manifest_that_leads_elsewhere_or_lacks_something_is_refused(
    small_set, key, value, message
):
    small_set.manifest["shards"][1][key] = value
    (small_set.path / "manifest.json").write_bytes(manifest_bytes(small_set.manifest))
    with pytest.raises(ValueError, match=message):
        ImageSet.open(small_set.path)


@pytest.mark.parametrize("n", [6, 8])
def test_wrong_number_of_images_is_refused_and_nothing_is_finished(tmp_path, items, n):
    with pytest.raises(ValueError, match="7 images were announced"):
        write_imageset(tmp_path, items(n), total=7, shard_size=3, provenance={})
    assert not (tmp_path / "manifest.json").exists()


def test_two_images_of_one_name_are_refused(tmp_path, items):
    with pytest.raises(ValueError, match=r"1 image names occur twice, such as '0000\.jpg'"):
        write_imageset(tmp_path, [items(1)[0], items(1)[0]], total=2, provenance={})


@pytest.mark.parametrize("size", [0, 1001])
def test_impossible_shard_size_is_refused(tmp_path, items, size):
    with pytest.raises(ValueError, match=f"a shard holds 1 to 1000 images, not {size}"):
        write_imageset(tmp_path, items(2), total=2, shard_size=size, provenance={})


def test_empty_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one image"):
        write_imageset(tmp_path, [], total=0, provenance={})


def _open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_few_shards_are_open_at_once_however_many_there_are(tmp_path, items, monkeypatch):
    monkeypatch.setattr(imageset, "MAX_OPEN_TARS", 4)
    packed = items(40)
    write_imageset(tmp_path, packed, shard_size=1, provenance={}, preview=None)
    before = _open_descriptors()
    with ImageSet.open(tmp_path) as images:
        for _ in range(2):
            assert [images.read(record) for record in images.records] == [i.data for i in packed]
        assert _open_descriptors() <= before + 4
    assert _open_descriptors() == before


def test_threads_read_from_more_shards_than_may_be_open(tmp_path, items, monkeypatch):
    monkeypatch.setattr(imageset, "MAX_OPEN_TARS", 1)
    packed = items(8)
    write_imageset(tmp_path, packed, shard_size=1, provenance={}, preview=None)
    with ImageSet.open(tmp_path) as images:
        order = [images.records[i % 8] for i in range(400)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(images.read, order))
    assert found == [packed[i % 8].data for i in range(400)]


def test_error_of_reading_names_the_shard(small_set, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(OSError) as found:
        small_set.read(small_set.records[4])
    assert found.value.filename == str(small_set.path / small_set.manifest["shards"][1]["tar"])
