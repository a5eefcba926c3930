"""make_pit: synthesised pairs with dense maps and photographs, and imported pairs."""

import re
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.__main__ import main
from components.storage.places import open_storage
from san_core.images.imageset import ImageSet
from san_core.images.pixels import decode, encode_jpeg, encode_png
from san_core.synthesis.person.atlas import ATLAS_NAME
from tests.tiny import file_contents

SMALL = ["--textures", "3", "--meshes", "2", "--image-height", "64", "--texture-size", "32"]


def made(pit, *words):
    assert main(["make_pit", "--pit", str(pit), *words]) == 0
    return pit


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return made(tmp_path_factory.mktemp("plain") / "pit", *SMALL)


def test_a_set_without_dense_maps_has_none(plain):
    assert sorted(path.name for path in plain.iterdir()) == ["images", "textures"]
    assert ImageSet.open(plain / "images").manifest["provenance"]["atlas"] == ATLAS_NAME


def test_dense_maps_are_beside_the_very_same_images(plain, tmp_path):
    pit = made(tmp_path / "pit", *SMALL, "--dense", "true")
    with (
        ImageSet.open(pit / "images") as images,
        ImageSet.open(plain / "images") as before,
        ImageSet.open(pit / "dense") as dense,
    ):
        assert [r.sha256 for r in images.records] == [r.sha256 for r in before.records]
        assert [r.fields["image"] for r in dense.records] == [r.name for r in images.records]
        assert [r.split for r in dense.records] == [r.split for r in images.records]
        texels = decode(dense.read(dense.records[0]))
    assert texels.shape == (64, 32, 3)
    assert 0.1 < (texels[..., 2] == 255).mean() < 0.7


def test_width_may_be_given(tmp_path):
    pit = made(tmp_path / "pit", *SMALL, "--image-width", "48")
    with ImageSet.open(pit / "images") as images:
        assert decode(images.read(images.records[0])).shape == (64, 48, 3)


@pytest.mark.parametrize(("step", "output"), [("make_pit", "pit"), ("prepare_reid", "reid")])
def test_people_are_made_in_no_more_processes_than_memory_is_limited_for(
    tmp_path, capsys, monkeypatch, step, output
):
    monkeypatch.setattr("components.process.machine.core_count", lambda: 96)
    monkeypatch.setattr("components.process.machine.memory_limit", lambda: 300 << 20)
    few = ["--textures", "2", "--meshes", "1"]
    if step == "prepare_reid":
        few = ["--identities", "6", "--cameras", "2", "--shots", "2"]
    assert main([step, f"--{output}", str(tmp_path / output), "--image-height", "64", *few]) == 0
    told = "working in 1 process on 96 cores (memory is limited), with about 224 MiB of memory in"
    assert told in capsys.readouterr().err


def test_photographs_take_the_place_of_painted_places(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    blue = np.zeros((80, 120, 3), np.uint8) + np.uint8([20, 40, 220])
    (folder / "blue.jpg").write_bytes(encode_jpeg(blue, quality=95))
    pit = made(tmp_path / "pit", *SMALL, "--backgrounds", str(folder))
    with ImageSet.open(pit / "images") as images:
        for record in images.records:
            assert record.fields["background"] == "blue.jpg"
            corner = decode(images.read(record))[:4, :4].reshape(-1, 3).mean(axis=0)
            assert corner[2] > 2 * corner[:2].max()
        assert str(tmp_path) not in str(images.manifest)
        assert len(images.manifest["provenance"]["spec"]["backgrounds"]) == 64


@pytest.mark.parametrize("cores", [1, 2])
def test_a_damaged_photograph_ends_the_step_with_one_line(tmp_path, capsys, monkeypatch, cores):
    monkeypatch.setattr("components.process.machine.core_count", lambda: cores)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("hello")
    words = ["make_pit", "--pit", str(tmp_path / "pit"), *SMALL]
    assert main([*words, "--backgrounds", str(tmp_path / "photos")]) == 1
    where, how, *said = capsys.readouterr().err.splitlines()
    assert where.endswith("make_pit computes on the processor; 1 thread")
    assert f"working in {cores} process" in how
    assert said == [
        f"make_pit: {tmp_path}/photos/a.jpg: 5 bytes that are not one of JPEG, PNG, WebP, BMP, TIFF"
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


@pytest.mark.s3
def test_a_body_may_be_in_a_bucket(plain, tmp_path, s3, capsys):
    body = resources.files("san_core.synthesis.person").joinpath("body.npz").read_bytes()
    open_storage(f"{s3}/bodies").put_bytes("ours.npz", body)
    pit = made(tmp_path / "pit", *SMALL, "--body", f"{s3}/bodies/ours.npz")
    with ImageSet.open(pit / "images") as images, ImageSet.open(plain / "images") as before:
        assert [r.sha256 for r in images.records] == [r.sha256 for r in before.records]
    words = ["make_pit", "--pit", str(tmp_path / "none"), *SMALL]
    assert main([*words, "--body", f"{s3}/bodies/none.npz"]) == 1
    assert "bodies/none.npz does not exist" in capsys.readouterr().err


@pytest.fixture
def source(tmp_path):
    """Twelve textures on two images each, of other sizes than ours."""
    root, rng = tmp_path / "theirs", np.random.default_rng(0)
    for kind in ("images", "textures"):
        (root / kind).mkdir(parents=True)
    for pid in range(12):
        texture = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
        (root / "textures" / f"{pid:02d}.png").write_bytes(encode_png(texture))
        for k in range(2):
            image = rng.integers(0, 255, (48, 24, 3)).astype(np.uint8)
            data = encode_jpeg(image, quality=90)
            (root / "images" / f"{pid:02d}_{k}.jpg").write_bytes(data)
    return root


def test_pairs_of_others_enter_unchanged(source, tmp_path):
    pit = made(tmp_path / "pit", "--source", str(source), "--atlas", "surreal")
    with ImageSet.open(pit / "images") as images, ImageSet.open(pit / "textures") as textures:
        assert (len(images.records), len(textures.records)) == (24, 12)
        for record in images.records:
            assert images.read(record) == (source / "images" / record.name).read_bytes()
            assert record.fields["texture"] == f"{record.name[:2]}.png"
        assert [r.pid for r in textures.records] == list(range(12))
        splits = {r.name: r.split for r in textures.records}
        assert sorted(splits.values()).count("val") == 1  # a tenth of 12
        assert all(splits[r.fields["texture"]] == r.split for r in images.records)
        assert images.manifest["provenance"]["atlas"] == "surreal"
        assert str(source) not in str(images.manifest)
    assert (pit / "images" / "preview" / "00000.png").is_file()


def test_transparent_pictures_and_textures_of_others_are_counted(source, tmp_path, capsys):
    made(tmp_path / "opaque", "--source", str(source))
    assert "transparent, so" not in capsys.readouterr().err
    names = ("images/00_0.png", "images/01_0.png", "textures/02.png")
    for name in names:
        beside = next((source / name).parent.glob(f"{Path(name).stem}.*"))
        image = Image.fromarray(decode(beside.read_bytes()))
        beside.unlink()
        image.putalpha(200)
        image.save(source / name)
    made(tmp_path / "pit", "--source", str(source))
    told = capsys.readouterr().err
    assert "transparent, so put on a white background: 2 pictures\n" in told
    assert "transparent, so put on a white background: 1 textures\n" in told


def test_an_archive_gives_what_its_folder_gives(source, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "packed"), "gztar", source)
    folder = made(tmp_path / "a", "--source", str(source))
    packed = made(tmp_path / "b", "--source", archive)
    assert file_contents(folder) == file_contents(packed)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"theirs", "packed.tar.gz", "a", "b"}  # nothing unpacked stays behind


def test_a_texture_beside_every_image_is_one_identity_of_one_split(source, tmp_path, capsys):
    for k in range(2):
        for pid in range(12):
            name = f"{pid:02d}_{k}.png"
            shutil.copy(source / "textures" / f"{pid:02d}.png", source / "textures" / name)
    for pid in range(12):
        (source / "textures" / f"{pid:02d}.png").unlink()
    pit = made(tmp_path / "pit", "--source", str(source))
    assert "12 textures are copies of others" in capsys.readouterr().err
    with ImageSet.open(pit / "images") as images, ImageSet.open(pit / "textures") as textures:
        assert [r.name for r in textures.records] == [f"{pid:02d}_0.png" for pid in range(12)]
        for record in images.records:
            assert record.fields["texture"] == f"{record.name[:2]}_0.png"
            assert record.pid == int(record.name[:2])
        splits = {(r.pid, r.split) for r in images.records}
        assert splits == {(r.pid, r.split) for r in textures.records}
        assert len(splits) == 12


def test_a_table_without_held_out_people_is_warned_of(source, tmp_path, capsys):
    rows = [f"images/{pid:02d}_0.jpg,textures/{pid:02d}.png,train" for pid in range(3)]
    (source / "index.csv").write_text("\n".join(["image,texture,split", *rows]))
    pit = made(tmp_path / "pit", "--source", str(source / "index.csv"))
    assert "split val has no texture" in capsys.readouterr().err
    assert set(ImageSet.open(pit / "images").manifest["splits"]) == {"train"}


@pytest.mark.s3
def test_pairs_in_a_bucket_are_taken_as_those_of_this_machine(source, tmp_path, s3):
    bucket = open_storage(s3)
    rows = [f"images/{pid:02d}_{k}.jpg,textures/{pid:02d}.png" for pid in range(12) for k in (0, 1)]
    (source / "index.csv").write_text("\n".join(["image,texture", *rows]))
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        bucket.put_file(f"pit/{path.relative_to(source).as_posix()}", path)
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", source)
    bucket.put_file("pit.zip", Path(packed))
    here = file_contents(made(tmp_path / "here", "--source", str(source)))
    for number, place in enumerate(("pit", "pit/index.csv", "pit.zip")):
        assert file_contents(made(tmp_path / str(number), "--source", f"{s3}/{place}")) == here


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda s: (s / "textures" / "03.png").unlink(), "2 images without a texture of their na"),
        (lambda s: shutil.rmtree(s), "there is no folder"),
        (
            lambda s: shutil.copy(s / "textures" / "01.png", s / "images" / "05_0.jpg"),
            "image 05_0.jpg has 32x32 pixels and 00_0.jpg 48x24",
        ),
        (
            lambda s: (s / "images" / "05_0.jpg").write_bytes(b"no image"),
            "05_0.jpg: 8 bytes that are not one of JPEG",
        ),
    ],
)
def test_unpaired_and_missized_files_are_refused_and_nothing_is_left(
    source, tmp_path, capsys, harm, message
):
    harm(source)
    assert main(["make_pit", "--pit", str(tmp_path / "pit"), "--source", str(source)]) != 0
    assert message in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} <= {"theirs"}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--backgrounds", "there is no folder .* of backgrounds"),
        ("--body", "there is no file .* with a body"),
    ],
)
def test_missing_files_are_named(tmp_path, capsys, flag, message):
    words = ["make_pit", "--pit", str(tmp_path / "pit"), *SMALL, flag, str(tmp_path / "nowhere")]
    assert main(words) != 0
    assert re.fullmatch(f"make_pit: {message}", capsys.readouterr().err.splitlines()[-1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "x", "--meshes", "5"], "pairs are imported unchanged, so --meshes 5 has no"),
        (["--source", "x", "--image-height", "64"], "so --image-height 64 has no effect"),
        (["--source", "x", "--dense", "true"], "so --dense True has no effect"),
        (["--source", "x", "--world", "street"], "so --world street has no effect"),
        (
            ["--atlas", "surreal"],
            "the layout is that of the body, so --atlas surreal has no effect",
        ),
        (["--textures", "1"], "textures is 1; it must be at least 2, as one is held out"),
        (["--source", "x", "--seed", "-1"], "seed is -1: it must be 0 to 9223372036854775807"),
    ],
)
def test_flags_without_effect_or_sense_are_refused(tmp_path, capsys, words, message):
    assert main(["make_pit", "--pit", str(tmp_path / "pit"), *words]) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "pit").exists()
