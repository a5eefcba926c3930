"""MSMT17's two layouts in miniature."""

import pytest

from san_core.data.readers.msmt17 import VERSION_FOLDERS, listing
from san_core.data.tree import open_tree

LISTS = {
    "train": [
        "0000/0000_000_01_0303morning_0015_0.jpg 0",
        "0001/0001_004_15_0305noon_0021_1.jpg 1",
    ],
    "val": ["0000/0000_001_03_0303noon_0020_0.jpg 0"],
    "query": ["0000/0000_000_02_0302afternoon_0044_3.jpg 0"],
    "gallery": [
        "0000/0000_001_04_0302afternoon_0044_3.jpg 0",
        "0001/0001_000_05_0302afternoon_0050_1_ex.jpg 1",
    ],
}


@pytest.fixture(params=VERSION_FOLDERS, ids=["V1", "V2"])
def release(request, tmp_path):
    root = tmp_path / f"MSMT17_V{1 + VERSION_FOLDERS.index(request.param)}"
    train, test = request.param
    for part, lines in LISTS.items():
        folder = train if part in ("train", "val") else test
        for line in lines:
            path = root / folder / line.split()[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(line.encode())
        (root / f"list_{part}.txt").write_bytes("".join(f"{x}\n" for x in lines).encode())
    return root, train, test


def known(images):
    return [(image.split, image.name, image.pid, image.camid) for image in images]


def expected(train, test, val="train"):
    return [
        ("train", f"{train}/0000/0000_000_01_0303morning_0015_0.jpg", 1, 0),
        ("train", f"{train}/0001/0001_004_15_0305noon_0021_1.jpg", 2, 14),
        (val, f"{train}/0000/0000_001_03_0303noon_0020_0.jpg", 1, 2),
        ("query", f"{test}/0000/0000_000_02_0302afternoon_0044_3.jpg", 3, 1),
        ("gallery", f"{test}/0000/0000_001_04_0302afternoon_0044_3.jpg", 3, 3),
        ("gallery", f"{test}/0001/0001_000_05_0302afternoon_0050_1_ex.jpg", 4, 4),
    ]


def test_lists_are_followed_and_people_of_the_test_part_are_others(release):
    root, train, test = release
    for place in (root, root.parent):
        with open_tree(place) as tree:
            found = listing(tree, {})
        assert known(found.images) == expected(train, test)
        assert found.problems == []
        assert found.protocol == "market1501"
        assert found.published["gallery"] == (3060, 82161)
    assert found.images[0].read() == LISTS["train"][0].encode()


def test_val_may_be_a_split_of_its_own(release):
    root, train, test = release
    with open_tree(root) as tree:
        found = listing(tree, {"val": ""})
    assert known(found.images) == expected(train, test, val="val")
    assert found.published == {}


def test_lines_that_cannot_be_followed_are_problems_by_name(release):
    root, train, test = release
    with (root / "list_query.txt").open("a") as file:
        file.write("0009/0009_000_01_0302noon_0044_3.jpg 9\nno line\n\n0000/holiday.jpg 0\n")
        file.write("0000/0000_000_16_0302noon_0044_3.jpg 0\n")
    with open_tree(root) as tree:
        found = listing(tree, {})
    assert known(found.images) == expected(train, test)
    assert [(kind, name) for kind, name, _ in found.problems] == [
        ("missing image", f"{test}/0009/0009_000_01_0302noon_0044_3.jpg"),
        ("wrong row", "list_query.txt line 3"),
        ("unknown name", f"{test}/0000/holiday.jpg"),
        ("unknown name", f"{test}/0000/0000_000_16_0302noon_0044_3.jpg"),
    ]


@pytest.mark.parametrize("number", ["9" * 30, "9" * 5000])
def test_invalid_numbers_are_problems_with_their_line(release, number):
    root, train, test = release
    with (root / "list_query.txt").open("a") as file:
        file.write(f"0000/0000_000_01_0302noon_0044_3.jpg {number}\n")
        file.write(f"0000/0000_000_{number}_0302noon_0044_3.jpg 0\n")
    with open_tree(root) as tree:
        found = listing(tree, {})
    assert known(found.images) == expected(train, test)
    kinds = [(problem.kind, problem.name[:9]) for problem in found.problems]
    assert kinds == [("wrong row", "list_quer"), ("unknown name", f"{test}/0000/"[:9])]


def test_an_image_that_is_listed_twice_is_a_problem_by_its_line(release):
    root, train, test = release
    for name, line in (("val", LISTS["train"][0]), ("gallery", LISTS["query"][0])):
        with (root / f"list_{name}.txt").open("a") as file:
            file.write(f"{line}\n")
    with open_tree(root) as tree:
        found = listing(tree, {})
    assert known(found.images) == expected(train, test)
    twice = [(f"{train}/{LISTS['train'][0][:-2]}", 1), (f"{test}/{LISTS['query'][0][:-2]}", 1)]
    assert found.problems == [
        ("wrong row", "list_val.txt line 2", f"{twice[0][0]} is in list_train.txt line 1 too"),
        ("wrong row", "list_gallery.txt line 3", f"{twice[1][0]} is in list_query.txt line 1 too"),
    ]


def test_a_missing_or_empty_list_is_named(release):
    root, _, _ = release
    (root / "list_val.txt").write_text("\n")
    with open_tree(root) as tree, pytest.raises(ValueError, match=r"list_val\.txt lists no image"):
        listing(tree, {})
    (root / "list_val.txt").write_bytes(b"\xff\xfe\x00")
    with open_tree(root) as tree, pytest.raises(ValueError, match=r"list_val\.txt is not text"):
        listing(tree, {})
    (root / "list_val.txt").unlink()
    with open_tree(root) as tree, pytest.raises(FileNotFoundError, match=r"has no list_val\.txt"):
        listing(tree, {})


def test_another_folder_is_refused_with_the_expected_files(tmp_path):
    with (
        open_tree(tmp_path) as tree,
        pytest.raises(FileNotFoundError, match="is not MSMT17: neith"),
    ):
        listing(tree, {})


def refused(root, message):
    with open_tree(root) as tree, pytest.raises((ValueError, FileNotFoundError), match=message):
        listing(tree, {})


def test_a_release_in_a_subfolder_is_named(release, tmp_path):
    root, _, _ = release
    root.rename(tmp_path / "inner")
    (tmp_path / "outer" / "all").mkdir(parents=True)
    (tmp_path / "inner").rename(tmp_path / "outer" / "all" / "MSMT17")
    refused(tmp_path / "outer", r"V2\); it holds all, and that holds MSMT17$")


def test_images_with_unlisted_names_are_reported_once_with_the_files_found(release):
    root, train, _ = release
    for path in list((root / train).rglob("*.jpg")):
        path.rename(path.with_suffix(".jpeg"))
    refused(
        root,
        rf"none of the 3 images of a list can be used; the first is a missing image: {train}/0000/"
        rf"0000_000_01_0303morning_0015_0.jpg .* {train}/0000 holds 0000_000_01_0303morning_0015_0"
        r".jpeg, 0000_001_03_0303noon_0020_0.jpeg; images are named like 0000/0000_000_01_0303",
    )


def test_a_list_of_other_names_is_reported_once(release):
    root, _, _ = release
    text = (root / "list_train.txt").read_text().replace(".jpg", ".jpeg")
    (root / "list_train.txt").write_text(text)
    (root / "list_val.txt").write_text(text[: text.index("\n") + 1])
    refused(root, r"none of the 3 images .* the first is a unknown name")
