"""Numbers for people and cameras, and people held out: what holds for any data."""

from collections import Counter, defaultdict

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from san_core.data.people import (
    NamedImage,
    assign_splits,
    camids_by_name,
    is_junk,
    number_people_and_cameras,
    pids_by_name,
)
from san_core.data.records import ListedImage

SPLITS = st.sampled_from(["train", "query", "gallery"])
NAMES = st.one_of(st.text(min_size=1, max_size=4), st.integers(-1, 30).map(str))


def assume_clear(people):
    """No two names are one number, and 0 is not a person here and distractors there."""
    names = {name for name, _ in people}
    numbers = [int(name) for name in names if name.removeprefix("-").isdecimal()]
    assume(len(set(numbers)) == len(numbers))
    where = {split for name, split in people if name.isdecimal() and int(name) == 0}
    assume(not {"train", "gallery"} <= where)


def nothing() -> bytes:
    return b""


@given(st.lists(st.tuples(NAMES, SPLITS), min_size=1))
def test_two_people_are_two_numbers_from_1(people):
    assume_clear(people)
    numbers = pids_by_name(people)
    where = defaultdict(set)
    for name, split in people:
        where[name].add(split)
    assert numbers.keys() == where.keys()
    somebody = {name: n for name, n in numbers.items() if n >= 1}
    assert len(set(somebody.values())) == len(somebody)
    for name, n in numbers.items():
        if n < 1:
            assert (int(name), where[name]) == (n, {"gallery"})


@given(st.lists(st.tuples(NAMES, SPLITS), min_size=1), st.randoms())
def test_numbers_do_not_depend_on_the_order_of_images(people, random):
    assume_clear(people)
    shuffled = random.sample(people, len(people))
    assert pids_by_name(shuffled) == pids_by_name(people)


@given(st.sets(st.integers(1, 10**6), min_size=1))
def test_numbers_from_1_are_kept(pids):
    assert pids_by_name((f"{pid:04d}", "train") for pid in pids) == {f"{p:04d}": p for p in pids}


@given(st.sets(NAMES, min_size=1))
def test_two_cameras_are_two_numbers_from_0(cameras):
    assume_clear([(name, "") for name in cameras])
    numbers = camids_by_name(cameras)
    assert numbers.keys() == cameras
    assert len(set(numbers.values())) == len(cameras)
    assert min(numbers.values()) >= 0


def test_names_that_are_one_number_are_refused():
    with pytest.raises(ValueError, match="people '007' and '7' are one number; write it in one"):
        pids_by_name([("7", "train"), ("007", "train")])
    with pytest.raises(ValueError, match="cameras '01' and '1' are one number"):
        camids_by_name(["1", "01"])


@pytest.mark.parametrize("split", ["train", "val", "multi"])
def test_0_that_is_a_person_and_a_distractor_is_refused(split):
    people = [("1", "train"), ("0", split), ("2", "query"), ("0", "gallery")]
    with pytest.raises(ValueError, match=f"pid 0 is in {split} and in gallery: it would be"):
        pids_by_name(people)


def test_nobody_may_be_written_in_several_ways():
    names = ("-1", "-01", "0", "0000")
    people = [("5", "train"), *((name, "gallery") for name in names)]
    assert pids_by_name(people) == {"5": 5, "-1": -1, "-01": -1, "0": 0, "0000": 0}
    with pytest.raises(ValueError, match="people '0' and '0000' are one number"):
        pids_by_name([("0", "query"), ("0000", "gallery")])
    with pytest.raises(ValueError, match="pid 0 is in train and in gallery"):
        pids_by_name([("0", "train"), ("0000", "gallery")])


def test_0_that_is_asked_for_is_a_person_in_the_gallery_too():
    people = [("1", "train"), ("0", "query"), ("0", "gallery")]
    assert pids_by_name(people) == {"0": 1, "1": 2}


@pytest.mark.parametrize(
    ("name", "expected"), [("-1", True), ("-01", True), ("1", False), ("-1a", False)]
)
def test_junk_is_known_by_its_number(name, expected):
    assert is_junk(name) is expected


def test_cameras_that_are_numbers_keep_them_and_names_are_sorted_by_value():
    assert camids_by_name(["3", "10"]) == {"3": 3, "10": 10}
    assert camids_by_name(["-1", "10", "9"]) == {"-1": 0, "9": 1, "10": 2}
    assert camids_by_name(["hall", "10", "9"]) == {"9": 0, "10": 1, "hall": 2}


def test_a_set_where_some_images_have_no_camera_is_refused():
    images = [
        NamedImage("a.jpg", "x", "1", "train", nothing),
        NamedImage("b.jpg", "x", None, "train", nothing),
    ]
    with pytest.raises(ValueError, match=r"b\.jpg has no camera, as 1 of 2 images"):
        number_people_and_cameras(images)


@st.composite
def collections(draw):
    """Images of a few people, with cameras or without."""
    has_cameras = draw(st.booleans())
    images = []
    for pid in range(1, draw(st.integers(2, 12)) + 1):
        for shot in range(draw(st.integers(1, 6))):
            camid = draw(st.integers(0, 3)) if has_cameras else None
            images.append(ListedImage(f"{pid}/{shot}.jpg", pid, camid, "images", nothing))
    return draw(st.permutations(images))


def findable(images):
    """The people who can be held out."""
    seen = defaultdict(set)
    for image in images:
        seen[image.pid].add(image.name if image.camid is None else image.camid)
    return {pid for pid, found in seen.items() if len(found) > 1}


@given(collections(), st.floats(0.01, 0.99))
def test_people_are_held_out_so_that_every_query_can_be_found(images, share):
    if len(findable(images)) < 2 or len({image.pid for image in images}) < 3:
        with pytest.raises(ValueError, match="people can be held out for testing"):
            assign_splits(images, share=share)
        return
    parted, shortage = assign_splits(images, share=share)
    assert [image.name for image in parted] == [image.name for image in images]
    assert all(a.pid == b.pid and a.camid == b.camid for a, b in zip(parted, images, strict=True))
    of = {s: [i for i in parted if i.split == s] for s in ("train", "query", "gallery")}
    assert sum(map(len, of.values())) == len(images)
    people = {split: {image.pid for image in found} for split, found in of.items()}
    assert people["train"]
    assert not people["train"] & (people["query"] | people["gallery"])
    assert people["query"] == people["gallery"]
    everybody = {image.pid for image in images}
    wanted = min(max(2, round(share * len(everybody))), len(everybody) - 1)
    able = len(findable(images))
    most = max(able // 2, min(round(share * able), able - 1), 2)
    assert len(people["query"]) == min(wanted, most) > 1
    assert bool(shortage) == (most < wanted)
    for query in of["query"]:
        matches = [g for g in of["gallery"] if g.pid == query.pid]
        assert any(query.camid is None or g.camid != query.camid for g in matches)
    asked = Counter((query.pid, query.camid) for query in of["query"])
    assert set(asked.values()) == {1}


def test_every_camera_that_took_several_pictures_of_somebody_asks():
    names = [f"{person}/{camid}-{shot}" for person in (1, 2, 3) for camid, shot in SHOTS]
    images = [ListedImage(n, int(n[0]), int(n[2]), "images", nothing) for n in names]
    parted = assign_splits(images, share=0.4).images
    tested = {image.pid for image in parted if image.split != "train"}
    asked = {image.name for image in parted if image.split == "query"}
    assert asked == {f"{pid}/{shot}" for pid in tested for shot in ("0-0", "2-0")}


SHOTS = ((0, 0), (0, 1), (1, 0), (2, 0), (2, 1))  # camera 1 took one


@given(collections(), st.randoms())
def test_who_is_held_out_does_not_depend_on_the_order_of_images(images, random):
    if len(findable(images)) < 2 or len({image.pid for image in images}) < 3:
        return
    splits = {image.name: image.split for image in assign_splits(images, share=0.3).images}
    shuffled = random.sample(images, len(images))
    again = assign_splits(shuffled, share=0.3).images
    assert {image.name: image.split for image in again} == splits


def few_seen_twice(able, count):
    """People with two images each, of whom some have them from two cameras."""
    return [
        ListedImage(f"{pid}/{shot}.jpg", pid, shot if pid <= able else 0, "images", nothing)
        for pid in range(1, count + 1)
        for shot in range(2)
    ]


@pytest.mark.parametrize(("share", "held", "wanted"), [(1 / 3, 2, 10), (0.5, 2, 15), (0.9, 2, 27)])
def test_of_few_people_whom_two_cameras_saw_training_keeps_some(share, held, wanted):
    images, shortage = assign_splits(few_seen_twice(3, 30), share=share)
    assert len({image.pid for image in images if image.split == "query"}) == held
    assert shortage == (
        f"{held} of {wanted} wanted people are held out for testing: of 30 people 3 are seen by two"
        " cameras, and training keeps some of them"
    )
    kept = {image.pid for image in images if image.split == "train"}
    assert kept & {1, 2, 3}


def test_where_cameras_do_not_matter_two_images_are_enough_to_be_held_out():
    images, shortage = assign_splits(few_seen_twice(0, 30), share=0.5, protocol="camera-free")
    assert len({image.pid for image in images if image.split == "query"}) == 15
    assert shortage == ""
