"""Imported pairs: by name, by index, from archives, and refused ones."""

import os
import shutil
import zipfile
import zlib

import numpy as np
import pytest

from san_core.data.pairs import SizeChecker, find_pairs
from san_core.data.tree import open_tree
from san_core.images.pixels import encode_jpeg, encode_png

IMAGE = encode_jpeg(np.full((64, 32, 3), 90, np.uint8), quality=90)
TEXTURE = encode_png(np.full((32, 32, 3), 120, np.uint8))


def found(place):
    with open_tree(place) as tree:
        return find_pairs(tree).pairs


def texture(name):
    """A texture that no other name has."""
    grey = zlib.crc32(name.encode())
    return encode_png(np.full((32, 32, 3), [grey >> k & 255 for k in (0, 8, 16)], np.uint8))


def put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(texture(name) if name.startswith("textures") else IMAGE)


@pytest.fixture
def named(tmp_path):
    """Two textures, one worn on two images, in folders of that name."""
    root = tmp_path / "named"
    put(root, "images/a_1.jpg", "images/a_2.jpg", "images/b.jpg")
    put(root, "textures/a.png", "textures/b.png")
    return root


def test_names_tell_which_texture_an_image_shows(named):
    assert [(p.image_name, p.texture_name) for p in found(named)] == [
        ("a_1.jpg", "a.png"),
        ("a_2.jpg", "a.png"),
        ("b.jpg", "b.png"),
    ]
    assert {p.split for p in found(named)} == {None}


def test_the_longest_name_of_a_texture_wins(named):
    put(named, "textures/a_1.png")
    assert found(named)[0][2:4] == ("a_2.jpg", "a.png")
    assert found(named)[1][2:4] == ("a_1.jpg", "a_1.png")


def test_a_name_is_shortened_word_by_word(named):
    put(named, "images/c_d_e_f.jpg", "textures/c_d.png", "images/c.jpg", "textures/c.png")
    assert {p.image_name: p.texture_name for p in found(named)}["c_d_e_f.jpg"] == "c_d.png"


def test_the_folder_may_lie_in_the_folder_given(named):
    (named.parent / "empty").mkdir()
    assert found(named.parent) == found(named)
    put(named.parent / "other", "images/a.jpg", "textures/a.png")
    with pytest.raises(ValueError, match=r"has pairs in 2 folders, .*named, .*other; give one"):
        found(named.parent)


def test_what_desktops_leave_behind_is_no_image(named):
    put(named, "images/._a_1.jpg", "images/.DS_Store", "__MACOSX/images/a_1.jpg")
    assert len(found(named)) == 3


def test_images_in_folders_pair_with_textures_in_folders(tmp_path):
    put(tmp_path, "images/x/1_1.jpg", "images/y/1_1.jpg", "textures/x/1.png", "textures/y/1.png")
    assert [p[2:4] for p in found(tmp_path)] == [
        ("x/1_1.jpg", "x/1.png"),
        ("y/1_1.jpg", "y/1.png"),
    ]


def index(root, *lines):
    put(root, "p/1.jpg", "p/2.jpg")
    put(root, "textures/t.png", "textures/u.png")
    text = "\n".join(lines) + "\n"
    (root / "index.csv").write_bytes(text.encode(errors="surrogateescape"))
    return root


def test_an_index_has_pairs_splits_and_fields(tmp_path):
    root = index(
        tmp_path,
        "image,texture,split,azimuth",
        "p/2.jpg,textures/t.png,val,30",
        "p/1.jpg,textures/u.png,train,60",
    )
    first, second = found(root)
    assert first[2:] == ("p/2.jpg", "t.png", "val", {"azimuth": "30"})
    assert second[2:] == ("p/1.jpg", "u.png", "train", {"azimuth": "60"})
    assert found(root / "index.csv") == [first, second]
    assert (root / first.image).read_bytes() == IMAGE


def test_blanks_and_blank_lines_in_an_index_mean_nothing(tmp_path):
    root = index(tmp_path, "image, texture", "", "./p/1.jpg, textures/t.png ", "")
    assert found(root)[0][:2] == ("p/1.jpg", "textures/t.png")
    with pytest.raises(FileNotFoundError, match=r"index.csv line 5: there is no image 'p/3.jpg'"):
        found(index(root, "image,texture", "", "p/1.jpg,textures/t.png", "", "p/3.jpg,textures/t"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["image,uv", "p/1.jpg,t"],
            "has no column 'texture'; its first row is read as 'image', 'uv'",
        ),
        ([], "has no column 'image'; its first row is read as nothing"),
        (["image,texture,image", "p/1.jpg,textures/t.png,x"], "has a column 'image' twice"),
        (
            ["image,texture", "p/1.jpg,textures/t.png", "p/1.jpg,textures/u.png"],
            "line 3: image 'p/1.jpg' is in line 2 too",
        ),
        (["image,texture", '"p/1.jpg,textures/t.png'], "index.csv line 2: unexpected end of data"),
        (["image,texture", "p/1.jpg\udcff,textures/t.png"], "index.csv is not in UTF-8"),
        (["image,texture"], "index.csv lists no pair"),
        (
            ["image,texture", "p/1.jpg,textures/v.png"],
            "line 2: there is no texture 'textures/v.png'",
        ),
        (["image,texture", "p/1.jpg,../t.png"], "line 2: texture '../t.png' leads out of the tab"),
        (["image,texture", "p/1.jpg,/t.png"], "line 2: texture '/t.png' leads out of the tab"),
        (["image,texture", "p/1.jpg"], "line 2: it has more or fewer columns"),
        (["image,texture", "p/1.jpg,textures/t.png,x"], "line 2: it has more or fewer columns"),
        (
            ["image,texture,split", "p/1.jpg,textures/t.png,test"],
            "split 'test' is not one of train, v",
        ),
        (
            ["image,texture,split", "p/1.jpg,textures/t.png,val", "p/2.jpg,textures/u.png,"],
            "line 3: it has no split, and other lines have",
        ),
        (["image,texture,size", "p/1.jpg,textures/t.png,9"], "cannot be called 'size' here"),
        (
            [
                "image,texture,split",
                "p/1.jpg,textures/t.png,train",
                "p/2.jpg,textures/t.png,val",
            ],
            "texture t.png, or one of the same bytes, is in several splits",
        ),
    ],
)
def test_a_wrong_index_is_refused_by_row(tmp_path, lines, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        found(index(tmp_path, *lines))


def test_copies_of_a_texture_are_one_texture(named):
    for name in ("b.png", "c.png"):
        shutil.copy(named / "textures" / "a.png", named / "textures" / name)
    put(named, "images/c_1.jpg", "images/d.jpg", "textures/d.png")
    with open_tree(named) as tree:
        listed = find_pairs(tree)
    assert listed.duplicate_textures == 2
    assert [(p.image_name, p.texture_name, p.texture) for p in listed.pairs] == [
        ("a_1.jpg", "a.png", "textures/a.png"),
        ("a_2.jpg", "a.png", "textures/a.png"),
        ("b.jpg", "a.png", "textures/a.png"),
        ("c_1.jpg", "a.png", "textures/a.png"),
        ("d.jpg", "d.png", "textures/d.png"),
    ]


def test_copies_of_a_texture_in_several_splits_are_refused(tmp_path):
    lines = ["image,texture,split", "p/1.jpg,textures/t.png,val", "p/2.jpg,textures/u.png,train"]
    root = index(tmp_path, *lines)
    shutil.copy(root / "textures" / "t.png", root / "textures" / "u.png")
    with pytest.raises(ValueError, match=r"texture t.png, or one of the same bytes, is in several"):
        found(root)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (b"a_\xff.jpg", r"the name of image 'a_\\udcff.jpg' is not in UTF-8"),
        (b"a_" + b"x" * 120 + b".jpg", "the name of image a_x*.jpg is too long; a tar holds"),
    ],
)
def test_names_that_no_tar_holds_are_refused(named, name, message):
    (named / "images" / os.fsdecode(name)).write_bytes(IMAGE)
    with pytest.raises(ValueError, match=message):
        found(named)


def test_files_without_a_partner_are_counted_and_named(named):
    put(named, "images/c.jpg", "images/d_1.jpg")
    with pytest.raises(ValueError, match=r"2 images without a texture .*: c.jpg, d_1.jpg"):
        found(named)
    for name in ("c.jpg", "d_1.jpg"):
        (named / "images" / name).unlink()
    put(named, "textures/z.png")
    with pytest.raises(ValueError, match=r"1 textures without an image of their name: z.png"):
        found(named)


def test_images_of_other_kinds_are_refused_and_notes_are_not(named):
    put(named, "images/notes.txt")
    assert len(found(named)) == 3
    put(named, "images/a_3.GIF", "images/a_4.npy")
    message = r"2 files that do not end in .jpg, .*: images/a_3.GIF, images/a_4.npy"
    with pytest.raises(ValueError, match=message):
        found(named)


def test_textures_that_differ_in_their_endings_are_refused(named):
    put(named, "textures/a.jpg")
    with pytest.raises(ValueError, match=r"a.jpg and a.png differ only in their endings"):
        found(named)


def test_two_files_of_one_name_are_refused(tmp_path):
    put(tmp_path, "images/1.jpg", "1.jpg", "textures/t.png")
    rows = "images/1.jpg,textures/t.png\n1.jpg,textures/t.png\n"
    (tmp_path / "index.csv").write_text("image,texture\n" + rows)
    with pytest.raises(ValueError, match=r"two images that would both be called 1.jpg"):
        found(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere, and no archive"):
        found(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"index.csv nor the folders .*; it holds nothing"):
        found(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=r"neither index.csv nor the folders .* it holds photos"):
        found(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "textures").mkdir()
    with pytest.raises(
        ValueError,
        match=r"textures holds no image; images end in .jpg, .jpeg, "
        r".jf",
    ):
        found(tmp_path)
    (tmp_path / "notes.txt").write_text("no table")
    with pytest.raises(
        ValueError,
        match=r"notes.txt is neither a table of pairs \(.csv\) nor an "
        r"archive",
    ):
        found(tmp_path / "notes.txt")


def test_a_set_in_the_project_s_own_format_is_not_taken_by_its_contact_sheets(tmp_path):
    put(tmp_path, "images/preview/0.png", "textures/preview/0.png", "images/manifest.json")
    with pytest.raises(ValueError, match="holds pairs as make_pit writes them; use them as they"):
        found(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "xztar"])
def test_archives_give_what_was_packed(named, tmp_path, kind):
    archive = shutil.make_archive(str(tmp_path / "packed"), kind, named.parent, "named")
    with open_tree(tmp_path / archive) as tree:
        listed = find_pairs(tree)
        assert [p[2:] for p in listed.pairs] == [p[2:] for p in found(named)]
        assert listed.tree.read(listed.pairs[0].texture) == texture("textures/a.png")


def test_a_zip_of_a_mac_gives_what_was_packed(named, tmp_path):
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as packed:
        for file in sorted(named.rglob("*.*")):
            packed.write(file, f"PIT/{file.relative_to(named)}")
            packed.writestr(f"__MACOSX/PIT/{file.relative_to(named.parent)}", b"mac")
    assert found(tmp_path / "mac.zip") == found(named)


def test_an_archive_that_is_none_or_damaged_is_refused(named, tmp_path):
    whole = (tmp_path / shutil.make_archive(str(tmp_path / "packed"), "gztar", named)).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 255
    for data in (b"nothing of the kind", whole[:-60], bytes(flipped)):
        (tmp_path / "broken.tar.gz").write_bytes(data)
        with pytest.raises(ValueError, match=r"broken.tar.gz cannot be unpacked"):
            found(tmp_path / "broken.tar.gz")


def test_sizes_must_agree_and_textures_be_square():
    sizes = SizeChecker()
    sizes.check_image("first.jpg", IMAGE)
    sizes.check_image("second.jpg", IMAGE)
    with pytest.raises(ValueError, match=r"image t.png has 32x32 pixels and first.jpg 64x32"):
        sizes.check_image("t.png", TEXTURE)
    with pytest.raises(ValueError, match=r"texture i.jpg has 64x32 texels; it must be square"):
        sizes.check_texture("i.jpg", IMAGE)
    with pytest.raises(ValueError, match=r"image half.jpg: .* not a whole image"):
        sizes.check_image("half.jpg", IMAGE[: len(IMAGE) // 2])
