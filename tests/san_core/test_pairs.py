"""Pairs that somebody has: by name, by index, from archives, and what is refused."""

import shutil
import tarfile
import zipfile

import numpy as np
import pytest

from san_core.pairs import Sizes, pairs, unpack
from san_core.pixels import encode_jpeg, encode_png

IMAGE = encode_jpeg(np.full((64, 32, 3), 90, np.uint8), quality=90)
TEXTURE = encode_png(np.full((32, 32, 3), 120, np.uint8))


def put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(TEXTURE if name.startswith("textures") else IMAGE)


@pytest.fixture
def named(tmp_path):
    """Two textures, one worn on two images, in folders of that name."""
    root = tmp_path / "named"
    put(root, "images/a_1.jpg", "images/a_2.jpg", "images/b.jpg")
    put(root, "textures/a.png", "textures/b.png")
    return root


def test_names_tell_which_texture_an_image_shows(named):
    assert [(p.image_name, p.texture_name) for p in pairs(named)] == [
        ("a_1.jpg", "a.png"),
        ("a_2.jpg", "a.png"),
        ("b.jpg", "b.png"),
    ]
    assert {p.split for p in pairs(named)} == {None}


def test_the_longest_name_of_a_texture_wins(named):
    put(named, "textures/a_1.png")
    assert pairs(named)[0][2:4] == ("a_2.jpg", "a.png")
    assert pairs(named)[1][2:4] == ("a_1.jpg", "a_1.png")


def test_the_folder_may_lie_in_the_folder_given(named):
    assert pairs(named.parent) == pairs(named)


def test_images_in_folders_pair_with_textures_in_folders(tmp_path):
    put(tmp_path, "images/x/1_1.jpg", "images/y/1_1.jpg", "textures/x/1.png", "textures/y/1.png")
    assert [p[2:4] for p in pairs(tmp_path)] == [
        ("x/1_1.jpg", "x/1.png"),
        ("y/1_1.jpg", "y/1.png"),
    ]


def index(root, *lines):
    put(root, "p/1.jpg", "p/2.jpg")
    put(root, "textures/t.png", "textures/u.png")
    (root / "index.csv").write_text("\n".join(lines) + "\n")
    return root


def test_an_index_tells_pairs_splits_and_fields(tmp_path):
    root = index(
        tmp_path,
        "image,texture,split,azimuth",
        "p/2.jpg,textures/t.png,val,30",
        "p/1.jpg,textures/u.png,train,60",
    )
    first, second = pairs(root)
    assert first[2:] == ("p/2.jpg", "t.png", "val", {"azimuth": "30"})
    assert second[2:] == ("p/1.jpg", "u.png", "train", {"azimuth": "60"})
    assert first.image.read_bytes() == IMAGE


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image,uv", "p/1.jpg,t"], "has no column 'texture'; it has image, uv"),
        (["image,texture"], "index.csv lists no pair"),
        (
            ["image,texture", "p/1.jpg,textures/v.png"],
            "row 2: there is no texture 'textures/v.png'",
        ),
        (["image,texture", "p/1.jpg,../t.png"], "row 2: texture '../t.png' does not lie beside"),
        (["image,texture", "p/1.jpg,/t.png"], "row 2: texture '/t.png' does not lie beside"),
        (["image,texture", "p/1.jpg"], "row 2: it has more or fewer columns"),
        (["image,texture", "p/1.jpg,textures/t.png,x"], "row 2: it has more or fewer columns"),
        (
            ["image,texture,split", "p/1.jpg,textures/t.png,test"],
            "split 'test' is none of train, v",
        ),
        (["image,texture,size", "p/1.jpg,textures/t.png,9"], "cannot be called 'size' here"),
        (
            [
                "image,texture,split",
                "p/1.jpg,textures/t.png,train",
                "p/2.jpg,textures/t.png,val",
            ],
            "texture t.png is in several splits",
        ),
    ],
)
def test_a_wrong_index_is_refused_by_row(tmp_path, lines, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        pairs(index(tmp_path, *lines))


def test_files_without_a_partner_are_counted_and_named(named):
    put(named, "images/c.jpg", "images/d_1.jpg")
    with pytest.raises(ValueError, match=r"2 images without a texture .*: c.jpg, d_1.jpg"):
        pairs(named)
    for name in ("c.jpg", "d_1.jpg"):
        (named / "images" / name).unlink()
    put(named, "textures/z.png")
    with pytest.raises(ValueError, match=r"1 textures without an image of their name: z.png"):
        pairs(named)


def test_textures_that_differ_in_their_endings_are_refused(named):
    put(named, "textures/a.jpg")
    with pytest.raises(ValueError, match=r"a.jpg and a.png differ in their endings alone"):
        pairs(named)


def test_two_files_of_one_name_are_refused(tmp_path):
    put(tmp_path, "images/1.jpg", "1.jpg", "textures/t.png")
    rows = "images/1.jpg,textures/t.png\n1.jpg,textures/t.png\n"
    (tmp_path / "index.csv").write_text("image,texture\n" + rows)
    with pytest.raises(ValueError, match=r"two files that would both be called 1.jpg"):
        pairs(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere of images"):
        pairs(tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=r"neither index.csv nor the folders .* it has photos"):
        pairs(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "textures").mkdir()
    with pytest.raises(ValueError, match=r"textures holds no image; they end in .jpg, .jpeg, .png"):
        pairs(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "xztar"])
def test_archives_unpack_to_what_was_packed(named, tmp_path, kind):
    archive = shutil.make_archive(str(tmp_path / "packed"), kind, named.parent, "named")
    unpack(tmp_path / archive, tmp_path / "out")
    assert [p[2:] for p in pairs(tmp_path / "out")] == [p[2:] for p in pairs(named)]


def test_an_archive_that_is_none_or_cut_short_is_refused(named, tmp_path):
    archive = tmp_path / shutil.make_archive(str(tmp_path / "packed"), "gztar", named)
    for number, data in enumerate((b"nothing of the kind", archive.read_bytes()[:-60])):
        (tmp_path / "broken").write_bytes(data)
        with pytest.raises(ValueError, match="broken is not a whole tar or zip archive"):
            unpack(tmp_path / "broken", tmp_path / str(number))


def test_an_archive_writes_nothing_outside_its_folder(tmp_path):
    (tmp_path / "file").write_bytes(IMAGE)
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.add(tmp_path / "file", "../../outside")
    with pytest.raises(ValueError, match="not a whole tar or zip archive"):
        unpack(tmp_path / "evil.tar", tmp_path / "a" / "b")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as packed:
        packed.writestr("../../outside", IMAGE)
    unpack(tmp_path / "evil.zip", tmp_path / "a" / "b")  # zipfile drops the dots
    assert not list(tmp_path.glob("outside"))


def test_sizes_must_agree_and_textures_be_square():
    sizes = Sizes()
    sizes.check_image("first.jpg", IMAGE)
    sizes.check_image("second.jpg", IMAGE)
    with pytest.raises(ValueError, match=r"image t.png has 32x32 pixels and first.jpg 64x32"):
        sizes.check_image("t.png", TEXTURE)
    with pytest.raises(ValueError, match=r"texture i.jpg has 64x32 texels; it must be square"):
        sizes.check_texture("i.jpg", IMAGE)
    with pytest.raises(ValueError, match=r"image half.jpg: .* not a whole image"):
        sizes.check_image("half.jpg", IMAGE[: len(IMAGE) // 2])
