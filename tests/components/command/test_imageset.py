"""`python -m components imageset`: list, verify and extract the images of a set."""

import json
from pathlib import Path

import pytest

from components.__main__ import main
from components.storage import transfer
from components.storage.places import open_storage
from san_core.images.imageset import ImageSet, manifest_bytes, write_imageset
from san_core.images.pixels import encode_png
from san_core.images.shard import Item
from tests.tiny import file_contents, step_command, with_flags, with_outputs_in


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.s3)])
def place(request, small_set):
    """The small set, where it was written or in a bucket."""
    if request.param == "folder":
        return str(small_set.path)
    uri = request.getfixturevalue("s3")
    transfer.send_artifact(small_set.path, uri)
    return uri


def test_ls_shows_a_line_an_image_and_adds_them_up(place, capsys):
    assert main(["imageset", "ls", place]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "split", "pid", "camid", "bytes"]
    assert lines[1].split()[:4] == ["0000.jpg", "train", "0", "0"]
    assert lines[8].startswith("7 images in 3 shards, ")
    assert place in lines[8]


def test_names_that_terminals_would_obey_are_shown_as_numbers(tmp_path, picture, capsys):
    name, fields = "\x1b]0;owned\x07.png", {"person": "a\nb\x1b[2J"}
    write_imageset(
        tmp_path, [Item(name, encode_png(picture(1)), 1, 0, "train", fields)], provenance={}
    )
    assert main(["imageset", "ls", str(tmp_path)]) == 0
    assert main(["imageset", "ls", str(tmp_path), "--name", "\x1b[2J"]) == 1
    assert main(["evaluate", "\x1b[2J"]) == 2
    said = capsys.readouterr()
    assert "\\x1b]0;owned\\x07.png" in said.out
    assert "a b\\x1b[2J" in said.out
    assert "\\x1b[2J" in said.err
    assert "\x1b" not in said.out + said.err


def test_ls_shows_how_the_data_set_calls_people_and_cameras(tmp_path, picture, capsys):
    items = [
        Item("1.png", encode_png(picture(1)), 1, 0, "train", {"person": "alice", "camera": "hall"}),
        Item("2.png", encode_png(picture(2)), 2, 1, "train", {"person": "bob"}),
    ]
    write_imageset(tmp_path, items, provenance={})
    assert main(["imageset", "ls", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["name", "split", "pid", "camid", "person", "camera", "bytes"]
    assert lines[1][:6] == ["1.png", "train", "1", "0", "alice", "hall"]
    assert lines[2][:6] == ["2.png", "train", "2", "1", "bob", "-"]


def test_ls_can_be_narrowed(place, capsys):
    assert main(["imageset", "ls", place, "--name", "000[12]*", "--split", "train"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("2 images in 1 shards")
    assert main(["imageset", "ls", place, "--split", "query"]) == 1
    assert "none of the 7 images" in capsys.readouterr().err


def test_verify_says_that_a_set_is_whole(place, capsys):
    assert main(["imageset", "verify", place]) == 0
    assert capsys.readouterr().out.startswith("whole: 7 images in 3 shards, ")


def test_verify_names_damaged_images_and_missing_shards(place, small_set, capsys):
    storage = open_storage(place)
    first, second, third = (shard["tar"] for shard in small_set.manifest["shards"])
    data = bytearray(storage.get(first))
    data[small_set.records[1].offset + 5] ^= 1
    storage.put_bytes(first, bytes(data))
    storage.put_bytes(second, storage.get(second)[:-1])
    storage.delete(third)
    assert main(["imageset", "verify", place]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{first} is damaged: 0001.jpg"
    assert lines[1].startswith(f"{second} has ")
    assert lines[2] == f"{third} is missing"
    assert lines[3] == "damaged: 3 of 3 shards"


def test_extract_writes_files_and_keeps_those_that_are_there(place, small_set, tmp_path, capsys):
    command = ["imageset", "extract", place, "--output", str(tmp_path / "out")]
    assert main([*command, "--name", "0003.jpg"]) == 0
    assert main(command) == 0
    assert file_contents(tmp_path / "out") == {r.name: small_set.read(r) for r in small_set.records}
    (tmp_path / "out" / "0003.jpg").write_bytes(b"mine")
    assert main(command) == 1
    assert "0003.jpg exists and is another picture" in capsys.readouterr().err
    assert (tmp_path / "out" / "0003.jpg").read_bytes() == b"mine"


def test_damaged_image_is_not_extracted(place, small_set, tmp_path, capsys):
    storage = open_storage(place)
    tar = small_set.manifest["shards"][0]["tar"]
    data = bytearray(storage.get(tar))
    data[small_set.records[1].offset + 5] ^= 1
    storage.put_bytes(tar, bytes(data))
    assert main(["imageset", "extract", place, "--output", str(tmp_path / "out")]) == 1
    assert "image 0001.jpg is damaged" in capsys.readouterr().err
    assert not (tmp_path / "out" / "0001.jpg").exists()


def test_sidecar_that_leads_out_of_the_folder_is_refused(small_set, tmp_path, capsys):
    """A set may come from anybody."""
    from san_core.images.shard import canonical_json, sha256

    shard = small_set.manifest["shards"][0]
    path = small_set.path / shard["sidecar"]
    sidecar = json.loads(path.read_bytes())
    sidecar["images"][0]["name"] = "../escaped.jpg"
    path.write_bytes(canonical_json(sidecar))
    shard["sidecar_sha256"] = sha256(path.read_bytes())
    (small_set.path / "manifest.json").write_bytes(manifest_bytes(small_set.manifest))
    out = tmp_path / "deep" / "out"
    assert main(["imageset", "extract", str(small_set.path), "--output", str(out)]) == 1
    assert "name is '../escaped.jpg'; it must be a plain relative path" in capsys.readouterr().err
    assert not (tmp_path / "deep" / "escaped.jpg").exists()


def test_sealed_manifest_and_receipt_lead_to_their_textures(tiny, tmp_path):
    textures = ImageSet.open(next(Path(tiny.destination).iterdir()))
    expected = {r.name: textures.read(r) for r in textures.records}
    for artifact in (tiny.textures, tiny.written):
        out = tmp_path / Path(artifact).name
        assert main(["imageset", "verify", artifact]) == 0
        assert main(["imageset", "extract", artifact, "--output", str(out)]) == 0
        assert file_contents(out) == expected


def test_photographs_become_textures_in_three_commands(tiny, small_set, tmp_path):
    photographs = tmp_path / "photographs"
    for record in small_set.records:
        file = photographs / f"day{record.camid}" / record.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(small_set.read(record))
    prepare = ["prepare_reid", "--reid", f"{tmp_path}/images", "--dataset", "images"]
    assert main([*prepare, "--source", str(photographs)]) == 0
    generate = with_outputs_in(step_command("generate_textures", tiny), tmp_path)
    given = {"dataset": f"{tmp_path}/images", "destination": f"{tmp_path}/kept"}
    assert main(with_flags(generate, split="images", **given)) == 0
    out = ["--output", f"{tmp_path}/textures"]
    assert main(["imageset", "extract", f"{tmp_path}/written", *out]) == 0
    made = {Path(name).with_suffix("") for name in file_contents(tmp_path / "textures")}
    assert made == {Path(name).with_suffix("") for name in file_contents(photographs)}
    assert len(made) == 7


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        ([], 2, "arguments are required"),
        (["cat", "x"], 2, "invalid choice: 'cat'"),
        (["extract", "x"], 2, "arguments are required: --output"),
        (["ls", "/nowhere"], 1, "imageset: file:///nowhere has no manifest.json: it is not a fin"),
        (["ls", "ftp://x"], 1, "imageset: 'ftp://x' is neither a folder nor a file:///"),
    ],
)
def test_wrong_words_end_in_one_clear_line(argv, status, message, capsys):
    assert main(["imageset", *argv]) == status
    assert message in capsys.readouterr().err


def test_help_explains(capsys):
    assert main(["imageset", "--help"]) == 0
    assert main(["imageset", "extract", "--help"]) == 0
    assert "folder to write them into" in capsys.readouterr().out
