import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.storage import staging
from components.storage.places import open_storage
from components.storage.staging import (
    cache_folder,
    image_set_digest,
    open_image_records,
    open_image_set,
    shards_of_splits,
)
from san_core.images.imageset import manifest_bytes, write_imageset


def _travelling(small_set, folder):
    """The manifest alone, as it travels between steps."""
    folder.mkdir()
    content = {**small_set.manifest, "uri": small_set.path.as_uri()}
    (folder / "manifest.json").write_bytes(manifest_bytes(content))
    return folder


def test_set_beside_its_manifest_is_opened(small_set):
    with open_image_set(small_set.path) as images:
        assert images.records == small_set.records


def test_manifest_that_travels_alone_leads_to_its_shards(small_set, tmp_path):
    artifact = _travelling(small_set, tmp_path / "artifact")
    with open_image_set(artifact) as images:
        assert images.records == small_set.records
        assert images.path == small_set.path


def test_identity_is_that_of_the_content_wherever_it_lies(small_set, tmp_path):
    artifact = _travelling(small_set, tmp_path / "artifact")
    assert image_set_digest(artifact) == image_set_digest(small_set.path)
    changed = {**small_set.manifest, "fingerprint": "other"}
    (artifact / "manifest.json").write_bytes(manifest_bytes(changed))
    assert image_set_digest(artifact) != image_set_digest(small_set.path)


def test_another_set_at_the_place_is_refused(small_set, tmp_path):
    artifact = _travelling(small_set, tmp_path / "artifact")
    content = json.loads((artifact / "manifest.json").read_bytes())
    content["fingerprint"] = "f" * 64
    (artifact / "manifest.json").write_bytes(manifest_bytes(content))
    with pytest.raises(ValueError, match=r"holds another image set than .* was expected"):
        open_image_set(artifact)


def test_damaged_shard_is_refused_before_anything_is_read(small_set, tmp_path):
    artifact = _travelling(small_set, tmp_path / "artifact")
    tar = small_set.path / small_set.manifest["shards"][0]["tar"]
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{tar.name} is damaged"):
        open_image_set(artifact)


def test_unfinished_set_has_no_identity(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a finished image set"):
        image_set_digest(tmp_path)


# Sets in a bucket


@pytest.fixture
def sent(small_set, s3):
    """The small set's files in a bucket; gives the storage."""
    storage = open_storage(s3)
    for path in sorted(small_set.path.rglob("*")):
        if path.is_file():
            storage.put_file(path.relative_to(small_set.path).as_posix(), path)
    return storage


@pytest.fixture
def artifact(small_set, sent, tmp_path):
    """The manifest that speaks of the set in the bucket."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    content = {**small_set.manifest, "uri": sent.uri}
    (folder / "manifest.json").write_bytes(manifest_bytes(content))
    return folder


def _pixels(images):
    return [images.read(record) for record in images.records]


@pytest.mark.s3
def test_set_in_a_bucket_is_copied_once_and_then_found(small_set, artifact, sent):
    with open_image_set(artifact) as images:
        assert _pixels(images) == _pixels(small_set)
        assert images.path.is_relative_to(cache_folder())
    for stat in sent.list():
        sent.delete(stat.name)
    with open_image_set(artifact) as images:  # the bucket is not asked again
        assert _pixels(images) == _pixels(small_set)
        assert not list(images.path.rglob("*.part"))


@pytest.mark.s3
def test_shards_that_are_not_read_are_not_fetched(small_set, artifact, tampering_proxy):
    fetched = []

    def listen(answer):
        if answer.method == "GET" and ".tar" in answer.path:
            fetched.append(answer.path.partition("shards/")[2].partition("-of-")[0])
        return answer.body

    tampering_proxy.tamper = listen
    with open_image_set(artifact, shards={1}) as images:
        assert images.records == small_set.records
        assert images.read(images.records[4]) == small_set.read(small_set.records[4])
    assert fetched == ["00001"]
    with open_image_set(artifact) as images:  # what is lacking is fetched when it is needed
        assert _pixels(images) == _pixels(small_set)
    assert sorted(fetched) == ["00000", "00001", "00002"]


def test_shards_that_are_not_read_are_not_looked_at(small_set):
    (small_set.path / small_set.manifest["shards"][0]["tar"]).unlink()
    _flip(small_set.path / small_set.manifest["shards"][1]["tar"])
    with open_image_set(small_set.path, shards={2}) as images:
        assert images.read(images.records[6])
    with pytest.raises(ValueError, match=r"00001-of-00003.* is damaged"):
        open_image_set(small_set.path, shards={1, 2})


def test_shards_of_splits_are_those_that_hold_their_images(tmp_path, items):
    splits = ["train"] * 4 + ["query"] * 2 + ["gallery"] * 3
    packed = [item._replace(split=split) for item, split in zip(items(9), splits, strict=True)]
    write_imageset(tmp_path, packed, shard_size=2, provenance={})
    assert shards_of_splits(tmp_path, ["train", "val"]) == {0, 1}
    assert shards_of_splits(tmp_path, ["query", "gallery"]) == {2, 3, 4}
    with pytest.raises(ValueError, match="has no images in split val"):
        shards_of_splits(tmp_path, ["val"])


@pytest.mark.s3
def test_finished_copy_is_used_where_nothing_can_be_written(small_set, artifact, monkeypatch):
    open_image_set(artifact).close()

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(staging, "write_file", refuse)
    monkeypatch.setattr(staging, "lock_folder", refuse)
    with open_image_set(artifact) as images:
        assert _pixels(images) == _pixels(small_set)


@pytest.mark.s3
def test_index_of_a_set_in_a_bucket_needs_no_tar(small_set, artifact, sent):
    for stat in sent.list():
        if stat.name.endswith(".tar"):
            sent.delete(stat.name)
    with open_image_records(artifact) as index:
        assert index.records == small_set.records
        assert index.records_in_splits("train") == list(small_set.records)


@pytest.mark.s3
def test_copy_that_has_rotted_is_fetched_again(small_set, artifact, caplog):
    with open_image_set(artifact) as images:
        tar = images.path / images.manifest["shards"][1]["tar"]
    _flip(tar)
    with open_image_set(artifact) as images:
        assert _pixels(images) == _pixels(small_set)
    assert f"{tar} is damaged; it is downloaded again" in caplog.text


def _flip(path, at=600):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.s3
def test_fetching_goes_on_where_it_was_killed(small_set, artifact, tampering_proxy, monkeypatch):
    monkeypatch.setattr(staging, "STAGING_CHUNK", 1000)
    shard = small_set.manifest["shards"][0]
    folder = cache_folder() / "imagesets" / image_set_digest(artifact)[:32]
    part = folder / f"{shard['tar']}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes((small_set.path / shard["tar"]).read_bytes()[:5000])
    asked = []

    def listen(answer):
        if answer.method == "GET" and shard["tar"] in answer.path:
            asked.append(len(answer.body))
        return answer.body

    tampering_proxy.tamper = listen
    with open_image_set(artifact) as images:
        assert _pixels(images) == _pixels(small_set)
    assert sum(asked) == shard["size"] - 5000


@pytest.mark.s3
def test_one_flipped_byte_on_the_way_is_read_again(small_set, artifact, tampering_proxy, caplog):
    told = []

    def lie(answer):
        if told or answer.method != "GET" or ".tar" not in answer.path:
            return answer.body
        told.append(True)
        return answer.body[:700] + bytes([answer.body[700] ^ 1]) + answer.body[701:]

    tampering_proxy.tamper = lie
    with open_image_set(artifact) as images:
        assert _pixels(images) == _pixels(small_set)
    assert tampering_proxy.tampered == 1
    assert "arrived damaged at image 000" in caplog.text


@pytest.mark.s3
def test_shard_that_is_damaged_in_the_bucket_is_refused_by_its_name(artifact, sent, small_set):
    shard = small_set.manifest["shards"][1]
    data = bytearray(sent.get(shard["tar"]))
    data[small_set.records[4].offset] ^= 1
    sent.put_bytes(shard["tar"], bytes(data))
    name = re.escape(shard["tar"])
    with pytest.raises(OSError, match=f"shard {name} is damaged at image 0004.jpg: its sha256"):
        open_image_set(artifact)
    folder = cache_folder() / "imagesets" / image_set_digest(artifact)[:32]
    assert not (folder / shard["tar"]).exists()
    assert not (folder / "manifest.json").exists()


@pytest.mark.s3
def test_missing_shard_is_named(artifact, sent, small_set):
    sent.delete(small_set.manifest["shards"][2]["tar"])
    with pytest.raises(FileNotFoundError, match=r"00002-of-00003.*tar: there is no such object"):
        open_image_set(artifact)


@pytest.mark.s3
def test_missing_disk_space_is_reported_before_downloads(artifact, monkeypatch):
    room = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    with pytest.raises(OSError, match=r"MB, but only 0\.0 MB are free; set SAN_CACHE to a folder"):
        open_image_set(artifact)
    assert not list(cache_folder().rglob("*.part"))


@pytest.mark.s3
def test_processes_share_one_copy(start_process, small_set, artifact, tampering_proxy):
    fetched = []

    def listen(answer):
        if answer.method == "GET" and ".tar" in answer.path:
            fetched.append(answer.path)
        return answer.body

    tampering_proxy.tamper = listen
    code = (
        "import sys; from pathlib import Path\n"
        "from components.storage.staging import open_image_set\n"
        "s = open_image_set(Path(sys.argv[1])); print(sum(len(s.read(r)) for r in s.records))"
    )
    started = [
        start_process(
            [sys.executable, "-c", code, str(artifact)],
            cwd=Path(__file__).parents[3],
            stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    said = [process.communicate(timeout=60)[0].strip() for process in started]
    assert said == [str(sum(len(data) for data in _pixels(small_set)))] * 4
    assert len(fetched) == len(small_set.manifest["shards"])  # each tar once, for all four


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"SAN_CACHE": "/big/disk"}, "/big/disk"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/san-pipeline"),
        ({"HOME": "/home/me"}, "/home/me/.cache/san-pipeline"),
    ],
)
def test_copies_are_kept_where_the_environment_says(monkeypatch, environment, folder):
    for name in ("SAN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)
