"""Market-1501's folder in its published form, and the table of what a data set holds."""

from pathlib import Path

import pytest

from san_core.data import market1501, records
from san_core.data.records import Listed, Subset

IMAGES = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c2s1_000776_01.jpg"],
    "query": ["0001_c1s1_001051_00.jpg", "0003_c6s4_010077_00.jpg"],
    "bounding_box_test": [
        "-1_c1s1_000401_03.jpg",
        "0000_c1s1_000151_01.jpg",
        "0000_c3s3_077419_05.jpg",
        "0001_c2s1_000301_01.jpg",
        "0003_c5s2_049107_02.jpg",
    ],
}


@pytest.fixture
def market(tmp_path) -> Path:
    root = tmp_path / "Market-1501-v15.09.15"
    for folder, names in IMAGES.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / name).write_bytes(f"bytes of {name}".encode())
        (root / folder / "Thumbs.db").write_bytes(b"litter")
    for folder in ("gt_bbox", "gt_query"):
        (root / folder).mkdir()
    (root / "readme.txt").write_text("Market-1501")
    return root


def test_the_published_layout_is_listed(market):
    listing = market1501.listing(market)
    assert [(image.split, image.name, image.pid, image.camid) for image in listing] == [
        ("train", "bounding_box_train/0002_c1s1_000451_03.jpg", 2, 0),
        ("train", "bounding_box_train/0002_c2s1_000776_01.jpg", 2, 1),
        ("query", "query/0001_c1s1_001051_00.jpg", 1, 0),
        ("query", "query/0003_c6s4_010077_00.jpg", 3, 5),
        ("gallery", "bounding_box_test/-1_c1s1_000401_03.jpg", -1, 0),
        ("gallery", "bounding_box_test/0000_c1s1_000151_01.jpg", 0, 0),
        ("gallery", "bounding_box_test/0000_c3s3_077419_05.jpg", 0, 2),
        ("gallery", "bounding_box_test/0001_c2s1_000301_01.jpg", 1, 1),
        ("gallery", "bounding_box_test/0003_c5s2_049107_02.jpg", 3, 4),
    ]
    assert listing[0].read() == b"bytes of 0002_c1s1_000451_03.jpg"


def test_the_folder_around_the_release_will_do(market):
    names = [image.name for image in market1501.listing(market.parent)]
    assert names == [image.name for image in market1501.listing(market)]


@pytest.mark.parametrize("litter", ["Thumbs.db", "readme.txt", ".DS_Store", "._0002_c1s1.jpg"])
def test_litter_is_passed_over(market, litter):
    before = len(market1501.listing(market))
    (market / "query" / litter).write_bytes(b"litter")
    assert len(market1501.listing(market)) == before


@pytest.mark.parametrize("name", ["-1_c1s1_000001_00.jpg", "0000_c1s1_000001_00.jpg"])
def test_boxes_of_nobody_are_never_trained_on(market, name):
    (market / "bounding_box_train" / name).write_bytes(b"")
    train = [image for image in market1501.listing(market) if image.split == "train"]
    assert [image.pid for image in train] == [2, 2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0002_c1s1_000451_03.png", r"0002_c1s1_000451_03.png is not named as Market"),
        ("notes.md", "notes.md is not named as Market-1501's images are: expected PERSON_c"),
        ("12_c1s1_000451_03.jpg", "12_c1s1_000451_03.jpg is not named"),
        ("0002_c0s1_000451_03.jpg", "camera 0; Market-1501 has cameras 1 to 6"),
        ("0002_c7s1_000451_03.jpg", "camera 7; Market-1501 has cameras 1 to 6"),
        ("0002_c16s1_000451_03.jpg", "camera 16;"),
        ("-1_c1s1_000451_03.jpg", "a query must show a person, and pid -1 is none"),
        ("0000_c1s1_000451_03.jpg", "a query must show a person, and pid 0 is none"),
    ],
)
def test_a_file_that_is_no_query_is_refused_by_name(market, name, message):
    (market / "query" / name).write_bytes(b"")
    with pytest.raises(ValueError, match=message):
        market1501.listing(market)


def test_a_folder_without_images_is_refused(market):
    for path in (market / "query").glob("*.jpg"):
        path.unlink()
    with pytest.raises(ValueError, match="query has no image; names look like 0002_c1s1"):
        market1501.listing(market)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*absent; give that of "):
        market1501.listing(tmp_path / "absent")


def test_an_archive_is_to_be_unpacked(tmp_path):
    archive = tmp_path / "Market-1501-v15.09.15.zip"
    archive.write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="zip is a file; Market-1501 is read from the fold"):
        market1501.listing(archive)


def test_another_folder_is_told_what_it_lacks_and_what_it_holds(tmp_path, market):
    other = tmp_path / "other"
    (other / "query").mkdir(parents=True)
    (other / "holiday.jpg").write_bytes(b"")
    message = (
        "other is not Market-1501: no bounding_box_train, bounding_box_test in it; "
        "it holds holiday.jpg, query. Give the folder Market-1501-v15.09.15 or the one around it"
    )
    with pytest.raises(FileNotFoundError, match=message):
        market1501.listing(other)


def test_an_incomplete_release_is_judged_by_itself_not_by_the_folder_around_it(market):
    for path in (market / "query").iterdir():
        path.unlink()
    (market / "query").rmdir()
    with pytest.raises(FileNotFoundError, match=r"v15.09.15 is not Market-1501: no query in it"):
        market1501.listing(market.parent)


def test_the_summary_counts_people_apart_from_junk_and_distractors(market):
    counts = records.summary(market1501.listing(market))
    assert counts == {
        "train": Subset(ids=1, images=2, cameras=2, distractors=0, junk=0),
        "query": Subset(ids=2, images=2, cameras=2, distractors=0, junk=0),
        "gallery": Subset(ids=2, images=5, cameras=4, distractors=2, junk=1),
    }
    assert records.summary_text(counts).splitlines() == [
        "subset       ids    images  cameras",
        "train          1         2        2",
        "query          2         2        2",
        "gallery        2         5        4",
        "the gallery images include 2 distractors and 1 junk boxes",
    ]


@pytest.mark.parametrize(
    ("pid", "camid", "split", "message"),
    [
        (1, 0, "test", "a.jpg: no split 'test'; there are train, val, query, gallery"),
        (1, -1, "train", "a.jpg: camid -1; cameras are numbered from 0"),
        (0, 0, "train", "a.jpg: pid 0 in split train; people are numbered from 1"),
        (-1, 0, "query", "a.jpg: pid -1 in split query"),
        (-2, 0, "gallery", "a.jpg: pid -2 in split gallery"),
    ],
)
def test_impossible_labels_are_refused(pid, camid, split, message):
    with pytest.raises(ValueError, match=message):
        Listed("a.jpg", pid, camid, split, lambda: b"")
