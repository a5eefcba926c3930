"""Numbers for people and cameras, in any data set."""

from collections import defaultdict

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from san_core.data.people import (
    NamedImage,
    camids_by_name,
    is_junk,
    number_people_and_cameras,
    pids_by_name,
)

SPLITS = st.sampled_from(["train", "query", "gallery"])
NAMES = st.one_of(st.text(min_size=1, max_size=4), st.integers(-1, 30).map(str))


def assume_clear(people):
    """No two names are the same number, and 0 is not a person here and distractors there."""
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
    with pytest.raises(ValueError, match="identities '007' and '7' are the same number; write it"):
        pids_by_name([("7", "train"), ("007", "train")])
    with pytest.raises(ValueError, match="cameras '01' and '1' are the same number"):
        camids_by_name(["1", "01"])


@pytest.mark.parametrize("split", ["train", "val", "multi"])
def test_0_that_is_a_person_and_a_distractor_is_refused(split):
    people = [("1", "train"), ("0", split), ("2", "query"), ("0", "gallery")]
    with pytest.raises(ValueError, match=f"pid 0 is in {split} and in gallery: it would be"):
        pids_by_name(people)


def test_junk_and_distractors_may_be_written_in_several_ways():
    names = ("-1", "-01", "0", "0000")
    people = [("5", "train"), *((name, "gallery") for name in names)]
    assert pids_by_name(people) == {"5": 5, "-1": -1, "-01": -1, "0": 0, "0000": 0}
    with pytest.raises(ValueError, match="identities '0' and '0000' are the same number"):
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
    with pytest.raises(ValueError, match=r"b\.jpg has no camera, like 1 of 2 images"):
        number_people_and_cameras(images)
