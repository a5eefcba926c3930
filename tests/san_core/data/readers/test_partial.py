"""The sets of partial images in miniature."""

import pytest

from san_core.data.readers.partial import listing
from san_core.data.tree import open_tree


def made(root, files):
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def known(images):
    return [(image.split, image.name, image.pid, image.camid) for image in images]


@pytest.fixture
def partial_reid(tmp_path):
    names = [
        f"{f}_body_images/{p:03d}_001.jpg"
        for f in ("partial", "whole", "occluded")
        for p in (1, 60)
    ]
    return made(tmp_path / "Partial_REID", [*names, "whole_body_images/readme.txt"])


def test_partial_reid_asks_by_parts_of_people(partial_reid):
    for place in (partial_reid, partial_reid.parent):
        with open_tree(place) as tree:
            found = listing(tree, {})
        assert known(found.images) == [
            ("query", "partial_body_images/001_001.jpg", 1, None),
            ("query", "partial_body_images/060_001.jpg", 60, None),
            ("gallery", "whole_body_images/001_001.jpg", 1, None),
            ("gallery", "whole_body_images/060_001.jpg", 60, None),
        ]
        assert (found.problems, found.protocol) == ([], "camera-free")
        assert found.published == {"query": (60, 300), "gallery": (60, 300)}
    assert found.images[0].read() == b"partial_body_images/001_001.jpg"


def test_partial_reid_may_ask_by_occluded_people(partial_reid):
    with open_tree(partial_reid) as tree:
        found = listing(tree, {"occluded": ""})
    assert known(found.images)[:2] == [
        ("query", "occluded_body_images/001_001.jpg", 1, None),
        ("query", "occluded_body_images/060_001.jpg", 60, None),
    ]


@pytest.mark.parametrize("folders", [("Probe", "Gallery"), ("query", "gallery")])
def test_partial_ilids_is_read_under_either_name(tmp_path, folders):
    root = made(tmp_path, [f"{folder}/{name}.jpg" for folder in folders for name in ("1", "119")])
    with open_tree(root) as tree:
        found = listing(tree, {})
    assert known(found.images) == [
        ("query", f"{folders[0]}/1.jpg", 1, None),
        ("query", f"{folders[0]}/119.jpg", 119, None),
        ("gallery", f"{folders[1]}/1.jpg", 1, None),
        ("gallery", f"{folders[1]}/119.jpg", 119, None),
    ]
    assert found.published == {"query": (119, 119), "gallery": (119, 119)}


def test_people_that_count_from_0_are_people(tmp_path):
    root = made(tmp_path, ["Probe/000.jpg", "Probe/001.jpg", "Gallery/000.jpg", "Gallery/001.jpg"])
    with open_tree(root) as tree:
        found = listing(tree, {})
    assert [(image.pid, image.fields) for image in found.images] == [
        (1, {"person": "0"}),
        (2, {"person": "1"}),
    ] * 2


def test_foreign_files_are_problems_by_name(tmp_path):
    root = made(tmp_path, ["Probe/1.jpg", "Probe/bob.jpg", "Gallery/1.jpg", "Gallery/1.gif"])
    with open_tree(root) as tree:
        found = listing(tree, {})
    assert found.problems == [
        ("unknown name", "Probe/bob.jpg", "does not look like 001_001.jpg"),
        ("unknown name", "Gallery/1.gif", "does not look like 001_001.jpg"),
    ]


def test_another_folder_is_refused_with_the_expected_files(tmp_path, partial_reid):
    (tmp_path / "Probe").mkdir()
    (tmp_path / "Gallery").mkdir()
    with open_tree(tmp_path) as tree, pytest.raises(ValueError, match="Probe has no image; names"):
        listing(tree, {})
    with (
        open_tree(tmp_path / "Probe") as tree,
        pytest.raises(
            FileNotFoundError,
            match=r"not a set of partial images: .* Probe and "
            r"Gallery",
        ),
    ):
        listing(tree, {})
