"""One data set in a folder and in every kind of archive, read in one way."""

import io
import shutil
import tarfile
import zipfile

import pytest

from san_core.data.tree import open_tree

FILES = {
    "set/a.jpg": b"a" * 3000,
    "set/b/1.jpg": b"b1",
    "set/b/10.jpg": b"b10",
    "set/b/__MACOSX/x.jpg": b"litter",
    "set/Thumbs.db": b"litter",
    "set/._a.jpg": b"litter",
    "set/.hidden/a.jpg": b"litter",
    "set/@eaDir/a.jpg": b"litter",
    "set/a.jpg~": b"litter",
    "set/README.md": b"litter",
    "list.txt": b"hello",
}
KINDS = {"zip": "zip", "tar": "tar", "tar.gz": "gztar", "tar.bz2": "bztar", "tar.xz": "xztar"}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "root"
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "set" / "empty").mkdir()
    return root


@pytest.fixture(params=["folder", *KINDS])
def tree(request, folder, tmp_path):
    path = folder
    if request.param in KINDS:
        base = str(tmp_path / "packed")
        path = shutil.make_archive(base, KINDS[request.param], root_dir=folder)
    with open_tree(tmp_path / path) as tree:
        yield tree


def test_entries_are_sorted_and_without_litter(tree):
    assert tree.entries() == (["list.txt"], ["set"])
    assert tree.entries("set") == (["a.jpg"], ["b", "empty"])
    assert tree.entries("set/empty") == ([], [])
    assert tree.entries("nowhere") == ([], [])


def test_walk_finds_every_file_in_order(tree):
    assert list(tree.walk()) == ["list.txt", "set/a.jpg", "set/b/1.jpg", "set/b/10.jpg"]
    assert list(tree.walk("set/b")) == ["set/b/1.jpg", "set/b/10.jpg"]


def test_files_are_read_and_distinguished_from_folders(tree):
    assert tree.read("set/a.jpg") == FILES["set/a.jpg"]
    assert tree.is_file("set/b/1.jpg")
    assert not tree.is_file("set/b")
    assert not tree.is_file("set/c.jpg")
    assert tree.is_folder("set/b")
    assert not tree.is_folder("set/a.jpg")


def test_a_folder_inside_is_a_tree_of_its_own(tree):
    inner = tree.subtree("set")
    assert inner.place == f"{tree.place}/set"
    assert inner.read("b/10.jpg") == b"b10"
    assert list(inner.walk()) == ["a.jpg", "b/1.jpg", "b/10.jpg"]
    assert inner.subtree("b").entries() == (["1.jpg", "10.jpg"], [])


def test_a_file_can_be_had_as_a_file(tree):
    assert tree.local_path("set/a.jpg").read_bytes() == FILES["set/a.jpg"]


def test_a_file_is_found_by_its_name_as_deep_as_asked(tree):
    assert tree.find_file("list.txt", depth=0) == "list.txt"
    assert tree.find_file("10.jpg", depth=1) is None
    assert tree.find_file("10.jpg", depth=2) == "set/b/10.jpg"


def test_copies_are_removed_when_the_tree_is_closed(folder, tmp_path):
    with open_tree(tmp_path / shutil.make_archive(str(tmp_path / "p"), "zip", folder)) as tree:
        copy = tree.local_path("list.txt")
        assert copy.exists()
    assert not copy.exists()


def test_a_file_that_is_no_archive_gives_the_folder_it_is_in(folder):
    with open_tree(folder / "list.txt") as tree:
        assert (tree.given_file, tree.place) == ("list.txt", str(folder))
        assert tree.is_file("list.txt")


def test_hard_links_of_a_tar_are_the_files_they_name(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("./x/a.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("x/b.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "./x/a.jpg"
        tar.addfile(link)
    with open_tree(tmp_path / "a.tar") as tree:
        assert tree.read("x/b.jpg") == b"abc"


def linked(path, *links):
    """A .tar of x/a.jpg and links, each a name, where it leads, and its type."""
    with tarfile.open(path, "w") as tar:
        for name, there, kind in links[: len(links) // 2]:
            add_link(tar, name, there, kind)
        info = tarfile.TarInfo("x/a.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
        for name, there, kind in links[len(links) // 2 :]:
            add_link(tar, name, there, kind)
    return path


def add_link(tar, name, there, kind):
    link = tarfile.TarInfo(name)
    link.type, link.linkname = kind, there
    tar.addfile(link)


SYMBOLIC, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE


def test_links_of_a_tar_are_followed_wherever_they_stand(tmp_path):
    links = [
        ("y/b.jpg", "../x/a.jpg", SYMBOLIC),
        ("./first.jpg", "./y/b.jpg", SYMBOLIC),
        ("y/c.jpg", "first.jpg", HARD),
        ("z", "y", SYMBOLIC),
        ("x/d.jpg", "a.jpg", SYMBOLIC),
    ]
    with open_tree(linked(tmp_path / "a.tar", *links)) as tree:
        names = ["first.jpg", "x/a.jpg", "x/d.jpg", "y/b.jpg", "y/c.jpg", "z/b.jpg", "z/c.jpg"]
        assert list(tree.walk()) == names
        assert {tree.read(name) for name in names} == {b"abc"}


@pytest.mark.parametrize(
    "there", ["nowhere.jpg", "/etc/passwd", "../../out.jpg", "b.jpg", ".", "..", "../x"]
)
def test_links_that_lead_to_nothing_in_a_tar_are_refused(tmp_path, there):
    path = linked(tmp_path / "a.tar", ("x/b.jpg", there, SYMBOLIC))
    with pytest.raises(ValueError, match=r"are not in it \(1, such as x/b\.jpg to "):
        open_tree(path)


def test_what_is_no_file_in_a_tar_is_refused(tmp_path):
    path = linked(tmp_path / "a.tar", ("x/pipe.jpg", "", tarfile.FIFOTYPE))
    with pytest.raises(
        ValueError,
        match=r"holds x/pipe\.jpg, which is neither a file nor a "
        r"folder",
    ):
        open_tree(path)


@pytest.mark.parametrize("name", ["../out.jpg", "/etc/passwd", "a/../../b.jpg"])
def test_an_archive_that_leads_out_of_itself_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(name, b"")
    with pytest.raises(ValueError, match=r"a\.zip has a file named .*, which leads out of it"):
        open_tree(tmp_path / "a.zip")


def test_a_locked_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("x.jpg", b"abc")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag of encryption, in the directory
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.zip is encrypted with a password \(x\.jpg\)"):
        open_tree(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.zip", "is not a whole .zip"),
        ("a.tar", "is not a whole .tar"),
        ("a.tar.gz", "cannot be unpacked"),
        ("a.tar.xz", "cannot be unpacked"),
        ("a.tar.bz2", "cannot be unpacked"),
    ],
)
def test_a_damaged_archive_is_refused(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"no archive " * 100)
    with pytest.raises(ValueError, match=rf"{name} {message}"):
        open_tree(tmp_path / name)


def test_a_file_damaged_within_an_archive_is_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("x.jpg", b"abcdefgh")
    data = (tmp_path / "a.zip").read_bytes().replace(b"abcdefgh", b"abcdXfgh")
    (tmp_path / "a.zip").write_bytes(data)
    with open_tree(tmp_path / "a.zip") as tree:
        for get in (tree.read, tree.local_path):
            with pytest.raises(ValueError, match=r"x\.jpg cannot"):
                get("x.jpg")


def test_damaged_lzma_in_an_archive_is_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("x.jpg", bytes(range(256)))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    for place in range(40, 60):  # behind the header of the file
        data[place] ^= 0x5A
    (tmp_path / "a.zip").write_bytes(data)
    with open_tree(tmp_path / "a.zip") as tree:
        for get in (tree.read, tree.local_path):
            with pytest.raises(ValueError, match=r"x\.jpg cannot be unpacked"):
                get("x.jpg")


def test_a_tar_that_was_cut_is_refused_where_it_ends(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("x.jpg")
        info.size = 3000
        tar.addfile(info, io.BytesIO(bytes(3000)))
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:1024])
    for how in ("read", "path"):
        with pytest.raises(ValueError, match=r"a\.tar"), open_tree(tmp_path / "a.tar") as tree:
            getattr(tree, how)("x.jpg")


def test_a_missing_place_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*absent, and no archive"):
        open_tree(tmp_path / "absent")
