"""Identity and camera in the names of files."""

import re

import pytest

from san_core.data.readers.file_names import compile_pattern, listing
from san_core.data.tree import open_tree
from tests.san_core.data.readers.test_folders import known


def read(root, files, **options):
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    with open_tree(root) as tree:
        return listing(tree, options)


MARKET = ("bounding_box_train", "query", "bounding_box_test")
VERI = ("image_train", "image_query", "image_test")


# a name as published, its identity and its camera
@pytest.mark.parametrize(
    ("like", "folders", "name", "pid", "camera"),
    [
        ("market", MARKET, "0002_c1s1_000451_03.jpg", 2, 1),
        ("duke", MARKET, "7140_c8_f0113982.jpg", 7140, 8),
        ("cuhk03-np", MARKET, "1467_c2_9.png", 1467, 2),
        ("veri", VERI, "0776_c020_00085680_0.jpg", 776, 20),
    ],
)
def test_names_and_folders_of_published_sets_are_known(tmp_path, like, folders, name, pid, camera):
    other = name.replace(f"{pid:04d}", "0001")
    asked = [f"{folder}/{other}" for folder in folders[1:]]
    found = read(tmp_path, [f"{folders[0]}/{name}", *asked], like=like)
    assert known(found.images) == [
        ("train", f"{folders[0]}/{name}", pid, camera),
        ("query", asked[0], 1, camera),
        ("gallery", asked[1], 1, camera),
    ]
    assert found.problems == []


def test_numbers_of_training_and_test_are_others_in_msmt17(tmp_path):
    names = ["bounding_box_train/0000_000_01_0303morning_0015_0.jpg"]
    names += [f"{folder}/0000_001_15_0303noon_0015_1.jpg" for folder in MARKET[1:]]
    found = read(tmp_path, names, like="msmt17")
    assert [(image.split, image.pid, image.camid) for image in found.images] == [
        ("train", 1, 1),
        ("query", 2, 15),
        ("gallery", 2, 15),
    ]
    assert [image.fields["person"] for image in found.images] == ["0000", "test 0000", "test 0000"]


def test_a_pattern_of_ones_own_takes_many_cameras_long_numbers_and_folders_by_options(tmp_path):
    files = ["a/12345-cam12-x.png", "a/deep/tiger7-cam3-.JPG", "b/00009-cam120-1.webp"]
    options = {"pattern": "{pid}-cam{camera}-*", "train": "a", "gallery": "b"}
    found = read(tmp_path / "wild", files, **options)
    named = [(i.split, i.fields["person"], i.camid) for i in found.images]
    assert named == [("train", "12345", 12), ("train", "tiger7", 3), ("gallery", "00009", 120)]
    # the folder around it will do too
    with open_tree(tmp_path) as tree:
        assert len(listing(tree, options).images) == 3
    with (
        open_tree(tmp_path) as tree,
        pytest.raises(FileNotFoundError, match="wild has no folder c; it holds a, b"),
    ):
        listing(tree, options | {"query": "c"})


def test_occluded_folders_are_named_by_options_beside_known_names(tmp_path):
    files = ["occluded/0001_c1_f01.jpg", "whole/0001_c2_f02.jpg"]
    found = read(tmp_path, files, like="duke", query="occluded", gallery="whole")
    assert [image.split for image in found.images] == ["query", "gallery"]


def test_distractors_and_junk_are_in_the_gallery_alone(tmp_path):
    files = ["query/0001_c1s1_01.jpg", "query/-1_c1s1_01.jpg"]
    files += [f"bounding_box_test/{pid}_c2s1_01.jpg" for pid in ("0001", "0000", "-1")]
    found = read(tmp_path, files, like="market")
    assert [i.pid for i in found.images if i.split == "gallery"] == [-1, 0, 1]
    assert [str(problem) for problem in found.problems] == [
        "query/-1_c1s1_01.jpg (junk, which only a gallery may hold)"
    ]


def test_without_folders_of_splits_identities_are_held_out(tmp_path):
    files = [f"{pid}_{shot}.jpg" for pid in range(1, 10) for shot in range(3)]
    found = read(tmp_path, files, pattern="{pid}_*", test="0.5")
    assert {image.split for image in found.images} == {"train", "query", "gallery"}
    assert {image.camid for image in found.images} == {None}
    with open_tree(tmp_path) as tree:
        whole = listing(tree, {"pattern": "{pid}_*", "all": ""})
    assert {image.split for image in whole.images} == {"train"}


def test_single_names_that_are_others_are_problems_and_most_are_another_set(tmp_path):
    files = [f"query/000{n}_c1s1_01.jpg" for n in range(1, 4)]
    found = read(tmp_path, [*files, "query/holiday.jpg", "query/notes.txt"], like="market")
    assert [str(problem) for problem in found.problems] == [
        "query/holiday.jpg (not like {pid}_c{camera}s*)",
        "query/notes.txt (images end in .jpg, .jpeg, .jfif, .png, .webp, .bmp, .tif, .tiff)",
    ]
    message = re.escape("3 of 6 names match {pid}_c{camera}s*, such as query/a.jpg")
    with pytest.raises(ValueError, match=message):
        read(tmp_path, ["query/a.jpg"], like="market")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "data set file_names needs like=NAME (market, duke, cuhk03-np, msmt17, veri) or pat"),
        (
            {"like": "mars"},
            "like=mars is unknown; it must be one of market, duke, cuhk03-np, msmt17, veri",
        ),
        ({"pattern": "c{camera}_*"}, "pattern 'c{camera}_*': it must have {pid} once"),
        ({"pattern": "{pid}_{pid}"}, "it must have {pid} once, and may have {camera}"),
        ({"pattern": "{pid}_{cam}"}, "pattern '{pid}_{cam}': it must have {pid} once"),
        ({"pattern": "{pid}{camera}"}, "two of {pid}, {camera} and * must be separated"),
        (
            {"like": "market", "gallery": "query"},
            "gallery=query lies in query=query, so its images would be in both splits",
        ),
        (
            {"like": "market", "train": ".", "gallery": "."},
            "gallery=. lies in train=., so its images would be in both splits",
        ),
        ({"like": "market", "test": "0.5"}, "has splits of its own; option test has no effect"),
    ],
)
def test_options_that_say_nothing_clear_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tmp_path, ["query/0001_c1s1_01.jpg"], **options)


def test_no_image_is_in_two_splits_whose_folders_lie_in_one_another(tmp_path):
    files = ["all/0001_c1s1_01.jpg", "all/old/0002_c1s1_01.jpg", "allies/0003_c1s1_01.jpg"]
    with pytest.raises(ValueError, match="gallery=all/old lies in query=all/, so its images"):
        read(tmp_path, files, like="market", query="all/", gallery="all/old")
    with open_tree(tmp_path) as tree:
        apart = listing(tree, {"like": "market", "query": "all", "gallery": "allies"})
    assert [image.split for image in apart.images] == ["query", "query", "gallery"]


def test_two_sets_in_one_folder_are_chosen_by_the_user(tmp_path):
    files = [f"{kind}/query/0001_c1_1.png" for kind in ("detected", "labeled")]
    with pytest.raises(ValueError, match=r"several folders hold .*detected, .*labeled; give one"):
        read(tmp_path, files, like="cuhk03-np")


def test_a_pattern_is_literal_but_for_its_holes():
    found = compile_pattern("x.{pid}(c{camera})*")
    assert found.fullmatch("x.17(c3)-a_b").groupdict() == {"pid": "17", "camera": "3"}
    assert found.fullmatch("xx17(c3)") is None
