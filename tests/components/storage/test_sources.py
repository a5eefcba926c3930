"""Fingerprints that show changes of a user's files."""

import os

import pytest

from components.storage.places import open_storage
from components.storage.sources import (
    change_places,
    check_place,
    file_versions,
    names_place,
    read_places,
    replace_split_file,
)


def names(source):
    return [name for name, _, _ in file_versions(str(source))]


@pytest.fixture
def folder(tmp_path):
    for name in ("own/b.jpg", "own/a/1.jpg", "own/table.csv", "own/all.zip", "other.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path / "own"


def test_a_folder_counts_by_all_its_files(folder):
    assert names(folder) == ["a/1.jpg", "all.zip", "b.jpg", "table.csv"]
    before = file_versions(str(folder))
    os.utime(folder / "a" / "1.jpg", (1, 1))
    assert file_versions(str(folder)) != before


def test_links_to_a_folder_around_them_are_refused_and_not_followed_for_ever(folder):
    for name in ("one", "two"):
        (folder / name).symlink_to(folder)
        (folder / "a" / name).symlink_to(folder)
    with pytest.raises(ValueError, match="by a link; its files would be read twice"):
        file_versions(str(folder))


def test_an_archive_counts_by_itself_and_a_table_by_its_folder(folder):
    assert names(folder / "all.zip") == ["all.zip"]
    assert names(folder / "table.csv") == names(folder)


def test_nothing_counts_where_nothing_is(tmp_path):
    assert file_versions(str(tmp_path / "absent")) == []


def test_a_file_uri_counts_as_its_folder_does(folder):
    spaced = folder.rename(folder.with_name("my own"))
    assert file_versions(spaced.as_uri()) == file_versions(str(spaced)) != []


def test_a_file_that_is_read_alone_counts_alone(folder):
    (found,) = file_versions(str(folder / "b.jpg"), is_single=True)
    assert found[0] == "b.jpg"


def test_places_are_those_of_parameters_and_of_files_in_overrides():
    values = {
        "source": "/a",
        "body": "/b.npz",
        "destination": "/kept",
        "generator": "shipped",
        "overrides": "pretrained=/c.pth epochs=3",
        "san_overrides": "lr=1 pretrained=s3://b/d.pth",
        "pg_overrides": "pretrained=none",
        "seed": 3,
    }
    assert read_places(values) == [
        ("source", "/a", False),
        ("body", "/b.npz", True),
        ("overrides pretrained", "/c.pth", True),
        ("san_overrides pretrained", "s3://b/d.pth", True),
    ]
    assert read_places({"overrides": "pretrained=imagenet", "source": ""}) == []
    changed = change_places(values, lambda place: place if "://" in place else f"/x y{place}")
    assert changed == {
        **values,
        "source": "/x y/a",
        "body": "/x y/b.npz",
        "destination": "/x y/kept",
        "overrides": "pretrained=file:///x%20y/c.pth epochs=3",
        "san_overrides": "lr=1 pretrained=s3://b/d.pth",
    }


def test_every_place_of_several_data_sets_is_a_place():
    values = {
        "dataset": "market1501",
        "source": "/my sets/a",
        "target": "msmt17+cuhk03",
        "target_source": "b/my%20sets s3://b/c",
    }
    assert read_places(values) == [
        ("source", "/my sets/a", False),
        ("target_source", "b/my sets", False),
        ("target_source 2", "s3://b/c", False),
    ]
    changed = change_places(values, lambda place: place if "://" in place else f"/x y/{place}")
    assert changed == {
        **values,
        "source": "/x y//my sets/a",
        "target_source": "/x%20y/b/my%20sets s3://b/c",
    }


def test_the_table_that_a_data_set_is_split_by_is_a_place_of_one_file():
    values = {"dataset": "folders:camera-first, split=old/split.csv,test=0.2", "target": "msmt17"}
    assert read_places(values) == [("dataset split", "old/split.csv", True)]
    assert (
        read_places({"target": "msmt17+csv:split=s3://b/split.csv+cuhk03"})[0].uri
        == "s3://b/split.csv"
    )
    assert read_places({"dataset": "synthetic"}) == read_places({"dataset": "csv:test=0.2"}) == []
    changed = change_places(values, lambda place: f"/x, y+/{place}")
    assert changed == {
        "dataset": "folders:camera-first, split=file:///x%2C%20y%2B/old/split.csv,test=0.2",
        "target": "msmt17",
    }
    assert replace_split_file(values["dataset"], "1a2b").endswith(" split=1a2b,test=0.2")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("san_overrides", "lr=1 pretrained=s3://models/r50+ibn.pth"),
        ("overrides", "pretrained=https://host/r50,v2.pth"),
        ("pg_overrides", "pretrained=file:///a+b.pth"),
        ("dataset", "folders:split=s3://b/my folder/split.csv"),
    ],
)
def test_a_uri_stays_as_it_was_given_whatever_signs_it_holds(name, value):
    place = value.partition("=")[2] if name != "san_overrides" else "s3://models/r50+ibn.pth"
    assert [one.uri for one in read_places({name: value})] == [place]
    assert change_places({name: value}, lambda place: place) == {name: value}


def test_tables_of_several_data_sets_are_separate_and_end_before_a_blank():
    values = {"dataset": "folders:split=a.csv + csv:split=b.csv,test=0.2 + market1501"}
    assert read_places(values) == [
        ("dataset split", "a.csv", True),
        ("dataset split 2", "b.csv", True),
    ]
    assert change_places(values, lambda place: f"/x/{place}") == {
        "dataset": "folders:split=/x/a.csv + csv:split=/x/b.csv,test=0.2 + market1501"
    }


def test_what_file_managers_leave_does_not_count(folder):
    before = file_versions(str(folder))
    for name in (".DS_Store", "Thumbs.db", "a/._1.jpg"):
        (folder / name).write_text("litter")
    assert file_versions(str(folder)) == before


def test_a_place_to_keep_things_need_not_be_there_yet(tmp_path):
    check_place("destination", str(tmp_path / "a" / "b"))
    check_place("checkpoint", (tmp_path / "a").as_uri())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_must_be_open_to_readers_and_a_file_readable(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "access", lambda _path, mode: not asked.append(mode))
    check_place("source", str(folder))
    check_place("source", str(folder / "b.jpg"))
    check_place("destination", str(folder))
    assert asked == [os.R_OK | os.X_OK, os.R_OK, os.W_OK | os.X_OK]


@pytest.mark.skipif(os.getuid() == 0, reason="root may read and write everything")
def test_an_inaccessible_place_is_reported_with_the_user(tmp_path):
    (tmp_path / "locked").mkdir(mode=0)
    for name, how in (("source", "may not read it"), ("destination", "may not write to")):
        with pytest.raises(PermissionError, match=f"{name} .*locked: user {os.getuid()} {how}"):
            check_place(name, str(tmp_path / "locked"))


@pytest.mark.s3
def test_a_place_in_a_bucket_is_asked_for_by_one_request(s3, monkeypatch):
    bucket = s3.split("/")[2]
    open_storage(f"{s3}/raw").put_bytes("a.jpg", b"a")
    check_place("source", f"{s3}/raw")
    check_place("source", f"{s3}/raw/a.jpg")
    check_place("destination", f"{s3}/empty")
    with pytest.raises(
        FileNotFoundError, match=r"source s3://.*/empty: it does not exist or is empty"
    ):
        check_place("source", f"{s3}/empty")
    with pytest.raises(FileNotFoundError, match=f"s3://{bucket}-not: there is no such bucket"):
        check_place("checkpoint", f"s3://{bucket}-not/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(PermissionError, match="refuses the secret key"):
        check_place("source", f"{s3}/raw")


@pytest.mark.s3
def test_objects_count_by_what_the_bucket_says(s3):
    storage = open_storage(f"{s3}/raw")
    for name in ("all.zip", "set.v1/a.jpg"):
        storage.put_bytes(name, name.encode())
    assert names(f"{s3}/raw/all.zip") == ["all.zip"]
    assert names(f"{s3}/raw/set.v1") == ["a.jpg"]
    for name in ("own/table.csv", "own/a/1.jpg"):
        storage.put_bytes(name, name.encode())
    assert names(f"{s3}/raw/own/table.csv") == ["a/1.jpg", "table.csv"]
    before = file_versions(f"{s3}/raw/all.zip")
    storage.put_bytes("all.zip", b"other")
    assert file_versions(f"{s3}/raw/all.zip") != before


def test_a_word_is_no_place_but_for_the_parameter_it_belongs_to():
    assert not names_place("generator", "shipped")
    assert names_place("generator", "./shipped")
    assert names_place("texture_source", "shipped")
    assert not names_place("source", "")
    assert not names_place("seed", 3)
