import pytest

from san_core.data.readers import images
from san_core.data.tree import open_tree


def listing(folder):
    with open_tree(folder) as tree:
        return images.listing(tree, {}).images


@pytest.fixture
def folder(tmp_path):
    for name in ("b/2.JPG", "a.png", "b/1.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_photographs_are_listed_by_name_without_identities(folder):
    found = listing(folder)
    assert [image.name for image in found] == ["a.png", "b/1.jpeg", "b/2.JPG"]
    assert {(image.pid, image.camid, image.split) for image in found} == {(None, None, "images")}
    assert [image.read() for image in found] == [b"a.png", b"b/1.jpeg", b"b/2.JPG"]


def test_every_format_that_is_read_is_taken_and_what_is_passed_over_is_counted(folder):
    for name in ("c.webp", "d.BMP", "e.tiff", "f.jfif", "g.gif", "h.mp4", "LICENCE", ".i.jpg"):
        (folder / name).write_bytes(name.encode())
    with open_tree(folder) as tree:
        found = images.listing(tree, {})
    assert [image.name for image in found.images] == [
        *("a.png", "b/1.jpeg", "b/2.JPG", "c.webp", "d.BMP", "e.tiff", "f.jfif")
    ]
    assert found.warnings == [
        "skipped files, by their endings: 1 .gif, 1 .mp4, 1 .txt, 1 without an ending"
    ]


def test_missing_or_empty_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere, and no"):
        listing(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no image; images end in \.jpg, \.jpeg, \.jfif"):
        listing(tmp_path)
