"""A table with a row for every image."""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from san_core.data.readers.csv_table import listing
from san_core.data.tree import open_tree
from san_core.images.pixels import decode, encode_png

TABLE = """path,pid,camid,split
a/1.jpg,alice,door,train
a/2.jpg,alice,hall,train
"b, c/3.jpg",bob,door,query
./b/4.jpg, bob ,hall,gallery
b/5.jpg,-1,hall,gallery
b/6.jpg,0,hall,gallery
"""
FILES = ("a/1.jpg", "a/2.jpg", "b, c/3.jpg", "b/4.jpg", "b/5.jpg", "b/6.jpg", "b/7.jpg")


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def read(folder, text, **options):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "people.csv").write_bytes(data)
    with open_tree(folder) as tree:
        return listing(tree, options)


def known(images):
    return [(image.split, image.name, image.pid, image.camid, image.fields) for image in images]


EXPECTED = [
    ("train", "a/1.jpg", 1, 0, {"person": "alice", "camera": "door"}),
    ("train", "a/2.jpg", 1, 1, {"person": "alice", "camera": "hall"}),
    ("query", "b, c/3.jpg", 2, 0, {"person": "bob", "camera": "door"}),
    ("gallery", "b/4.jpg", 2, 1, {"person": "bob", "camera": "hall"}),
    ("gallery", "b/5.jpg", -1, 1, {"person": "-1", "camera": "hall"}),
    ("gallery", "b/6.jpg", 0, 1, {"person": "0", "camera": "hall"}),
]


def test_people_and_cameras_may_have_names(folder):
    found = read(folder, TABLE)
    assert known(found.images) == EXPECTED
    assert found.problems == []
    assert found.images[2].read() == b"b, c/3.jpg"


def test_tables_of_spreadsheets_are_read(folder):
    text = "\ufeff" + TABLE.replace("\n", "\r\n")
    assert known(read(folder, text).images) == EXPECTED


@pytest.mark.parametrize("change", [("\n", "\r"), (",", " , "), ("camid", " camid ")])
def test_line_ends_and_blanks_are_those_of_any_program(folder, change):
    (folder / "a/3.jpg").write_bytes(b"")
    plain = TABLE.replace('"b, c/3.jpg"', "a/3.jpg")
    expected = known(read(folder, plain).images)
    assert len(expected) == 6
    assert known(read(folder, plain.replace(*change)).images) == expected


def test_an_empty_column_of_cameras_is_none(folder):
    found = read(folder, "path,pid,camid,split\na/1.jpg,5,,train\na/2.jpg,6, ,train\n")
    assert known(found.images) == [
        ("train", "a/1.jpg", 5, None, {}),
        ("train", "a/2.jpg", 6, None, {}),
    ]
    assert found.problems == []


def test_junk_of_a_table_without_splits_is_a_problem(folder):
    rows = "a/1.jpg,1\na/2.jpg,1\nb/4.jpg,2\nb/5.jpg,-1\n"
    assert read(folder, f"path,pid\n{rows}", test="0").problems == [
        ("wrong row", "people.csv line 5", "pid -1 is junk, which only a gallery may hold")
    ]


def test_an_archive_may_hold_all_in_one_folder(folder, tmp_path_factory):
    read(folder, TABLE)
    place = str(tmp_path_factory.mktemp("packed") / "all")
    packed = shutil.make_archive(place, "zip", folder.parent, folder.name)
    with open_tree(Path(packed)) as tree:
        assert known(listing(tree, {}).images) == EXPECTED


def test_the_table_itself_or_an_archive_of_all_may_be_given(folder, tmp_path_factory):
    read(folder, TABLE)
    (folder / "other.csv").write_text("name\n")
    with open_tree(folder / "people.csv") as tree:
        assert known(listing(tree, {}).images) == EXPECTED
    with (
        open_tree(folder) as tree,
        pytest.raises(ValueError, match=r"several .csv: other.csv, peo"),
    ):
        listing(tree, {})
    (folder / "other.csv").unlink()
    place = tmp_path_factory.mktemp("packed") / "all"
    with open_tree(Path(shutil.make_archive(str(place), "zip", folder))) as tree:
        assert known(listing(tree, {}).images) == EXPECTED


def test_numbers_stay_as_they_are(folder):
    found = read(folder, "path,pid,camid,split\na/1.jpg,0012,3,train\nb/6.jpg,7,1,gallery\n")
    assert known(found.images) == [
        ("train", "a/1.jpg", 12, 3, {}),
        ("gallery", "b/6.jpg", 7, 1, {}),
    ]


def test_people_that_count_from_0_are_people_where_one_is_trained_on(folder):
    found = read(folder, "path,pid,split\na/1.jpg,0,train\na/2.jpg,1,train\nb/4.jpg,10,query\n")
    assert [image.pid for image in found.images] == [1, 2, 3]


def test_without_a_camera_column_cameras_are_unknown(folder):
    found = read(folder, "path,pid,split\na/1.jpg,5,train\n")
    assert known(found.images) == [("train", "a/1.jpg", 5, None, {})]


def test_without_a_split_column_people_are_held_out(folder):
    rows = "a/1.jpg,x\na/2.jpg,x\nb/4.jpg,y\nb/5.jpg,y\nb/6.jpg,z\nb/7.jpg,z\n"
    found = read(folder, f"path,pid\n{rows}", test="0.5")
    of = {s: [i.pid for i in found.images if i.split == s] for s in ("train", "query", "gallery")}
    assert list(map(len, of.values())) == [2, 2, 2]  # two of three people are held out
    assert of["query"] == of["gallery"]
    assert not set(of["query"]) & set(of["train"])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("a/9.jpg,alice,door,train", ("missing image", "a/9.jpg", "people.csv line 8")),
        ("a/1.jpg,bob,door,train", ("wrong row", "people.csv line 8", "a/1.jpg is in line 2 too")),
        ("a/1.jpg,,door,train", ("wrong row", "people.csv line 8", "no pid")),
        ("b/7.jpg,x,,train", ("wrong row", "people.csv line 8", "no camid")),
        (
            "b/7.jpg,x,-1,train",
            ("wrong row", "people.csv line 8", "camid -1: an unknown camera"),
        ),
        ("a/1.jpg,x,door", ("wrong row", "people.csv line 8", "not 4 columns")),
        ("a/1.jpg,x,door,train,y", ("wrong row", "people.csv line 8", "not 4 columns")),
        (
            "../1.jpg,x,door,train",
            (
                "wrong row",
                "people.csv line 8",
                "path '../1.jpg' leads out of the table's folder",
            ),
        ),
        (
            "a/1.jpg,x,door,test",
            (
                "wrong row",
                "people.csv line 8",
                "split 'test' is not one of train, val, query, gallery, multi",
            ),
        ),
        (
            "a/1.jpg,-1,door,train",
            ("wrong row", "people.csv line 8", "pid -1 is junk, which only a gallery may hold"),
        ),
        (
            "a/1.jpg,-01,door,query",
            ("wrong row", "people.csv line 8", "pid -01 is junk, which only a gallery may hold"),
        ),
    ],
)
def test_a_row_that_cannot_be_taken_is_a_problem_by_its_line(folder, row, problem):
    found = read(folder, f"{TABLE}{row}\n")
    assert found.problems == [problem]
    assert known(found.images) == EXPECTED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "people.csv has no column path; its first row is read as nothing; it must have the c",
        ),
        ("path,person\n", "has no column pid"),
        (
            "path,pid,camera\n",
            "has a column 'camera', which may be meant as camid; its first row is read as 'path', ",
        ),
        ("path,pid,camids\n", "has a column 'camids', which may be meant as camid"),
        ("path,pid,camera_id\n", "has a column 'camera_id', which may be meant as camid"),
        ("path,pid,Cam No\n", "has a column 'Cam No', which may be meant as camid"),
        ("path,pid,data_split\n", "has a column 'data_split', which may be meant as split"),
        ("path,pid,split_name\n", "has a column 'split_name', which may be meant as split"),
        ("path,pid,x,y,width,weight\n", "has a column 'weight', which may be meant as height"),
        ("path,pid,W,H\n", "has a column 'W', which may be meant as width"),
        ("path,pid,Split\n", "has a column 'Split', which may be meant as split"),
        ("path,pid,X,y,width,height\n", "has a column 'X', which may be meant as x"),
        ("path,pid,x,y,width\n", "has boxes without height"),
        ("path,pid,\n", "has a column without a name"),
        (
            "path;pid;camid\n",
            r"no column path; its first row is read as 'path;pid;camid': a semicolon \(;\) "
            "separates its columns, and a comma should; it must have the columns path and pid",
        ),
        (
            "path\tpid\n",
            r"is read as 'path\\tpid': a tab separates its columns, and a comma should",
        ),
        ("Path,PID\n", "is read as 'Path', 'PID': columns are named in small letters; it must"),
        (
            "path,pid,camid\na/1.jpg,1,-1\na/2.jpg,2,-1\n",
            "people.csv: camid is -1 in every row; where cameras are unknown, leave the column out",
        ),
        ("path,pid\n", "has no usable row$"),
        ("path,pid,pid\n", "has a column 'pid' twice"),
        ('"path,pid\na/1.jpg,1\n', "people.csv line 2: unexpected end of data"),
        ("path,pid,split\na/1.jpg,5,train\na/2.jpg,05,train\n", "identities '05' and '5' are the"),
        (
            "path,pid\na/1.jpg,5\nx.jpg,5\n",
            r"0 of 1 identities can be .* problems: 1 missing image: x.jpg \(people.csv line 3\)",
        ),
        (
            "path,pid\nx.jpg,1\n",
            r"no usable row; the first is a missing image, x.jpg \(people.csv line 2",
        ),
        ('path,pid\n"a/1.jpg,1\n', "people.csv line 2: unexpected end of data"),
        (b"path,pid\n\xff,1\n", "people.csv is not in UTF-8"),
    ],
)
def test_another_table_is_refused(folder, text, message):
    with pytest.raises(ValueError, match=message):
        read(folder, text)


def test_what_other_columns_tell_is_kept_as_facts_of_the_image(folder):
    text = "path,pid,weather,split,hour\na/1.jpg,1,rain, train ,\na/2.jpg,1,,train,\n"
    found = read(folder, text + "b/4.jpg,1,sun,train,7\n")
    assert [image.fields for image in found.images] == [
        {"facts": {"weather": "rain"}},
        {},
        {"facts": {"weather": "sun", "hour": "7"}},
    ]
    assert found.problems == []


def test_a_column_is_a_fact_where_the_one_it_may_be_meant_as_is_there(folder):
    found = read(folder, "path,pid,camid,camera,split\na/1.jpg,1,0,dome,train\n")
    assert [image.fields for image in found.images] == [{"facts": {"camera": "dome"}}]


def test_a_name_like_that_of_a_side_of_a_box_is_a_fact_where_there_are_no_boxes(folder):
    found = read(folder, "path,pid,weight,split\na/1.jpg,1,71,train\n")
    assert [image.fields for image in found.images] == [{"facts": {"weight": "71"}}]


def test_rows_with_boxes_are_parts_of_frames(folder):
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    (folder / "day").mkdir()
    (folder / "day/7.png").write_bytes(encode_png(frame))
    rows = ["1,0,0,20,40", "2,30,10,40,20", "2,30,10,40,20", "3,1,2,wide,4", "3,1,2,3,"]
    lines = [f"day/7.png,{row},train\n" for row in [*rows, "1,90,0,5,5"]]
    text = "path,pid,x,y,width,height,split\n" + "".join(lines)
    found = read(folder, text)
    assert [(image.name, image.pid) for image in found.images] == [
        ("day/7_0_0_20x40.png", 1),
        ("day/7_30_10_40x20.png", 2),
        ("day/7_90_0_5x5.png", 1),
    ]
    assert [tuple(problem) for problem in found.problems] == [
        ("wrong row", "people.csv line 4", "day/7_30_10_40x20.png is in line 3 too"),
        ("wrong row", "people.csv line 5", "box 1,2,wide,4 is not four numbers"),
        ("wrong row", "people.csv line 6", "no height"),
    ]
    with open_tree(folder) as tree:
        images = listing(tree, {})
        held = [decode(image.read()) for image in images.images[:2]]
        with pytest.raises(ValueError, match="box 90,0,5,5 lies outside the frame of 60x40"):
            images.images[2].read()
    assert np.array_equal(held[0], frame[:, :20])
    assert np.array_equal(held[1], frame[10:30, 30:])
    (warning,) = images.warnings_after_reading()
    assert warning.startswith("1 of 2 boxes reach beyond their frames")


def test_small_boxes_are_left_out_without_a_look_at_the_pixels(folder, monkeypatch):
    frame = np.zeros((40, 60, 3), np.uint8)
    (folder / "7.png").write_bytes(encode_png(frame))
    rows = ["1,0,0,20,40", "2,30,10,5,5", "2,0,0,30,30", "1,55,0,30,40"]
    text = "path,pid,x,y,width,height,split\n" + "".join(f"7.png,{row},train\n" for row in rows)
    monkeypatch.delattr("san_core.data.frames.decode")
    found = read(folder, text, min_size="30x10")
    assert [image.name for image in found.images] == ["7_0_0_20x40.png", "7_0_0_30x30.png"]
    assert found.warnings == ["left out as requested: 2 smaller than 30x10"]


def test_queries_may_be_judged_whatever_the_cameras(folder):
    assert read(folder, TABLE, **{"camera-free": ""}).protocol == "camera-free"
    assert read(folder, TABLE).protocol == ""


def test_a_column_of_splits_and_people_held_out_contradict_each_other(folder):
    with pytest.raises(ValueError, match="has a column split; option test has no effect"):
        read(folder, TABLE, test="0.5")


def test_a_folder_without_a_table_is_refused_with_the_expected_files(tmp_path):
    with (
        open_tree(tmp_path) as tree,
        pytest.raises(
            FileNotFoundError, match=r"has no .csv with the columns path, pid, camid, spl"
        ),
    ):
        listing(tree, {})


@pytest.mark.parametrize("told", [r"a\1.jpg", r".\a\1.jpg"])
def test_paths_of_windows_are_read(folder, told):
    (image,) = read(folder, f"path,pid,split\n{told},alice,train\n").images
    assert image.name == "a/1.jpg"


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_read_whichever_way_they_are_written(folder, forms):
    there, told = (unicodedata.normalize(form, "a/é.jpg") for form in forms)
    (folder / there).write_bytes(b"")
    (image,) = read(folder, f"path,pid,split\n{told},alice,train\n").images
    assert image.name == there != told


def test_one_image_in_two_spellings_is_in_two_rows(folder):
    found = read(folder, "path,pid,split\na/1.jpg,alice,train\na\\1.jpg,bob,train\n")
    assert found.problems == [("wrong row", "people.csv line 3", "a/1.jpg is in line 2 too")]


def test_a_backslash_leads_to_nothing_outside(folder):
    (folder.parent / "x.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"the first is a missing image, \.\.\\x\.jpg"):
        read(folder, "path,pid\n..\\x.jpg,alice\n")
