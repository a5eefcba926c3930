import os
import stat

import pytest

from components.storage.folder import LocalStorage
from components.storage.places import (
    check_no_user_information,
    local_path,
    open_storage,
    path_or_uri,
    real_path,
)


def test_what_was_put_can_be_got_listed_and_deleted(tmp_path):
    storage = open_storage(str(tmp_path), "some", "folder")
    storage.put_bytes("shards/b.tar", b"two")
    storage.put_bytes("shards/a.tar", b"1")
    assert storage.get("shards/b.tar") == b"two"
    found = storage.list("shards")
    assert [stat[:2] for stat in found] == [("shards/a.tar", 1), ("shards/b.tar", 3)]
    assert storage.stat("shards/a.tar") == found[0]
    storage.delete("shards/a.tar")
    storage.delete("shards/a.tar")
    assert storage.stat("shards/a.tar") is None
    assert storage.list("nothing") == []


def test_put_replaces(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.put_bytes("a", b"old")
    storage.put_bytes("a", b"new")
    assert storage.get("a") == b"new"


def test_others_may_read_what_was_put(tmp_path):
    LocalStorage(tmp_path).put_bytes("a", b"1")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_failed_put_leaves_the_old_object_and_no_litter(tmp_path, monkeypatch):
    storage = LocalStorage(tmp_path)
    storage.put_bytes("a", b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"no space left \(has [\d,.]+ MB\)"):
        storage.put_bytes("a", b"new")
    assert storage.get("a") == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_unfinished_put_is_not_listed(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / ".a.tar.xyz").write_bytes(b"half")
    assert LocalStorage(tmp_path).list("shards") == []


def test_file_uri_and_plain_path_name_the_same_folder(tmp_path):
    folder = tmp_path / "with a space"
    assert local_path(folder.as_uri()) == local_path(str(folder)) == folder
    assert open_storage(str(folder)).uri == folder.as_uri()


@pytest.mark.parametrize("uri", ["ftp://host/x", "file://host/x", "file:"])
def test_other_uris_are_refused(uri):
    with pytest.raises(ValueError, match=r"is neither a folder nor a file:///"):
        open_storage(uri)


def test_empty_location_is_refused():
    with pytest.raises(ValueError, match="a place is needed"):
        open_storage("")


def test_folder_that_cannot_be_read_is_not_empty(tmp_path):
    (tmp_path / "shards").write_text("a file")
    assert LocalStorage(tmp_path).list("shards") == []  # as a bucket has no folders

    def denied(_path):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", denied)
        with pytest.raises(PermissionError, match="Permission denied"):
            LocalStorage(tmp_path).list()


@pytest.mark.parametrize(
    "place",
    [
        *("s3://key:hunter2@san/x", "s3://hunter2@san", "minio://key:hun/ter2@san/x"),
        *("s3://host:9000/hunter2", "https://me:hunter2@host/x", "https://me:hun/ter2@host"),
        *("gs://hunter2@bucket", "key:hunter2@s3://san/x"),
        *('["s3://san/x", "s3://key:hunter2@san/x"]', "s3://a/b,s3://key:hun/ter2@san/x"),
    ],
)
@pytest.mark.parametrize("read", [check_no_user_information, open_storage, path_or_uri])
def test_credentials_in_a_uri_are_refused_and_not_shown(read, place):
    with pytest.raises(ValueError, match="a URI must not contain a user, key or") as raised:
        read(place)
    assert "ter2" not in str(raised.value)


@pytest.mark.parametrize(
    "place",
    [
        "https://host/san/x.zip?X-Amz-Algorithm=A&X-Amz-Signature=hunter2",
        "s3://san/x.zip?x-amz-security-token=hunter2",
        "https://storage.googleapis.com/b/k?X-Goog-Signature=hunter2",
        "https://account.blob.core.windows.net/b/k?sv=1&sig=hunter2",
        "https://b.s3.amazonaws.com/k?AWSAccessKeyId=A&Signature=hunter2",
    ],
)
@pytest.mark.parametrize("read", [check_no_user_information, open_storage, path_or_uri])
def test_presigned_urls_are_refused_and_not_shown(read, place):
    with pytest.raises(
        ValueError, match=r"presigned URLs are not supported; give s3://BUCKET/KEY"
    ) as e:
        read(place)
    assert "hunter2" not in str(e.value)


@pytest.mark.parametrize(
    "place",
    [
        *("", "/data/me@host:x", "me@host", "file:///home/me@host/x", "s3://san/a@b:c"),
        *("http://host:8080/a@b", "http://[::1]:8080/x", "c:/x"),
        *('["s3://san/a@b","s3://san/c"]', "by=me@host pretrained=s3://san/w", "/of me@h/s3"),
    ],
)
def test_at_signs_and_colons_in_a_path_are_no_credentials(place):
    check_no_user_information(place)


def test_links_that_lead_in_a_circle_lead_nowhere_and_are_no_defect(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert real_path(tmp_path / "a/c").is_relative_to(tmp_path)
    (tmp_path / "c").symlink_to(".")
    assert real_path(tmp_path / "c/d") == tmp_path / "d"
