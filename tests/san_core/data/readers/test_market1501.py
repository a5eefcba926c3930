"""Market-1501's folder in its published form, and the table of what a data set holds."""

from pathlib import Path

import pytest

from san_core.data import records
from san_core.data.readers import market1501
from san_core.data.records import ListedImage, Problem, ProblemsError, PublishedCounts, SplitCounts
from san_core.data.tree import open_tree

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


def listed(folder, **options):
    with open_tree(folder) as tree:
        return market1501.listing(tree, options)


def known(images):
    return [(image.split, image.name, image.pid, image.camid) for image in images]


EXPECTED = [
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


def test_the_published_layout_is_listed(market):
    found = listed(market)
    assert known(found.images) == EXPECTED
    assert found.images[0].read() == b"bytes of 0002_c1s1_000451_03.jpg"
    assert found.problems == []
    assert found.protocol == "market1501"
    assert found.published["train"] == (751, 12936)


def test_the_folder_around_the_release_will_do(market):
    assert known(listed(market.parent).images) == EXPECTED


@pytest.mark.parametrize("litter", ["Thumbs.db", "readme.txt", ".DS_Store", "._0002_c1s1.jpg"])
def test_litter_is_passed_over(market, litter):
    (market / "query" / litter).write_bytes(b"litter")
    found = listed(market)
    assert known(found.images) == EXPECTED
    assert found.problems == []


@pytest.mark.parametrize("name", ["-1_c1s1_000001_00.jpg", "0000_c1s1_000001_00.jpg"])
def test_boxes_of_nobody_are_never_trained_on(market, name):
    (market / "bounding_box_train" / name).write_bytes(b"")
    train = [image for image in listed(market).images if image.split == "train"]
    assert [image.pid for image in train] == [2, 2]


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("0002_c1s1_000451_03.png", "does not look like 0002_c1s1_000451_03.jpg"),
        ("notes.md", "does not look like 0002_c1s1_000451_03.jpg"),
        ("12_c1s1_000451_03.jpg", "does not look like 0002_c1s1_000451_03.jpg"),
        ("0002_c0s1_000451_03.jpg", "camera 0; cameras are 1 to 6"),
        ("0002_c7s1_000451_03.jpg", "camera 7; cameras are 1 to 6"),
        ("0002_c16s1_000451_03.jpg", "camera 16; cameras are 1 to 6"),
        ("-1_c1s1_000451_03.jpg", "a query must show an identity, and pid -1 is not one"),
        ("0000_c1s1_000451_03.jpg", "a query must show an identity, and pid 0 is not one"),
    ],
)
def test_a_file_that_is_no_query_is_a_problem_by_name(market, name, detail):
    (market / "query" / name).write_bytes(b"")
    found = listed(market)
    assert found.problems == [("unknown name", f"query/{name}", detail)]
    assert known(found.images) == EXPECTED


def test_foreign_names_are_reported_once_with_their_count(market):
    for path in (market / "query").glob("0*.jpg"):
        path.rename(path.with_name(f"person {path.name}"))
    message = (
        r"query is not Market-1501's: 2 of 2 names do not look like 0002_c1s1_000451_03\.jpg, such"
        r" as person 0001_c1s1_001051_00\.jpg; for your own images use folders"
        r" \(a folder for each identity\), csv \(a table\) or file_names \(names of your own"
        r" pattern\)$"
    )
    with pytest.raises(ValueError, match=message):
        listed(market)


def test_multi_query_pools_the_boxes_of_a_querys_person_and_camera(market):
    for name in (
        "0001_c1s1_001051_00.jpg",  # the query itself
        "0001_c1s1_001076_00.jpg",
        "0001_c2s1_000301_00.jpg",  # no query of that camera
        "0002_c1s1_000451_00.jpg",  # nobody who is asked for
        "0003_c6s4_010102_00.jpg",
    ):
        (market / "gt_bbox" / name).write_bytes(b"")
    assert known(listed(market, multi="").images) == [
        *EXPECTED,
        ("multi", "gt_bbox/0001_c1s1_001076_00.jpg", 1, 0),
        ("multi", "gt_bbox/0003_c6s4_010102_00.jpg", 3, 5),
    ]
    (market / "gt_bbox").rename(market / "elsewhere")
    with pytest.raises(FileNotFoundError, match="has no gt_bbox, which option multi needs"):
        listed(market, multi="")


@pytest.mark.parametrize("folder", ["images", "../images", "distractors_500k/images"])
def test_distractors_are_added_to_the_gallery_wherever_they_were_unpacked(market, folder):
    place = market / folder
    place.mkdir(parents=True)
    for name in ("0000_c1s1_000001_00.jpg", "-1_c6s2_000002_01.jpg", "0007_c1s1_000003_00.jpg"):
        (place / name).write_bytes(name.encode())
    found = listed(market.parent, **{"500k": ""})
    assert known(found.images) == [
        *EXPECTED,
        ("gallery", "images/-1_c6s2_000002_01.jpg", -1, 5),
        ("gallery", "images/0000_c1s1_000001_00.jpg", 0, 0),
    ]
    assert found.images[-1].read() == b"0000_c1s1_000001_00.jpg"
    ((kind, name, _),) = found.problems
    assert (kind, name.rpartition("/")[2]) == ("unknown name", "0007_c1s1_000003_00.jpg")


def test_absent_distractors_are_refused(market):
    with pytest.raises(FileNotFoundError, match="no distractors, which option 500k needs: none of"):
        listed(market, **{"500k": ""})


def test_a_folder_without_images_is_refused(market):
    for path in (market / "query").glob("*.jpg"):
        path.unlink()
    with pytest.raises(ValueError, match="query has no image; names look like 0002_c1s1"):
        listed(market)


def test_another_folder_is_refused_with_missing_and_found_files(tmp_path, market):
    other = tmp_path / "other"
    (other / "query").mkdir(parents=True)
    (other / "holiday.jpg").write_bytes(b"")
    message = (
        "other is not Market-1501: no bounding_box_train, bounding_box_test in it; "
        "it holds holiday.jpg, query. Give the folder Market-1501-v15.09.15 or the one around it"
    )
    with pytest.raises(FileNotFoundError, match=message):
        listed(other)


def test_an_incomplete_release_is_judged_by_itself_not_by_the_folder_around_it(market):
    for path in (market / "query").iterdir():
        path.unlink()
    (market / "query").rmdir()
    with pytest.raises(FileNotFoundError, match=r"v15.09.15 is not Market-1501: no query in it"):
        listed(market.parent)


def test_the_summary_counts_people_apart_from_junk_and_distractors(market):
    counts = records.count_splits(listed(market).images)
    assert counts == {
        "train": SplitCounts(ids=1, images=2, cameras=2, distractors=0, junk=0),
        "query": SplitCounts(ids=2, images=2, cameras=2, distractors=0, junk=0),
        "gallery": SplitCounts(ids=2, images=5, cameras=4, distractors=2, junk=1),
    }
    assert records.split_table(counts).splitlines() == [
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
        (0, 0, "train", "a.jpg: pid 0 in split train; identities are numbered from 1"),
        (-1, 0, "query", "a.jpg: pid -1 in split query"),
        (-2, 0, "gallery", "a.jpg: pid -2 in split gallery"),
    ],
)
def test_impossible_labels_are_refused(pid, camid, split, message):
    with pytest.raises(ValueError, match=message):
        ListedImage("a.jpg", pid, camid, split, lambda: b"")


def test_counts_are_compared_with_the_published_ones():
    counts = {"train": SplitCounts(2, 12, 2, 0, 0), "query": SplitCounts(1, 3, 2, 0, 0)}
    published = {
        "train": PublishedCounts(2, 12),
        "query": PublishedCounts(1, 1_003),
        "gallery": PublishedCounts(1, 5),
    }
    assert records.differences_from_published(counts, published) == [
        "query: 3 images of 1 identities; 1,003 of 1 were published",
        "gallery: 0 images of 0 identities; 5 of 1 were published",
    ]


def test_a_refusal_counts_problems_by_kind_and_names_ten():
    problems = [Problem("unknown name", f"{i}.jpg") for i in range(12)]
    problems.append(Problem("damaged image", "a.jpg", "cut"))
    error = ProblemsError(problems)
    names = ", ".join(f"{i}.jpg" for i in range(10))
    assert str(error) == f"12 unknown names: {names}, ...; 1 damaged image: a.jpg (cut)"
    assert error.problems == problems
