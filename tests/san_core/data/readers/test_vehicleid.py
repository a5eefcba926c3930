"""VehicleID by its lists."""

from collections import Counter

import pytest

from san_core.data.readers.vehicleid import listing
from san_core.data.tree import open_tree


@pytest.fixture
def release(tmp_path):
    """Three vehicles to learn, and two to test of four images each."""
    folder = tmp_path / "VehicleID_V1.0"
    (folder / "image").mkdir(parents=True)
    (folder / "train_test_split").mkdir()
    for number in range(14):
        (folder / f"image/{number:07d}.jpg").write_text(str(number))
    learned = "".join(f"{number:07d} {number // 2 + 5}\n" for number in range(6))
    (folder / "train_test_split/train_list.txt").write_text(learned)
    tested = "".join(f"{number:07d} {26000 + number % 2}\n" for number in range(6, 14))
    (folder / "train_test_split/test_list_800.txt").write_text(tested)
    (folder / "train_test_split/test_list_1600.txt").write_text(tested.replace("\n", "\n\nx\n", 1))
    return folder


def read(folder, **options):
    with open_tree(folder) as tree:
        return listing(tree, options)


def test_one_image_of_each_vehicle_is_the_gallery_and_all_others_ask(release):
    found = read(release.parent)  # the folder around it will do
    parted = Counter((image.split, image.pid) for image in found.images)
    assert {pid: n for (split, pid), n in parted.items() if split == "train"} == {5: 2, 6: 2, 7: 2}
    assert parted["gallery", 26000] == parted["gallery", 26001] == 1
    assert parted["query", 26000] == parted["query", 26001] == 3
    assert {image.camid for image in found.images} == {None}
    assert found.images[0].name == "image/0000000.jpg"
    assert found.images[0].read() == b"0"
    assert found.problems == []


def test_lines_that_say_nothing_and_images_that_are_missing_are_problems(release):
    (release / "image/0000013.jpg").unlink()
    found = read(release, size="1600")
    assert [str(problem) for problem in found.problems] == [
        "train_test_split/test_list_1600.txt line 3 (not an image name and a number)",
        "image/0000013.jpg (train_test_split/test_list_1600.txt line 10)",
    ]


def test_a_number_of_more_digits_than_any_vehicle_has_is_a_problem(release):
    with (release / "train_test_split/train_list.txt").open("a") as file:
        file.write("0000000 1234567890\n")
    (problem,) = read(release).problems
    assert str(problem).startswith("train_test_split/train_list.txt line 7 (not an image name")


def test_a_missing_list_is_named(release):
    message = "has no train_test_split/test_list_9.txt; train_test_split holds test_list_1600.txt"
    with pytest.raises(FileNotFoundError, match=message):
        read(release, size="9")
    (release / "train_test_split/test_list_800.txt").write_text("7 1\n")
    with pytest.raises(ValueError, match=r"test_list_800.txt: none of its images can be used"):
        read(release)
    with pytest.raises(FileNotFoundError, match="is not VehicleID: no train_test_split in it; it"):
        read(release / "image")
