"""Folders and archives that declare or unpack to more than anybody needs: refused in one line."""

import errno
import gzip
import io
import os
import tarfile
import tracemalloc
import zipfile

import pytest

from san_core.data import stores
from san_core.data.prepare import Findings, check_images
from san_core.data.records import ListedImage
from san_core.data.tree import open_tree

pytestmark = pytest.mark.usefixtures("impatient")


def links_to_folders_of_links(path, depth):
    """Folder x0 with a file, and folders x1 ... with links a and b to the one before."""
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("x0/a.jpg")
        tar.addfile(info)
        for number in range(1, depth + 1):
            for name in "ab":
                link = tarfile.TarInfo(f"x{number}/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, f"../x{number - 1}"
                tar.addfile(link)
    return path


@pytest.mark.parametrize("depth", [24, 48])
def test_links_of_a_tar_that_stand_for_too_many_files_are_counted(tmp_path, depth):
    with pytest.raises(ValueError, match=r"a\.tar has links that stand for more than 10,000 files"):
        open_tree(links_to_folders_of_links(tmp_path / "a.tar", depth))


def test_links_of_a_tar_that_stand_for_few_files_are_taken(tmp_path):
    with open_tree(links_to_folders_of_links(tmp_path / "a.tar", 4)) as tree:
        assert len(list(tree.walk())) == sum(2**level for level in range(5))


def test_links_of_a_folder_that_lead_to_one_folder_twice_are_refused(tmp_path):
    (tmp_path / "x0").mkdir()
    for number in range(1, 30):
        folder = tmp_path / f"x{number}"
        folder.mkdir()
        for name in "ab":
            (folder / name).symlink_to(f"../x{number - 1}")
    with open_tree(tmp_path / "x29") as tree, pytest.raises(ValueError, match=r"x29/a.* by a link"):
        list(tree.walk())


def test_a_folder_that_links_to_itself_is_not_walked_for_ever(tmp_path):
    (tmp_path / "a").symlink_to(".")
    with open_tree(tmp_path) as tree, pytest.raises(ValueError, match="by a link; its files would"):
        list(tree.walk())


@pytest.mark.parametrize("name", ["a/" * 200 + "x.jpg", "a/" * 20_000 + "x.jpg"])
def test_folders_nested_too_deep_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(name, b"")
    with pytest.raises(ValueError, match=r"a\.zip has folders nested deeper than 100"):
        open_tree(tmp_path / "a.zip")


def zip_with_declared_size(path, size):
    """A .zip whose directory says that its only file has so many bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.jpg", b"abc")
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(data)


def test_a_file_that_an_archive_declares_as_huge_is_not_read(tmp_path):
    zip_with_declared_size(tmp_path / "a.zip", 4_000_000_000)
    with (
        open_tree(tmp_path / "a.zip") as tree,
        pytest.raises(ValueError, match=r"a\.jpg has 4,000,000,000 bytes; at most 268,435,45"),
    ):
        tree.read("a.jpg")


def test_of_a_packed_file_no_more_is_unpacked_than_was_declared(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.jpg", bytes(50 << 20))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data)
    tracemalloc.start()
    with (
        open_tree(tmp_path / "a.zip") as tree,
        pytest.raises(ValueError, match=r"a\.jpg cannot be unpacked: Bad CRC"),
    ):
        tree.read("a.jpg")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 30 << 20


def test_an_image_of_a_folder_that_is_huge_is_a_problem_by_name(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(1 << 40)
    assert problems_of(tmp_path) == [
        ("damaged image", "a.jpg", "has 1,099,511,627,776 bytes; at most 268,435,456 are read")
    ]


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_device_among_images_is_a_problem_by_name(tmp_path, kind):
    if kind == "pipe":
        os.mkfifo(tmp_path / "a.jpg")
    else:
        (tmp_path / "a.jpg").symlink_to("/dev/zero")
    told = [("damaged image", "a.jpg", "is a pipe or a device, and no file")]
    assert problems_of(tmp_path) == told


def problems_of(folder):
    """What is wrong with a.jpg of a folder."""
    found = Findings()
    with open_tree(folder) as tree:
        image = ListedImage("a.jpg", 1, 0, "train", lambda: tree.read("a.jpg"))
        assert list(check_images([image], found, seen={})) == []
    return found.problems


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_problems_tell_no_place_of_this_machine(tmp_path, kind, monkeypatch):
    """They are kept in the manifest, which says nothing of a machine."""
    monkeypatch.setattr(stores, "MOST_FILE_BYTES", 8)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("a.jpg", b"abcdefgh")
    data = (tmp_path / "a.zip").read_bytes().replace(b"abcdefgh", b"abcdXfgh")
    (tmp_path / "a.zip").write_bytes(data)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = 9
        tar.addfile(info, io.BytesIO(bytes(9)))
    ((kind_, name, detail),) = problems_of(tmp_path / f"a.{kind}")
    assert (kind_, name) == ("damaged image", "a.jpg")
    assert str(tmp_path) not in detail


def test_a_compressed_tar_out_of_all_proportion_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "ALWAYS_UNPACKED_BYTES", 1 << 20)
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=9) as packed:
        packed.write(bytes(20 << 20))
    with pytest.raises(ValueError, match=r"a\.tar\.gz unpacks to more than [\d,]+ bytes; unpack"):
        open_tree(tmp_path / "a.tar.gz")


def test_room_for_a_file_of_an_archive_is_looked_for_before_it_is_unpacked(tmp_path):
    zip_with_declared_size(tmp_path / "a.zip", (1 << 32) - 2)
    with open_tree(tmp_path / "a.zip") as tree, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_room)
        with pytest.raises(OSError, match=r"no space left \(needs 4,295\.0 MB, has [\d,.]+ MB\)"):
            tree.local_path("a.jpg")


def test_a_full_disk_for_what_is_unpacked_is_named(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))

    class Full(io.BytesIO):
        def write(self, _data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stores.tempfile, "TemporaryFile", Full)
    with pytest.raises(OSError, match=r"no space left \(has [\d,.]+ MB\)"):
        open_tree(tmp_path / "a.tar.gz")


def no_room(*_arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
