"""Artifacts in buckets: inputs and outputs of steps as URIs."""

import io
import json
import tracemalloc

import pytest

from components.storage import object_store, transfer
from components.storage.folder import LocalStorage
from components.storage.places import open_storage
from components.storage.staging import image_set_digest, open_image_set
from san_core.checked_json import MOST_BYTES
from san_core.images.shard import sha256
from tests.tiny import file_contents

pytestmark = pytest.mark.s3


@pytest.fixture
def model(tmp_path):
    """A folder as train_san writes one."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "recipe.json").write_text("{}")
    return folder


def test_folder_comes_back_as_it_was_sent(s3, model, tmp_path):
    transfer.send_artifact(model, s3)
    assert file_contents(transfer.fetch_artifact(s3, tmp_path / "back")) == file_contents(model)


def test_file_is_sent_under_its_uri(s3, tmp_path):
    (tmp_path / "page").write_text("<html>")
    transfer.send_artifact(tmp_path / "page", f"{s3}/pages/report.html")
    assert open_storage(s3).get("pages/report.html") == b"<html>"


def test_a_manifest_without_end_does_not_fill_the_memory(tmp_path):
    file = tmp_path / "manifest.json"
    with file.open("wb") as sparse:
        sparse.truncate(4 * MOST_BYTES)
    tracemalloc.start()
    try:
        transfer._add_uri_to_manifest(file, "s3://bucket/reid")
        assert tracemalloc.get_traced_memory()[1] < 1.1 * MOST_BYTES
    finally:
        tracemalloc.stop()
    assert file.stat().st_size == 4 * MOST_BYTES  # it is left to the reader, who refuses it


def test_image_set_is_fetched_without_its_shards_and_knows_where_they_are(s3, small_set, tmp_path):
    transfer.send_artifact(small_set.path, f"{s3}/reid")
    fetched = transfer.fetch_artifact(f"{s3}/reid/", tmp_path / "fetched")
    assert [p.name for p in fetched.iterdir()] == ["manifest.json"]
    assert json.loads((fetched / "manifest.json").read_bytes())["uri"] == f"{s3}/reid"
    assert image_set_digest(fetched) == image_set_digest(small_set.path)
    with open_image_set(fetched) as images:
        assert [images.read(r) for r in images.records] == [
            small_set.read(r) for r in small_set.records
        ]


def test_sets_in_an_artifact_each_know_their_place(s3, small_set, tmp_path):
    (tmp_path / "pit").mkdir()
    for name in ("images", "textures"):
        (tmp_path / "pit" / name).symlink_to(small_set.path)
        transfer.send_artifact(small_set.path, f"{s3}/pit/{name}")
    fetched = transfer.fetch_artifact(f"{s3}/pit", tmp_path / "fetched")
    for name in ("images", "textures"):
        with open_image_set(fetched / name) as images:
            assert images.records == small_set.records


def test_manifest_that_points_elsewhere_keeps_pointing_there(s3, tmp_path):
    folder = tmp_path / "textures"
    folder.mkdir()
    content = {"format": "san-imageset", "uri": "s3://elsewhere/x"}
    (folder / "manifest.json").write_text(json.dumps(content))
    transfer.send_artifact(folder, s3)
    fetched = transfer.fetch_artifact(s3, tmp_path / "fetched")
    assert json.loads((fetched / "manifest.json").read_bytes()) == content


def test_new_artifact_leaves_nothing_of_the_old_and_everything_else(s3, model, small_set):
    transfer.send_artifact(small_set.path, s3)
    storage = open_storage(s3)
    storage.put_bytes("notes/thesis.tex", b"years of work")
    storage.put_bytes("other/manifest.json", b"of an app")
    transfer.send_artifact(model, s3)
    assert [stat.name for stat in storage.list()] == [
        "notes/thesis.tex",
        "other/manifest.json",
        "recipe.json",
        "weights.safetensors",
    ]


def test_artifact_that_was_half_sent_is_not_there(s3, model, monkeypatch):
    transfer.send_artifact(model, s3)
    (model / "weights.safetensors").write_bytes(b"new weights")
    storage = open_storage(s3)

    def broken(name, _path):
        raise ConnectionError(f"lost while sending {name}")

    monkeypatch.setattr(storage, "put_file", broken)
    monkeypatch.setattr(transfer, "open_storage", lambda _uri, **_: storage)
    with pytest.raises(ConnectionError, match=r"lost while sending weights\.safetensors"):
        transfer.send_artifact(model, s3)
    assert storage.stat("recipe.json") is None  # without it there is no model for any reader


def test_artifact_whose_sending_was_killed_may_be_sent_again(s3, model, monkeypatch, tmp_path):
    storage = open_storage(s3)
    put_file = storage.put_file

    def die(name, path):
        if name == "recipe.json":
            raise KeyboardInterrupt  # as little is tidied up then as after SIGKILL
        put_file(name, path)

    monkeypatch.setattr(storage, "put_file", die)
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "open_storage", lambda _uri, **_: storage)
        with pytest.raises(KeyboardInterrupt):
            transfer.send_artifact(model, s3)
    assert {stat.name for stat in storage.list()} == {"unfinished.json", "weights.safetensors"}
    with pytest.raises(FileNotFoundError, match="is unfinished: a step is sending it, or was stop"):
        transfer.fetch_artifact(s3, tmp_path / "half")
    transfer.check_uri_replaceable(s3, is_file=False)
    transfer.send_artifact(model, s3)
    assert file_contents(transfer.fetch_artifact(s3, tmp_path / "back")) == file_contents(model)
    assert storage.stat("unfinished.json") is None


@pytest.mark.parametrize("deletions", range(5))
def test_artifact_whose_deletion_broke_off_is_neither_read_nor_in_the_way(
    tmp_path, monkeypatch, deletions
):
    uri, left = str(tmp_path / "model"), [deletions]
    for name in ("SHA256SUMS", "history.jsonl", "recipe.json", "weights.safetensors"):
        open_storage(uri).put_bytes(name, b"{}")
    delete = LocalStorage.delete

    def break_off(storage, name):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        delete(storage, name)

    monkeypatch.setattr(LocalStorage, "delete", break_off)
    with pytest.raises(KeyboardInterrupt):
        transfer.delete_artifact(uri)
    monkeypatch.setattr(LocalStorage, "delete", delete)
    transfer.check_uri_replaceable(uri, is_file=False)
    with pytest.raises(FileNotFoundError, match="unfinished"):
        transfer.fetch_artifact(uri, tmp_path / "copy")
    transfer.delete_artifact(uri)
    assert open_storage(uri).is_empty()


def test_one_object_is_fetched_by_its_uri(s3, tmp_path):
    open_storage(s3).put_bytes("one.json", b"{}")
    transfer.fetch_file(f"{s3}/one.json", tmp_path / "one.json")
    assert (tmp_path / "one.json").read_bytes() == b"{}"
    with pytest.raises(FileNotFoundError, match=r"/two\.json does not exist"):
        transfer.fetch_file(f"{s3}/two.json", tmp_path / "two.json")


def test_names_in_a_manifest_stay_in_their_own_letters(s3, small_set, tmp_path):
    manifest = json.loads((small_set.path / "manifest.json").read_text())
    text = json.dumps({**manifest, "provenance": {"source": "Zürich"}}, ensure_ascii=False)
    (small_set.path / "manifest.json").write_text(text)
    transfer.send_artifact(small_set.path, f"{s3}/reid")
    transfer.fetch_artifact(f"{s3}/reid", tmp_path / "back")
    told = (tmp_path / "back" / "manifest.json").read_text()
    assert "Zürich" in told
    assert json.loads(told)["uri"] == f"{s3}/reid"


def test_an_empty_place_is_reported(s3, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{s3} holds no objects"):
        transfer.fetch_artifact(s3, tmp_path / "x")


def test_what_no_step_has_written_is_not_replaced(s3):
    open_storage(s3).put_bytes("thesis/chapter1.tex", b"years of work")
    with pytest.raises(ValueError, match="holds objects that no step has written"):
        transfer.check_uri_replaceable(f"{s3}/thesis", is_file=False)
    with pytest.raises(ValueError, match="is a folder, but the output is a file"):
        transfer.check_uri_replaceable(f"{s3}/thesis", is_file=True)
    open_storage(s3).put_bytes("thesis/app/manifest.json", b'{"format": "san-imageset"}')
    with pytest.raises(ValueError, match="holds objects that no step has written"):
        transfer.check_uri_replaceable(
            f"{s3}/thesis", is_file=False
        )  # what lies deeper says nothing
    transfer.check_uri_replaceable(f"{s3}/thesis/app", is_file=False)
    transfer.check_uri_replaceable(f"{s3}/other", is_file=False)


def test_source_in_a_bucket_is_a_folder_for_a_while(s3, monkeypatch):
    storage = open_storage(s3)
    storage.put_bytes("query/1.jpg", b"0123456789")
    monkeypatch.setattr(transfer, "MAX_IN_MEMORY", 5)
    monkeypatch.setattr(object_store, "FETCH_CHUNK", 4)
    with transfer.local_source(s3) as folder:
        assert file_contents(folder) == {"query/1.jpg": b"0123456789"}
    assert not folder.exists()


def test_long_object_that_is_damaged_in_the_bucket_is_not_believed(s3, s3_server, monkeypatch):
    storage = open_storage(s3)
    storage.put_bytes("set.tar", b"0123456789")
    told = {"sha256": sha256(b"0123456789")}
    s3_server.client().put_object(
        storage.bucket, f"{storage.prefix}/set.tar", io.BytesIO(b"0123456780"), 10, metadata=told
    )
    monkeypatch.setattr(transfer, "MAX_IN_MEMORY", 5)
    monkeypatch.setattr(object_store, "FETCH_CHUNK", 4)
    with (
        pytest.raises(OSError, match=r"set\.tar arrives damaged every time: its sha256 is not"),
        transfer.local_source(f"{s3}/set.tar"),
    ):
        raise AssertionError


def test_memory_does_not_follow_the_size_of_what_is_fetched(s3, monkeypatch):
    storage = open_storage(s3)
    for name in "abcd":
        storage.put_bytes(name, bytes(10 << 20))
    for place, what in ((transfer, "MAX_IN_MEMORY"), (object_store, "FETCH_CHUNK")):
        monkeypatch.setattr(place, what, 1 << 20)
    tracemalloc.start()
    with transfer.local_source(s3) as folder:
        assert sum(path.stat().st_size for path in folder.iterdir()) == 40 << 20
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 12 << 20


def test_source_on_this_machine_is_used_where_it_is(tmp_path):
    for source in (str(tmp_path), tmp_path.as_uri()):
        with transfer.local_source(source) as folder:
            assert folder == tmp_path
    assert tmp_path.exists()
