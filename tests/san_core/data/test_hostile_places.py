"""Folders and archives that declare or unpack to more than anybody needs: refused in one line."""

import errno
import gzip
import io
import os
import tarfile
import tracemalloc
import zipfile

import pytest

from san_core.data import stores, tar_members
from san_core.data.prepare import Findings, check_images
from san_core.data.readers.sources import DATASET_FORMATS
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
    with pytest.raises(ValueError, match=r"a\.tar has links that lead to more than 10,000 files"):
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


def test_a_folder_that_links_to_itself_is_refused(tmp_path):
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
    told = [("damaged image", "a.jpg", "is a pipe or a device, not a file")]
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
    with pytest.raises(ValueError, match=r"a\.tar\.gz unpacks to more than [\d,]+ bytes; if that"):
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


def tar_of_images(path, count=4, **options):
    """A .tar of so many files, and its bytes."""
    with tarfile.open(path, "w", **options) as tar:
        for number in range(count):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = 512
            tar.addfile(info, io.BytesIO(bytes([number + 1]) * 512))
    return path.read_bytes()


@pytest.mark.parametrize("cut", [2048, 3000, 4096 - 512, 4096])
def test_a_tar_that_was_cut_off_is_refused_wherever_that_is(tmp_path, cut):
    whole = tar_of_images(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(whole[:cut])
    with pytest.raises(ValueError, match=r"a\.tar is not a whole \.tar: (it ends |unexpected en)"):
        open_tree(tmp_path / "a.tar")


def test_a_tar_with_a_damaged_header_is_refused_and_does_not_end_there(tmp_path):
    damaged = bytearray(tar_of_images(tmp_path / "a.tar"))
    damaged[1024 + 148] ^= 1  # the sum of the second header
    (tmp_path / "a.tar").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"whole \.tar: bad checksum at byte 1,024"):
        open_tree(tmp_path / "a.tar")


@pytest.mark.parametrize("between", [b"", bytes(1 << 20), b"left" * 128])
def test_what_lies_behind_the_end_of_a_tar_is_not_left_out_in_silence(tmp_path, between):
    whole = tar_of_images(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(whole + between + whole)
    place = f"{len(whole) + len(between):,}"
    with pytest.raises(ValueError, match=f"more data follow its end mark at byte {place}:"):
        open_tree(tmp_path / "a.tar")


@pytest.mark.parametrize("behind", [bytes(2 << 20), b"left" * 2000, b"x"])
def test_what_fills_the_last_record_of_a_tar_may_be_anything_but_a_header(tmp_path, behind):
    whole = tar_of_images(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(whole + behind)
    with open_tree(tmp_path / "a.tar") as tree:
        assert len(tree.entries().files) == 4


def test_a_tar_without_its_end_mark_must_be_packed_again(tmp_path):
    whole = tar_of_images(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(whole[:4096])
    with pytest.raises(ValueError, match="if none is, unpack it and pack it again"):
        open_tree(tmp_path / "a.tar")


def tar_header(kind, size, name=b"x"):
    info = tarfile.TarInfo(name.decode())
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_a_tar_is_not_read_that_is_longer_than_any(tmp_path, kind):
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(tar_header(kind, 6 << 30))
        file.truncate(7 << 30)
    with pytest.raises(ValueError, match=r"whole \.tar: a header claims 6,442,450,944 more bytes"):
        open_tree(tmp_path / "a.tar")


@pytest.mark.parametrize("size", [b"abc", b"-5"])
def test_a_file_of_a_tar_whose_size_is_none_does_not_end_the_archive(tmp_path, size):
    record = b"%d size=%s\n" % (len(size) + 9, size)
    odd = tar_header(tarfile.XHDTYPE, len(record)) + record.ljust(512, b"\0")
    odd += tar_header(tarfile.REGTYPE, 512, b"odd.jpg") + b"x" * 512
    (tmp_path / "a.tar").write_bytes(odd + tar_of_images(tmp_path / "a.tar"))
    with pytest.raises(ValueError, match=r"a\.tar is not a whole \.tar: .*(byte|odd\.jpg has -5)"):
        open_tree(tmp_path / "a.tar")


def test_a_tar_of_headers_for_headers_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_header(tarfile.XHDTYPE, 0) * 2000)
    with pytest.raises(ValueError, match=r"a\.tar is not a whole \.tar: headers without their"):
        open_tree(tmp_path / "a.tar")


def test_too_many_files_in_a_tar_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_members, "MOST_MEMBERS", 3)
    tar_of_images(tmp_path / "a.tar")
    with pytest.raises(
        ValueError, match=r"a\.tar is not a whole \.tar: it holds more than 3 files"
    ):
        open_tree(tmp_path / "a.tar")


def zip_changed(path, change, name="a.jpg"):
    """A .zip of one file, its bytes changed."""
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(name, b"abc")
    data = bytearray(path.read_bytes())
    change(data, data.index(b"PK\x01\x02"))
    path.write_bytes(data)


def of_later_version(data, at):
    data[at + 6] = 255


def with_a_name_that_is_no_text(data, at):
    data[at + 46] = 0xFF


def without_a_name(data, at):
    data[at + 28], data[at + 30] = 0, 3  # what was the name is extra now


@pytest.mark.parametrize(
    ("change", "name", "told"),
    [
        (of_later_version, "a.jpg", r"zip file version 25\.5"),
        (with_a_name_that_is_no_text, "é.jpg", "can't decode byte 0xff"),
    ],
)
def test_a_zip_whose_directory_cannot_be_read_is_refused_by_name(tmp_path, change, name, told):
    zip_changed(tmp_path / "a.zip", change, name)
    with pytest.raises(ValueError, match=rf"a\.zip is not a whole \.zip: .*{told}"):
        open_tree(tmp_path / "a.zip")


def test_what_has_no_name_in_a_zip_is_no_file(tmp_path):
    zip_changed(tmp_path / "a.zip", without_a_name, "a.p")
    with open_tree(tmp_path / "a.zip") as tree:
        assert list(tree.walk()) == []


def test_folders_of_a_zip_may_be_parted_as_in_windows(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("people\\alice\\1.jpg", b"abc")
        packed.writestr("people\\bob\\", b"")
    with open_tree(tmp_path / "a.zip") as tree:
        assert list(tree.walk()) == ["people/alice/1.jpg"]
        assert tree.is_folder("people/bob")
        assert tree.read("people/alice/1.jpg") == b"abc"


def test_a_file_that_would_lie_before_its_zip_is_damaged(tmp_path):
    def far_directory(data, at):
        data[-6:-2] = (at + 10_000).to_bytes(4, "little")

    zip_changed(tmp_path / "a.zip", far_directory)
    with (
        open_tree(tmp_path / "a.zip") as tree,
        pytest.raises(stores.UnreadableError, match=r"a\.zip: a\.jpg cannot be unpacked"),
    ):
        tree.read("a.jpg")


@pytest.mark.parametrize("named", ["market1501", "partial"])
def test_a_number_in_a_name_of_an_archive_may_have_more_digits_than_any(tmp_path, named):
    many = "9" * 5000
    folder, name = ("query", f"0001_c{many}s1_000001_01.jpg")
    if named == "partial":
        folder, name = "Probe", f"{many}.jpg"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for other in ("bounding_box_train", "bounding_box_test", "query", "Probe", "Gallery"):
            packed.writestr(f"{other}/0001_c1s1_000001_01.jpg", b"abc")
        packed.writestr(f"{folder}/{name}", b"abc")
    with open_tree(tmp_path / "a.zip") as tree:
        found = DATASET_FORMATS[named].listing(tree, {})
    assert [problem.name for problem in found.problems] == [f"{folder}/{name}"]
