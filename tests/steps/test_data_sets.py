"""prepare_reid on data sets of every kind, and the steps after it."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.__main__ import main
from components.storage.places import open_storage
from san_core.data.records import PublishedCounts
from san_core.images.imageset import ImageSet, read_manifest
from san_core.images.pixels import decode, encode_jpeg, encode_png
from tests.san_core.data.readers.cuhk03_file import PROTOCOL_ROWS, write_protocol, write_release


@pytest.fixture
def make(tmp_path, picture):
    """Writes images of the given names into a folder, each a picture of its own."""
    drawn = iter(range(10_000))

    def write(folder, names):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_jpeg(picture(next(drawn), 64, 32), quality=90))
        return tmp_path / folder

    return write


@pytest.fixture
def market(make):
    return make(
        "Market-1501-v15.09.15",
        [
            *(f"bounding_box_train/0002_c{c}s1_00045{c}_00.jpg" for c in (1, 2)),
            *(f"bounding_box_train/0007_c{c}s1_00055{c}_00.jpg" for c in (1, 2)),
            *(f"query/{pid:04d}_c1s1_000001_00.jpg" for pid in (1, 3)),
            *(f"bounding_box_test/{pid}_c2s1_000002_01.jpg" for pid in ("0001", "0003", "0000")),
            "bounding_box_test/-1_c2s1_000003_01.jpg",
            *(f"gt_bbox/{pid:04d}_c1s1_000004_00.jpg" for pid in (1, 3)),
        ],
    )


@pytest.fixture
def table(make):
    names = [f"{person}/{shot}.jpg" for person in ("ann", "bob", "cid") for shot in range(3)]
    folder = make("own", names)
    rows = [f"{name},{name.partition('/')[0]}" for name in names]
    (folder / "own.csv").write_text("\n".join(["path,pid", *rows]) + "\n")
    return folder


def prepare(tmp_path, dataset, source, *flags):
    command = ["prepare_reid", "--reid", str(tmp_path / "reid"), "--dataset", dataset]
    return main([*command, "--source", str(source), *flags])


def known(tmp_path):
    with ImageSet.open(tmp_path / "reid") as images:
        images.verify()
        return [(r.split, r.name, r.pid, r.camid) for r in images.records]


def provenance(tmp_path):
    return read_manifest(tmp_path / "reid")["provenance"]


def test_the_familiar_table_is_printed_and_kept(market, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(
        "san_core.data.readers.market1501.PUBLISHED",
        {
            "train": PublishedCounts(2, 4),
            "query": PublishedCounts(2, 2),
            "gallery": PublishedCounts(2, 4),
        },
    )
    caplog.set_level(logging.INFO)
    assert prepare(tmp_path, "market1501", market) == 0
    where, *said, wrote = [record.getMessage() for record in caplog.records]
    assert where.startswith("prepare_reid computes on the processor")
    assert wrote == f"wrote reid: {tmp_path / 'reid'}"
    assert said == [
        "subset       ids    images  cameras",
        "train          2         4        2",
        "query          2         2        1",
        "gallery        2         4        1",
        "the gallery images include 1 distractors and 1 junk boxes",
        "crops               least      5 %   median     95 %     most",
        "height                 64       64       64       64       64",
        "width                  32       32       32       32       32",
        "height by width         2        2        2        2        2",
        "all counts are as published",
    ]
    assert provenance(tmp_path) == {
        "made_by": "prepare_reid",
        "dataset": "market1501",
        "protocol": "market1501",
        "subsets": {
            "train": {"ids": 2, "images": 4, "cameras": 2, "distractors": 0, "junk": 0},
            "query": {"ids": 2, "images": 2, "cameras": 1, "distractors": 0, "junk": 0},
            "gallery": {"ids": 2, "images": 4, "cameras": 1, "distractors": 1, "junk": 1},
        },
        "crops": {
            "quantiles": {
                "height": [64] * 5,
                "width": [32] * 5,
                "height by width": [2] * 5,
            },
            "useless": {
                "of one colour": 0,
                "nearly black": 0,
                "smaller than 32x16 (rows x columns)": 0,
                "wider than high": 0,
            },
        },
    }
    sheets = sorted(path.name for path in (tmp_path / "reid" / "preview").iterdir())
    assert sheets == ["gallery.png", "query.png", "train.png"]


def test_counts_that_are_not_the_published_ones_are_told(market, tmp_path, caplog):
    assert prepare(tmp_path, "market1501", market) == 0
    assert (
        "differs from the published set: query: 2 images of 2 identities; 3,368 of 750 were"
        in caplog.text
    )


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_an_archive_gives_the_bytes_that_its_folder_gives(market, tmp_path, kind):
    assert prepare(tmp_path / "folder", "market1501", market) == 0
    packed = shutil.make_archive(str(tmp_path / "packed"), kind, market.parent, market.name)
    assert prepare(tmp_path / "archive", "market1501", packed) == 0
    manifests = [tmp_path / how / "reid" / "manifest.json" for how in ("folder", "archive")]
    assert manifests[0].read_bytes() == manifests[1].read_bytes()


@pytest.mark.s3
def test_an_archive_in_a_bucket_is_read_as_it_is(market, tmp_path, s3):
    packed = Path(shutil.make_archive(str(tmp_path / "market"), "zip", market))
    open_storage(s3).put_file("raw/market.zip", packed)
    assert prepare(tmp_path / "a", "market1501", f"{s3}/raw/market.zip") == 0
    for path in sorted(p for p in market.rglob("*") if p.is_file()):
        open_storage(f"{s3}/raw/v1.5").put_file(path.relative_to(market).as_posix(), path)
    assert prepare(tmp_path / "b", "market1501", f"{s3}/raw/v1.5") == 0  # a folder, for all its dot
    assert known(tmp_path / "a") == known(tmp_path / "b")
    assert len(known(tmp_path / "a")) == 10


@pytest.mark.s3
def test_a_table_in_a_bucket_comes_with_its_images(table, tmp_path, s3):
    for path in sorted(p for p in table.rglob("*") if p.is_file()):
        open_storage(f"{s3}/own").put_file(path.relative_to(table).as_posix(), path)
    assert prepare(tmp_path / "a", "csv", f"{s3}/own/own.csv") == 0
    assert prepare(tmp_path / "b", "csv", table / "own.csv") == 0
    assert known(tmp_path / "a") == known(tmp_path / "b")
    assert len(known(tmp_path / "a")) == 9


def test_what_is_wrong_is_refused_in_one_line_with_counts(market, tmp_path, capsys, caplog):
    (market / "query" / "holiday.jpg").write_bytes(b"")
    broken = market / "bounding_box_train" / "0007_c1s1_000551_00.jpg"
    broken.write_bytes(broken.read_bytes()[:-40])
    gallery = market / "bounding_box_test"
    shutil.copy(market / "query" / "0003_c1s1_000001_00.jpg", gallery)
    assert prepare(tmp_path, "market1501", market) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        "prepare_reid: 1 unknown name: query/holiday.jpg (does not look like 0002_c1s1_0004"
    )
    assert "; 1 damaged image: bounding_box_train/0007_c1s1_000551_00.jpg (" in line
    assert (
        "; 1 duplicate image: bounding_box_test/0003_c1s1_000001_00.jpg (the same as query" in line
    )
    assert line.endswith("; repair them, or leave them out with --skip-bad")
    assert not (tmp_path / "reid").exists()
    assert caplog.text.count("duplicate image: ") == 1  # and each is named in the log


def test_what_was_published_twice_in_a_split_is_kept_and_told(market, tmp_path, caplog):
    gallery = market / "bounding_box_test"
    twin = gallery / "0003_c3s1_000009_01.jpg"
    shutil.copy(gallery / "0003_c2s1_000002_01.jpg", twin)
    assert prepare(tmp_path, "market1501", market) == 0
    assert f"kept as published: 1 duplicate image: bounding_box_test/{twin.name} (" in caplog.text
    assert len(known(tmp_path)) == 11


def table_of_ann(table):
    """A table of one person, in train and in test."""
    rows = [f"ann/{i}.jpg,ann,{split}" for i, split in enumerate(("train", "query", "gallery"))]
    (table / "own.csv").write_text("\n".join(["path,pid,split", *rows]) + "\n")
    return table


def test_people_that_are_trained_and_tested_on_are_told(table, tmp_path, caplog):
    assert prepare(tmp_path, "csv", table_of_ann(table)) == 0
    assert (
        "1 of 1 identities in query and gallery are in train or val too, such as ann" in caplog.text
    )


def test_what_is_wrong_may_be_left_out_and_is_listed(market, tmp_path, caplog):
    (market / "query" / "holiday.jpg").write_bytes(b"")
    assert prepare(tmp_path, "market1501", market, "--skip-bad") == 0
    assert "left out: 1 unknown name: query/holiday.jpg" in caplog.text
    assert provenance(tmp_path)["skipped"] == [
        {
            "kind": "unknown name",
            "name": "query/holiday.jpg",
            "detail": "does not look like 0002_c1s1_000451_03.jpg",
        }
    ]
    assert len(known(tmp_path)) == 10


def test_what_is_wrong_in_a_split_that_is_not_used_is_told_and_passed_over(
    market, table, tmp_path, caplog
):
    (market / "query" / "holiday.jpg").write_bytes(b"")
    flags = ["--target", "csv:test=0.5", "--target-source", str(table)]
    assert prepare(tmp_path, "market1501", market, *flags) == 0
    said = "in unused splits of market1501: 1 unknown name: query/holiday.jpg"
    assert said in caplog.text
    assert "skipped" not in provenance(tmp_path)


def test_images_whose_textures_would_have_one_name_are_refused(tmp_path, make, capfd):
    shots = ("0.jpg", "1.jpg", "1.png")
    own = make("own", [f"{person}/{shot}" for person in ("ann", "bob") for shot in shots])
    assert prepare(tmp_path, "folders:test=0", own) == 1
    said = "2 ambiguous names: ann/1.png (it differs from ann/1.jpg only in its ending), bob"
    assert said in capfd.readouterr().err
    assert prepare(tmp_path, "folders:test=0", own, "--skip-bad") == 0
    assert len(known(tmp_path)) == 4


def test_set_of_which_nothing_can_be_taken_is_refused_with_the_causes(tmp_path, capfd):
    (tmp_path / "own").mkdir()
    for name in ("a.jpg", "b.png"):
        (tmp_path / "own" / name).write_bytes(name.encode())
    assert prepare(tmp_path, "images", tmp_path / "own", "--skip-bad") == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert "2 damaged images: a.jpg (5 bytes that are not one of JPEG, PNG, " in line
    assert line.endswith("; no image is left")


def test_one_set_is_trained_on_and_another_tested(market, table, tmp_path):
    flags = ["--target", "csv:test=0.5", "--target-source", str(table)]
    assert prepare(tmp_path, "market1501", market, *flags) == 0
    found = known(tmp_path)
    assert [record for record in found if record[0] == "train"] == [
        ("train", "market1501/bounding_box_train/0002_c1s1_000451_00.jpg", 2, 0),
        ("train", "market1501/bounding_box_train/0002_c2s1_000452_00.jpg", 2, 1),
        ("train", "market1501/bounding_box_train/0007_c1s1_000551_00.jpg", 7, 0),
        ("train", "market1501/bounding_box_train/0007_c2s1_000552_00.jpg", 7, 1),
    ]
    tested = [record for record in found if record[0] != "train"]
    assert {name.partition("/")[0] for _, name, _, _ in tested} == {"csv"}
    number = {"ann": 8, "bob": 9, "cid": 10}  # after person 7 of the other set
    assert all(pid == number[name.split("/")[1]] for _, name, pid, _ in tested)
    assert sorted(split for split, *_ in tested) == ["gallery"] * 4 + ["query"] * 2
    told = provenance(tmp_path)
    assert (told["target"], told["target_pids_follow"]) == ("csv:test=0.5", 7)
    assert told["protocol"] == "camera-free"


def test_synthetic_people_train_for_real_ones(market, tmp_path):
    flags = ["--dataset", "synthetic", "--identities", "6", "--cameras", "2", "--shots", "1"]
    flags += ["--image-height", "64", "--target", "market1501", "--target-source", str(market)]
    assert main(["prepare_reid", "--reid", str(tmp_path / "reid"), *flags]) == 0
    found = known(tmp_path)
    assert {pid for split, _, pid, _ in found if split == "train"} == {1, 2, 3, 4}
    assert {pid for split, _, pid, _ in found if split == "gallery"} == {5, 7, 0, -1}
    assert {name.partition("/")[0] for _, name, _, _ in found} == {"synthetic", "market1501"}


def test_what_describes_synthetic_people_is_warned_of_where_there_are_none(
    market, tmp_path, caplog
):
    assert prepare(tmp_path, "market1501", market, "--difficulty", "hard", "--shots", "3") == 0
    said = [r.getMessage() for r in caplog.records if "is synthetic" in r.getMessage()]
    # 3 shots are the default
    assert said == ["difficulty hard has no effect: no data set is synthetic"]


def test_real_people_train_for_synthetic_ones(market, tmp_path):
    flags = ["--identities", "6", "--cameras", "2", "--shots", "2", "--image-height", "64"]
    assert prepare(tmp_path, "market1501", market, *flags, "--target", "synthetic") == 0
    found = known(tmp_path)
    assert {pid for split, _, pid, _ in found if split == "query"} == {8, 9}
    assert {pid for split, _, pid, _ in found if split == "train"} == {2, 7}


def test_one_data_set_in_two_places_keeps_apart(table, tmp_path, make):
    other = make(
        "other", [f"{person}/{shot}.jpg" for person in ("ann", "zoe") for shot in range(3)]
    )
    (other / "all.csv").write_text(
        "path,pid,split\nann/0.jpg,ann,query\nann/1.jpg,ann,gallery\nzoe/1.jpg,zoe,gallery\n"
    )
    flags = ["--target", "csv", "--target-source", str(other)]
    assert prepare(tmp_path, "csv:test=0", table, *flags) == 0
    assert [r for r in known(tmp_path) if r[0] != "train"] == [
        ("query", "csv-target/ann/0.jpg", 4, None),
        ("gallery", "csv-target/ann/1.jpg", 4, None),
        ("gallery", "csv-target/zoe/1.jpg", 5, None),
    ]


@pytest.fixture
def spaced(make):
    """A table with splits, in a folder with a blank in its name."""
    folder = make(
        "my sets/other", [f"{who}/{shot}.jpg" for who in ("ann", "zoe") for shot in (0, 1)]
    )
    rows = ["ann/0.jpg,ann,3,query", "ann/1.jpg,ann,4,gallery", "zoe/1.jpg,zoe,4,gallery"]
    (folder / "all.csv").write_text("\n".join(["path,pid,camid,split", *rows]) + "\n")
    return folder


def test_several_sets_are_tested_on_each_with_people_and_protocol_of_its_own(
    market, table, spaced, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    places = f"{table} {str(spaced).replace(' ', '%20')}"
    flags = ["--target", "csv:test=0.5+csv", "--target-source", places]
    assert prepare(tmp_path, "market1501", market, *flags) == 0
    found = known(tmp_path)
    assert {pid for split, _, pid, _ in found if split == "train"} == {2, 7}
    assert [r for r in found if r[1].startswith("csv-target/")] == [
        ("query", "csv-target/ann/0.jpg", 10, 3),  # after persons 8 and 9 of the set before
        ("gallery", "csv-target/ann/1.jpg", 10, 4),
        ("gallery", "csv-target/zoe/1.jpg", 11, 4),
    ]
    told = provenance(tmp_path)
    assert [(part["name"], part["prefix"], part["protocol"]) for part in told["parts"]] == [
        ("market1501", "market1501/", "market1501"),
        ("csv:test=0.5", "csv/", "camera-free"),
        ("csv", "csv-target/", "market1501"),
    ]
    assert told["parts"][2]["counts"]["gallery"]["images"] == 2
    assert told["subsets"]["gallery"]["images"] == 6
    assert told["protocol"] == "camera-free"
    assert "csv-target/gallery       2         2        1" in caplog.text


def test_several_sets_are_learned_and_tested_on_together(market, spaced, tmp_path):
    places = f"{market} {str(spaced).replace(' ', '%20')}"
    (spaced / "all.csv").write_text((spaced / "all.csv").read_text() + "zoe/0.jpg,xan,0,train\n")
    flags = ["prepare_reid", "--reid", str(tmp_path / "reid"), "--dataset", "market1501+csv"]
    assert main([*flags, "--source", places]) == 0
    trained = {
        (name.partition("/")[0], pid) for split, name, pid, _ in known(tmp_path) if split == "train"
    }
    assert trained == {("market1501", 2), ("market1501", 7), ("csv", 9)}
    assert {pid for split, _, pid, _ in known(tmp_path) if split == "query"} == {1, 3, 8}
    assert "target" not in provenance(tmp_path)


def test_a_set_is_learned_as_a_whole_beside_another_that_is_tested(
    market, spaced, tmp_path, caplog
):
    rows = "zoe/0.jpg,xan,1,train\n"
    (spaced / "all.csv").write_text((spaced / "all.csv").read_text() + rows)
    places = f"{market} {str(spaced).replace(' ', '%20')}"
    flags = ["prepare_reid", "--reid", str(tmp_path / "reid"), "--dataset", "market1501+csv:all"]
    caplog.set_level(logging.INFO)
    assert main([*flags, "--source", places]) == 0
    trained = [r for r in known(tmp_path) if r[0] == "train" and r[1].startswith("csv/")]
    assert [(name, pid, camid) for _, name, pid, camid in trained] == [
        ("csv/ann/0.jpg", 8, 5),  # after person 7 and cameras 0 and 1
        ("csv/ann/1.jpg", 8, 6),
        ("csv/zoe/1.jpg", 10, 6),
        ("csv/zoe/0.jpg", 9, 3),
    ]
    assert {pid for split, _, pid, _ in known(tmp_path) if split == "query"} == {1, 3}
    told = provenance(tmp_path)
    assert told["dataset"] == "market1501+csv:all"
    assert told["parts"][1]["counts"]["train"]["cameras"] == 3
    assert told["subsets"]["train"]["cameras"] == 5
    warning = "option all trains on 3 test images of csv: scores on csv are not"
    assert any(line.startswith(warning) for line in told["warnings"])
    assert warning in caplog.text
    assert "csv/train" in caplog.text


def test_boxes_are_cut_out_of_frames_once_with_facts_and_counts(tmp_path, picture, caplog):
    (tmp_path / "street").mkdir()
    rows = ["path,pid,camid,x,y,width,height,weather"]
    for number in range(4):
        (tmp_path / f"street/{number}.jpg").write_bytes(
            encode_jpeg(picture(number, 80, 90), quality=90)
        )
        rows += [f"{number}.jpg,{pid},{number % 2},{30 * pid},5,30,70,rain" for pid in range(3)]
    rows[1] = rows[1].replace(",0,5,", ",-4,5,")
    (tmp_path / "street/boxes.csv").write_text("\n".join(rows) + "\n")
    assert prepare(tmp_path, "csv:test=0.6", tmp_path / "street") == 0
    with ImageSet.open(tmp_path / "reid") as images:
        assert len(images.records) == 12
        assert {record.name.rpartition(".")[2] for record in images.records} == {"png"}
        assert all(r.fields["facts"] == {"weather": "rain"} for r in images.records)
        shapes = {decode(images.read(record)).shape for record in images.records}
    assert shapes == {(70, 30, 3), (70, 26, 3)}
    told = "1 of 12 boxes reach beyond their frames and were cut at the border: 0_-4_5_30x70.png"
    assert told in provenance(tmp_path)["warnings"]
    assert told in caplog.text


def test_own_images_without_splits_are_learned_as_a_whole(table, tmp_path):
    assert prepare(tmp_path, "csv:all", table) == 0
    assert {(split, pid) for split, _, pid, _ in known(tmp_path)} == {
        ("train", 1),
        ("train", 2),
        ("train", 3),
    }
    assert "warnings" not in provenance(tmp_path)


def test_an_image_of_both_sets_is_found_by_its_bytes(table, tmp_path, capsys):
    other = shutil.copytree(table, tmp_path / "other")
    flags = ["--target", "csv:test=0.5", "--target-source", str(other)]
    assert prepare(tmp_path, "csv:test=0", table, *flags) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "duplicate images: csv-target/" in line
    assert ".jpg (the same as csv/" in line


@pytest.mark.parametrize(
    ("dataset", "flags", "message"),
    [
        ("market1501", ["--target", "partial"], "target partial needs --target-source, its folder"),
        (
            "market1501",
            ["--target", "csv+msmt17", "--target-source", "{own}"],
            "target_source has 1 places, and target names 2 data sets with a place (csv, msmt17)",
        ),
        ("market1501", ["--target-source", "x"], "target_source is x, but target is empty"),
        (
            "market1501",
            ["--target", "images", "--target-source", "{own}"],
            "target images has no identities, so it cannot be used for testing",
        ),
        (
            "images",
            ["--target", "csv", "--target-source", "{own}"],
            "data set images has no images",
        ),
        ("synthetic", [], "dataset is synthetic, which is rendered and has no source"),
        ("market1501", ["--target", "duke"], "no data set 'duke'; there are synthetic, market1501"),
        ("market1501:muti", [], "data set market1501 has no option 'muti'; it takes multi, 500k"),
        ("msmt17", [], "is not MSMT17: neither it nor a folder in it holds list_train.txt"),
        ("cuhk03", [], "nor a folder in it has cuhk-03.mat"),
        ("partial", [], "is not a set of partial images"),
        ("csv", [], "has no .csv with the columns path, pid, camid, split"),
    ],
)
def test_a_wrong_call_ends_in_one_clear_line(
    market, table, tmp_path, capsys, dataset, flags, message
):
    flags = [flag.format(own=table) for flag in flags]
    assert prepare(tmp_path, dataset, market, *flags) == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("prepare_reid: ")
    assert message in line
    assert not (tmp_path / "reid").exists()


def evaluated(tiny, tmp_path, *flags):
    """The report on a prepared set, by the network of the tiny run."""
    outputs = ("report", "report-page", "scores", "roc")
    out = [f"--{name}={tmp_path}/{name}" for name in outputs]
    reid, features = f"--dataset={tmp_path}/reid", f"--features={tmp_path}/features"
    assert main(["extract_features", reid, f"--model={tiny.model}", features]) == 0
    assert main(["evaluate", features, reid, *out, *flags]) == 0
    return json.loads((tmp_path / "report" / "report.json").read_bytes())


def test_people_without_cameras_are_scored_camera_free(tiny, table, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert prepare(tmp_path, "csv", table) == 0
    assert "queries are scored camera-free, against the whole gallery" in caplog.text
    report = evaluated(tiny, tmp_path)
    assert (report["protocol"], report["num_query"], report["num_gallery"]) == ("camera-free", 2, 4)
    assert report["roc"]["num_wrong"] == 4  # of two people each is a wrong answer to the other


def test_what_was_warned_of_stands_in_manifest_report_and_page(tiny, table, tmp_path, capsys):
    assert prepare(tmp_path, "csv", table_of_ann(table)) == 0
    warning = "1 of 1 identities in query and gallery are in train or val too, such as ann: scores"
    assert f"warning: {warning}" in capsys.readouterr().err
    told, alone = provenance(tmp_path)["warnings"]
    assert told == f"{warning} will be too high"
    assert alone == "query and gallery show 1 identity: every answer is right"
    hollow = "no query has a wrong match left in the gallery: every score is perfect, whatever"
    found = evaluated(tiny, tmp_path)["warnings"]
    assert found == [told, alone, f"{hollow} the model"]
    page = (tmp_path / "report-page").read_text()
    assert f"<h2>Warnings</h2>\n<ul><li>{told}</li><li>{alone}</li>" in page
    assert f" warning: {told}\n" in capsys.readouterr().err


def test_queries_that_nobody_can_answer_are_told_with_the_scores(tiny, make, tmp_path, capsys):
    files = {
        "query/ann/hall": 2,
        "gallery/ann/hall": 1,  # by the query's own camera
        "query/bob/hall": 1,
        "gallery/bob/door": 1,
        "train/cid/hall": 2,
        "train/dan/hall": 2,
    }
    own = make("own", [f"{folder}/{i}.jpg" for folder, n in files.items() for i in range(n)])
    assert prepare(tmp_path, "folders", own) == 0
    said = "2 of 3 queries show identities whose gallery images are all by the query's own camera"
    assert f"warning: {said}" in capsys.readouterr().err
    report = evaluated(tiny, tmp_path)
    assert report["num_skipped"] == 2
    assert json.loads((tmp_path / "scores").read_bytes())["num_skipped"] == 2
    told = "2 of 3 queries have no correct match in the gallery and are not scored"
    assert report["warnings"][1] == told
    assert f" warning: {told}\n" in capsys.readouterr().err
    page = (tmp_path / "report-page").read_text()
    assert "<b>bob</b>" in page
    assert "<span>cam door</span>" in page
    assert report["cameras"] == {"0": "door", "1": "hall"}


def test_a_set_without_test_matches_is_refused_before_training(tiny, make, tmp_path, capsys):
    names = [f"{split}/ann/hall/{i}.jpg" for split in ("query", "gallery") for i in (1, 2)]
    own = make("own", [*names, "train/bob/hall/1.jpg"])
    assert prepare(tmp_path, "folders", own) == 1
    (*_, line) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "prepare_reid: none of the 2 queries can be scored: 2 show identities whose"
    )
    assert "folders:camera-free" in line
    assert not (tmp_path / "reid").exists()
    assert prepare(tmp_path, "folders:camera-free", own) == 0
    report = evaluated(tiny, tmp_path)
    assert (report["protocol"], report["num_skipped"], report["rank1"]) == ("camera-free", 0, 1)


def test_images_of_other_formats_are_kept_as_png_and_counted(make, tmp_path, capsys):
    own = make("own", [f"{person}/{i}.jpg" for person in ("ann", "bob") for i in range(2)])
    with Image.open(own / "ann" / "0.jpg") as image:
        image.save(own / "ann" / "2.webp")
        image.save(own / "ann" / "3.bmp")
        image.putalpha(0)
        image.save(own / "bob" / "1.png")
    (own / "bob" / "1.jpg").unlink()
    assert prepare(tmp_path, "folders:test=0", own) == 0
    told = capsys.readouterr().err
    assert " kept as PNG: 1 BMP, 1 WebP\n" in told
    assert " transparent, so put on a white background: 1\n" in told
    assert provenance(tmp_path)["kept_as_png"] == {"BMP": 1, "WebP": 1}
    names = [name for _, name, _, _ in known(tmp_path)]
    assert names == ["ann/0.jpg", "ann/1.jpg", "ann/2.png", "ann/3.png", "bob/0.jpg", "bob/1.png"]


def test_a_data_set_is_scored_by_its_own_protocol(tiny, tmp_path):
    write_release(tmp_path / "cuhk03")
    assert prepare(tmp_path, "cuhk03:classic=2", tmp_path / "cuhk03") == 0
    assert provenance(tmp_path)["protocol"] == "single-gallery-shot"
    report = evaluated(tiny, tmp_path)
    assert (report["protocol"], report["leaves_out_as"]) == ("single-gallery-shot", "market1501")
    assert report["mAP"] == report["mAP_of_draw"]
    assert "mINP" not in report
    assert report["protocols"] == []
    report = evaluated(tiny, tmp_path, "--protocol", "market1501")
    assert report["protocols"] == []


def test_names_with_line_ends_of_unicode_are_scored(tiny, make, tmp_path):
    names = [f"{person}/{shot}\u2028.jpg" for person in ("ann", "bob", "cid") for shot in range(2)]
    assert prepare(tmp_path, "folders", make("odd", names)) == 0
    report = evaluated(tiny, tmp_path)
    assert (report["num_query"], report["num_gallery"]) == (2, 2)


def test_scores_of_one_person_are_perfect_and_said_to_be_hollow(tiny, make, tmp_path, caplog):
    names = ["train/ann/0.jpg", "train/cid/0.jpg", "query/bob/0.jpg", "gallery/bob/1.jpg"]
    assert prepare(tmp_path, "folders", make("one", names)) == 0
    assert "query and gallery show 1 identity: every answer is right" in caplog.text
    assert evaluated(tiny, tmp_path)["mAP"] == 1
    assert "no query has a wrong match left in the gallery: every score is perf" in caplog.text


def test_the_figures_follow_the_rule_of_the_first_protocol(tiny, make, tmp_path):
    shown = [("ann", "hall"), ("bob", "hall"), ("cid", "hall")]  # one camera: by market1501 none
    names = [
        f"{split}/{who}/{where}/{split}.jpg"
        for who, where in shown
        for split in ("query", "gallery")
    ]
    assert prepare(tmp_path, "folders:camera-free", make("hall", names)) == 0
    report = evaluated(tiny, tmp_path, "--protocol", "single-gallery-shot:camera-free")
    assert report["protocol"] == "single-gallery-shot:camera-free"
    assert (report["leaves_out_as"], report["num_skipped"]) == ("camera-free", 0)


def test_boxes_of_multi_query_are_pooled_with_the_queries(tiny, market, tmp_path):
    assert prepare(tmp_path, "market1501:multi", market) == 0
    report = evaluated(tiny, tmp_path, "--protocol", "market1501,multi-query")
    assert report["num_query"] == 2
    (multi,) = (p for p in report["protocols"] if p["protocol"] == "multi-query")
    assert multi["num_query"] == 2  # of four boxes


def test_the_authors_folder_is_taken_as_it_is(tmp_path):
    """Data set and textures lie as in the README of the authors' code."""
    root = tmp_path / "cuhk03"
    write_release(root)
    for kind in ("labeled", "detected"):
        write_protocol(root, kind)
    (root / "texture_cuhk03_labeled").mkdir()
    for i, (name, _, _) in enumerate(PROTOCOL_ROWS):  # there is one for every image
        texture = np.full((64, 64, 3), 10 * i, np.uint8)
        (root / "texture_cuhk03_labeled" / name).write_bytes(encode_png(texture))
    assert prepare(tmp_path, "cuhk03", root) == 0
    command = ["seal_textures", "--dataset", f"{tmp_path}/reid", "--textures", f"{tmp_path}/sealed"]
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", root, "texture_cuhk03_labeled")
    for source in (root, root / "texture_cuhk03_labeled", packed):
        destination = ["--destination", f"{tmp_path}/kept", "--source", str(source)]
        assert main([*command, *destination]) == 0
        sealed = read_manifest(tmp_path / "sealed")
        with ImageSet.open(Path(sealed["uri"].removeprefix("file://"))) as textures:
            pairs = {record.fields["image"]: textures.read(record) for record in textures.records}
        assert pairs == {
            f"images_labeled/{name}": (root / "texture_cuhk03_labeled" / name).read_bytes()
            for name, _, split in PROTOCOL_ROWS
            if split == "train"
        }


def split_of_people(folder):
    rows = (folder / "split.csv").read_text(encoding="utf-8").splitlines()
    assert rows.pop(0) == "person,camera,split"
    told = {"query": "test", "gallery": "test"}
    return {row.split(",")[0]: told.get(row.split(",")[2], row.split(",")[2]) for row in rows}


PEOPLE = [f"{person}/{camera}/{n}.jpg" for person in "abdeiz" for camera in "vw" for n in (1, 2)]


def test_who_is_tested_is_written_with_the_set(make, tmp_path):
    assert prepare(tmp_path, "folders", make("own", PEOPLE)) == 0
    table = (tmp_path / "reid" / "split.csv").read_bytes()
    assert table.startswith(b"person,camera,split\na,v,gallery\na,v,query\na,w,gallery\n")
    sides = split_of_people(tmp_path / "reid")
    assert sides == dict.fromkeys("ab", "test") | dict.fromkeys("deiz", "train")


def test_the_table_of_an_older_set_keeps_everybody_on_their_side(make, tmp_path, capsys):
    table = tmp_path / "old.csv"
    table.write_text("person,split\na,train\ne,query\nz,gallery\ni,val\n")
    own = make("own", PEOPLE)
    for name in ("one", "two"):
        kept = tmp_path / name / "split.csv"
        kept.parent.mkdir()
        shutil.copy(table, kept)
        assert prepare(tmp_path / name, f"folders:split={kept}", own) == 0
        sides = split_of_people(tmp_path / name / "reid")
        assert sides == {**dict.fromkeys("ad", "train"), **dict.fromkeys("bez", "test"), "i": "val"}
    manifests = [(tmp_path / n / "reid" / "manifest.json").read_bytes() for n in ("one", "two")]
    assert manifests[0] == manifests[1]
    table.write_text("person,split\na,train\na,query\n")
    assert prepare(tmp_path / "three", f"folders:split={table}", own) == 1
    assert (
        "old.csv line 3: a is in query, and in train above; an identity has"
        in capsys.readouterr().err
    )


def test_a_data_set_with_splits_of_its_own_takes_no_table(make, tmp_path, capsys):
    own = make("own", [f"{s}/a/v/{s}.jpg" for s in ("train", "query", "gallery")])
    assert prepare(tmp_path, "folders:split=x.csv", own) == 1
    assert "has splits of its own; option split has no effect" in capsys.readouterr().err


def test_people_of_a_target_keep_their_numbers_by_name(market, table, tmp_path):
    flags = ["--target", "market1501", "--target-source", str(market)]
    assert prepare(tmp_path, "csv:test=0", table, *flags) == 0
    with ImageSet.open(tmp_path / "reid") as images:
        asked = {(r.pid, r.fields["person"]) for r in images.records if r.split == "query"}
    assert asked == {(4, "1"), (6, "3")}


def test_useless_crops_are_told_and_left_out_where_the_data_set_is_to(make, tmp_path, caplog):
    own = make("own", PEOPLE)
    for person in "ad":
        grey = np.full((64, 32, 3), ord(person), np.uint8)
        (own / person / "v" / "3.jpg").write_bytes(encode_jpeg(grey, quality=90))
    assert prepare(tmp_path, "folders", own) == 0
    line = (
        "2 of 26 images are of one colour, such as a/v/3.jpg; option no-blank (of csv, folders "
        "and file_names) leaves them out"
    )
    assert line in caplog.text
    assert line in provenance(tmp_path)["warnings"]
    assert provenance(tmp_path)["crops"]["useless"]["of one colour"] == 2
    assert prepare(tmp_path, "folders:no-blank,min_size=32x16", own) == 0
    assert len(known(tmp_path)) == 24
    assert provenance(tmp_path)["warnings"] == ["left out as requested: 2 of one colour"]
