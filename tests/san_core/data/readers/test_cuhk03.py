"""CUHK03's files in miniature, read by both protocols."""

import shutil
from contextlib import suppress

import numpy as np
import pytest
import scipy.io

from san_core.data.readers import cuhk03
from san_core.data.readers.cuhk03 import PUBLISHED, listing
from san_core.data.tree import open_tree
from san_core.images.pixels import decode
from tests.san_core.data.readers.cuhk03_file import (
    HEADER,
    PROTOCOL_ROWS,
    image_pixels,
    write_protocol,
    write_release,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "cuhk03"
    write_release(root)
    for kind in ("labeled", "detected"):
        write_protocol(root, kind)
    return root


@pytest.fixture
def release(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "cuhk03")


def known(images):
    return [(image.split, image.name, image.pid, image.camid) for image in images]


def new(kind):
    return [
        ("train", f"images_{kind}/1_001_1_01.png", 1, 0),
        ("train", f"images_{kind}/1_001_2_06.png", 1, 1),
        ("train", f"images_{kind}/2_001_1_01.png", 4, 0),
        ("query", f"images_{kind}/1_002_1_01.png", 2, 0),
        ("query", f"images_{kind}/1_002_2_06.png", 2, 1),
        ("gallery", f"images_{kind}/1_002_1_02.png", 2, 0),
        ("gallery", f"images_{kind}/1_002_2_07.png", 2, 1),
        ("gallery", f"images_{kind}/5_001_2_10.png", 7, 1),
    ]


@pytest.mark.parametrize(
    ("options", "kind"),
    [({}, "labeled"), ({"labeled": ""}, "labeled"), ({"detected": ""}, "detected")],
)
def test_the_new_protocol_is_read_from_its_file_of_settings(whole, options, kind):
    with open_tree(whole) as tree:
        found = listing(tree, options)
        assert known(found.images) == new(kind)
        assert found.problems == []
        assert (found.protocol, found.published) == ("market1501", PUBLISHED[kind])
        for image in found.images:
            place = image.name.removesuffix(".png").rpartition("/")[2].split("_")
            pair, person, _, number = map(int, place)
            assert np.array_equal(decode(image.read()), image_pixels(kind, pair, person, number))


@pytest.mark.parametrize("where", ["around", "zip", "tar.gz"])
def test_the_folder_around_it_and_archives_will_do(whole, tmp_path, where):
    place = whole.parent
    if where != "around":
        kind = {"zip": "zip", "tar.gz": "gztar"}[where]
        place = tmp_path / shutil.make_archive(str(tmp_path / "a"), kind, whole.parent)
    with open_tree(place) as tree:
        found = listing(tree, {"detected": ""})
        assert known(found.images) == new("detected")
        assert np.array_equal(decode(found.images[0].read()), image_pixels("detected", 1, 1, 1))


def test_the_file_in_the_test_begins_as_matlab_writes_it(whole):
    data = (whole / "cuhk03_release" / "cuhk-03.mat").read_bytes()
    assert data.startswith(HEADER)
    assert data[512:520] == b"\x89HDF\r\n\x1a\n"
    with pytest.raises(NotImplementedError, match="HDF"):  # so scipy takes it for MATLAB 7.3
        scipy.io.loadmat(whole / "cuhk03_release" / "cuhk-03.mat")


def test_an_image_that_is_listed_twice_is_a_problem_by_its_row(release):
    write_protocol(release, "labeled", [*PROTOCOL_ROWS, ("1_002_1_01.png", 2, "gallery")])
    with open_tree(release) as tree:
        found = listing(tree, {})
        assert known(found.images) == new("labeled")
    assert found.problems == [
        (
            "wrong row",
            "cuhk03_new_protocol_config_labeled.mat row 9",
            "1_002_1_01.png is in row 3 too",
        )
    ]


def test_a_classic_split_asks_by_the_first_view_and_searches_the_second(whole):
    with open_tree(whole) as tree:
        found = listing(tree, {"classic": "2"})
    # The second split tests person 2 of pair 1, who lacks images 5, 9 and 10, and person 1 of
    # pair 2, who lacks image 6. Counted through all pairs they are people 2 and 4.
    by = {s: [i for i in known(found.images) if i[0] == s] for s in ("train", "query", "gallery")}
    assert by["query"] == [
        *(("query", f"images_labeled/1_002_1_{n:02d}.png", 2, 0) for n in (1, 2, 3, 4)),
        *(("query", f"images_labeled/2_001_1_{n:02d}.png", 4, 0) for n in (1, 2, 3, 4, 5)),
    ]
    assert by["gallery"] == [
        *(("gallery", f"images_labeled/1_002_2_{n:02d}.png", 2, 1) for n in (6, 7, 8)),
        *(("gallery", f"images_labeled/2_001_2_{n:02d}.png", 4, 1) for n in (7, 8, 9, 10)),
    ]
    assert [pid for _, _, pid, _ in by["train"]] == [p for p in (1, 3, 5, 6, 7) for _ in range(10)]
    assert known(found.images) == [*by["train"], *by["query"], *by["gallery"]]
    assert (found.protocol, found.problems) == ("single-gallery-shot", [])


def test_every_classic_split_is_there(whole):
    with open_tree(whole) as tree:
        tested = [
            {i.pid for i in listing(tree, {"classic": str(n)}).images if i.split == "query"}
            for n in range(1, 21)
        ]
    assert tested == [{1, 5}, {2, 4}, *[{3, 7}] * 18]


@pytest.mark.parametrize("text", ["0", "21", "x", "-1"])
def test_there_are_twenty_classic_splits(whole, text):
    with (
        open_tree(whole) as tree,
        pytest.raises(ValueError, match="is not a split; splits are 1 to 20"),
    ):
        listing(tree, {"classic": text})


def test_it_is_labeled_or_detected(whole):
    with (
        open_tree(whole) as tree,
        pytest.raises(ValueError, match="labeled or detected boxes, not both"),
    ):
        listing(tree, {"labeled": "", "detected": ""})


def test_images_that_are_not_in_the_file_are_problems_by_name(release):
    rows = [
        *PROTOCOL_ROWS,
        ("1_002_1_05.png", 2, "gallery"),  # an empty cell
        ("1_009_1_01.png", 2, "gallery"),  # no such person
        ("6_001_1_01.png", 2, "gallery"),  # no such pair
        ("1_001_2_01.png", 1, "train"),  # image 1 is of the first view
        ("holiday.png", 1, "train"),
    ]
    write_protocol(release, "labeled", rows)
    with open_tree(release) as tree:
        found = listing(tree, {})
    assert known(found.images) == new("labeled")
    name = "cuhk03_new_protocol_config_labeled.mat"
    assert found.problems == [
        ("unknown name", "1_001_2_01.png", f"row 12 of {name}"),
        ("unknown name", "holiday.png", f"row 13 of {name}"),
        ("missing image", "1_002_1_05.png", f"row 9 of {name}"),
        ("missing image", "1_009_1_01.png", f"row 10 of {name}"),
        ("missing image", "6_001_1_01.png", f"row 11 of {name}"),
    ]


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("cuhk03_release/cuhk-03.mat", {}),
        ("cuhk03_new_protocol_config_labeled.mat", {}),
        ("cuhk03_new_protocol_config_detected.mat", {"detected": ""}),
    ],
)
def test_a_missing_file_is_named(release, file, options):
    (release / file).unlink()
    name, kind = file.rpartition("/")[2], next(iter(options), "labeled")
    message = rf"neither .* has {name}; .* cuhk03_new_protocol_config_{kind}\.mat beside"
    with open_tree(release) as tree, pytest.raises(FileNotFoundError, match=message):
        listing(tree, options)


@pytest.mark.parametrize("content", [b"", b"no file of MATLAB" * 100])
@pytest.mark.parametrize(
    "file", ["cuhk03_release/cuhk-03.mat", "cuhk03_new_protocol_config_labeled.mat"]
)
def test_a_damaged_file_is_refused_by_name(release, file, content):
    (release / file).write_bytes(content)
    with (
        open_tree(release) as tree,
        pytest.raises(ValueError, match=f"{file.split('/')[-1]} is not"),
    ):
        listing(tree, {})


def test_another_matlab_file_is_refused(release):
    scipy.io.savemat(release / "cuhk03_new_protocol_config_labeled.mat", {"labels": [1, 2]})
    with open_tree(release) as tree, pytest.raises(ValueError, match="is not the file of the new"):
        listing(tree, {})
    write_protocol(release, "labeled")
    config = scipy.io.loadmat(release / "cuhk03_new_protocol_config_labeled.mat")
    config = {name: value for name, value in config.items() if not name.startswith("__")}
    config["train_idx"] = config["train_idx"] + 100
    scipy.io.savemat(release / "cuhk03_new_protocol_config_labeled.mat", config)
    with open_tree(release) as tree, pytest.raises(ValueError, match="do not match"):
        listing(tree, {})


def test_published_counts_are_those_of_the_new_protocol():
    images = {kind: {s: n.images for s, n in of.items()} for kind, of in cuhk03.PUBLISHED.items()}
    assert images == {
        "labeled": {"train": 7368, "query": 1400, "gallery": 5328},
        "detected": {"train": 7365, "query": 1400, "gallery": 5332},
    }


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(
    "file", ["cuhk03_release/cuhk-03.mat", "cuhk03_new_protocol_config_labeled.mat"]
)
def test_flipped_bits_are_read_or_refused_in_one_way(release, file, seed):
    rng = np.random.default_rng(seed)
    data = bytearray((release / file).read_bytes())
    for at in rng.integers(0, len(data), 20):
        data[at] ^= 1 << rng.integers(8)
    (release / file).write_bytes(data)
    with open_tree(release) as tree, suppress(ValueError, OSError):
        for image in listing(tree, {} if seed % 2 else {"classic": "2"}).images:
            image.read()
