"""Held-out test people: chosen by names alone, or by a table."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from san_core.data.held_out import (
    TEST,
    Wanted,
    assign_splits,
    parse_options,
    read_sides,
    split_table,
)
from san_core.data.names import place_of_name
from san_core.data.records import ListedImage, person_name

LEFT_OUT = ("train", "query", "gallery")


def nothing() -> bytes:
    return b""


def picture(person, camera, shot, pid):
    name, camid = f"{person}/{camera}/{shot}.jpg", None if camera is None else ord(camera[0])
    return ListedImage(name, pid, camid, "images", nothing, {"person": person})


def people(names, cameras="ab", shots=2):
    return [
        picture(name, camera, shot, pid)
        for pid, name in enumerate(names, 1)
        for camera in cameras
        for shot in range(shots)
    ]


def sides(parted):
    """Train, val or test, by person."""
    told = {"query": TEST, "gallery": TEST}
    return {person_name(image): told.get(image.split, image.split) for image in parted.images}


NAMES = [f"person{n:02d}" for n in range(60)]


def test_people_keep_their_split_when_cameras_images_and_people_are_added():
    before = sides(assign_splits(people(NAMES), Wanted()))
    assert Counter(before.values()) == {"train": 37, TEST: 23}
    for grown in (
        people(NAMES, cameras="0ab"),  # its images come first by name
        people(NAMES, shots=5),
        people([f"a{name}" for name in NAMES] + NAMES),
        [i for i in people(NAMES, cameras="abc") if (i.pid or 0) < 30 or i.camid == ord("b")],
    ):
        after = sides(assign_splits(grown, Wanted()))
        assert {name: after[name] for name in before} == before


def test_a_person_has_one_side_however_the_name_is_spelt():
    for one, other in (("0007", "7"), ("Ame\u0301lie", "Amélie")):
        assert place_of_name(one, TEST) == place_of_name(other, TEST)
    assert place_of_name("7", TEST) != place_of_name("7", "validation")


def test_names_fall_evenly():
    places = sorted(place_of_name(str(n), TEST) for n in range(10_000))
    assert 0 <= places[0] < places[-1] < 1
    steps = [abs(place - n / len(places)) for n, place in enumerate(places)]
    assert max(steps) < 0.0163  # of Kolmogorov and Smirnov, by chance in one of a hundred


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
    """The people who can be asked for."""
    seen = defaultdict(set)
    for image in images:
        seen[image.pid].add(image.name if image.camid is None else image.camid)
    return {pid for pid, found in seen.items() if len(found) > 1}


@given(collections(), st.floats(0.01, 0.99))
def test_people_are_held_out_so_that_every_query_can_be_found(images, share):
    able, everybody = findable(images), {image.pid for image in images}
    if len(able) < 2 or len(everybody) < 3:
        with pytest.raises(ValueError, match="identities can be held out for testing"):
            assign_splits(images, Wanted(share))
        return
    parted, warnings = assign_splits(images, Wanted(share))
    assert [image.name for image in parted] == [image.name for image in images]
    assert all(a.pid == b.pid and a.camid == b.camid for a, b in zip(parted, images, strict=True))
    of = {s: [i for i in parted if i.split == s] for s in LEFT_OUT}
    assert sum(map(len, of.values())) == len(images)
    people = {split: {image.pid for image in found} for split, found in of.items()}
    assert not people["train"] & people["gallery"]
    assert people["query"] == people["gallery"] & able
    assert len(people["query"]) >= 2
    assert people["train"] & able if len(able) > 2 else people["train"]
    named = {pid for pid in everybody if place_of_name(str(pid), TEST) < share}
    changed = people["gallery"] ^ named
    assert len(changed) <= 2
    assert any("although the name" in line for line in warnings) == bool(changed)
    assert any("they get no query" in line for line in warnings) == bool(people["gallery"] - able)
    for query in of["query"]:
        matches = [g for g in of["gallery"] if g.pid == query.pid]
        assert any(query.camid is None or g.camid != query.camid for g in matches)
    assert set(Counter((query.pid, query.camid) for query in of["query"]).values()) == {1}


@given(collections(), st.randoms())
def test_who_is_held_out_does_not_depend_on_the_order_of_images(images, random):
    if len(findable(images)) < 2 or len({image.pid for image in images}) < 3:
        return
    splits = {image.name: image.split for image in assign_splits(images, Wanted(0.3)).images}
    again = assign_splits(random.sample(images, len(images)), Wanted(0.3)).images
    assert {image.name: image.split for image in again} == splits


SHOTS = ((0, 0), (0, 1), (1, 0), (2, 0), (2, 1))  # camera 1 took one


def test_every_camera_with_several_pictures_of_a_person_gives_a_query():
    names = [f"{person}/{camid}-{shot}" for person in (1, 2, 3) for camid, shot in SHOTS]
    images = [ListedImage(n, int(n[0]), int(n[2]), "images", nothing) for n in names]
    parted = assign_splits(images, Wanted(0.4)).images
    tested = {image.pid for image in parted if image.split != "train"}
    asked = {image.name for image in parted if image.split == "query"}
    assert asked == {f"{pid}/{shot}" for pid in tested for shot in ("0-0", "2-0")}


def test_a_person_of_one_camera_who_is_held_out_is_in_the_gallery_alone():
    held = [
        name for name, side in sides(assign_splits(people(NAMES), Wanted())).items() if side == TEST
    ]
    images = [i for i in people(NAMES) if person_name(i) != held[0] or i.camid == ord("a")]
    parted = assign_splits(images, Wanted())
    assert {i.split for i in parted.images if person_name(i) == held[0]} == {"gallery"}
    assert parted.warnings == [
        f"1 of 23 identities that are held out for testing, such as {held[0]}, are not seen by two"
        " cameras: they get no query, and their images are only in the gallery"
    ]


def test_too_few_names_under_the_share_are_filled_up_and_reported():
    parted = assign_splits(people(["ann", "bob", "cid"]), Wanted(0.01))
    assert Counter(sides(parted).values()) == {"train": 1, TEST: 2}
    assert parted.warnings
    for line in parted.warnings:
        assert " is held out, although the name does not fall among those held out. To keep" in line
        assert "keep split.csv and pass it as split=..." in line


def test_where_all_names_fall_under_the_share_one_is_left_to_train_on():
    parted = assign_splits(people(["ann", "bob", "cid"]), Wanted(0.999))
    assert Counter(sides(parted).values()) == {"train": 1, TEST: 2}
    assert "is kept in training, although the name falls among those" in parted.warnings[0]


def test_a_table_without_training_people_is_refused():
    everybody = dict.fromkeys(("ann", "bob", "cid"), TEST)
    with pytest.raises(ValueError, match="split leaves nobody to train on: all 3 identities of"):
        assign_splits(people(list(everybody)), Wanted(sides=everybody))


def test_a_number_of_people_may_be_held_out():
    assert parse_options({"test": "20"}) == Wanted(number=20)
    parted = assign_splits(people(NAMES), Wanted(number=20))
    assert Counter(sides(parted).values()) == {"train": 40, TEST: 20}
    with pytest.raises(
        ValueError, match="60 identities cannot be held out for testing: of 60 identities"
    ):
        assign_splits(people(NAMES), Wanted(number=60))


def test_where_cameras_do_not_matter_two_images_are_enough_to_be_asked_for():
    images = people(NAMES, cameras="a")
    parted = assign_splits(images, Wanted(0.5), protocol="camera-free")
    assert len({image.pid for image in parted.images if image.split == "query"}) > 20
    assert parted.warnings == []


def write(tmp_path, text):
    file = tmp_path / "old, split.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_table_of_an_older_set_decides_for_those_whom_it_names(tmp_path):
    by_name = sides(assign_splits(people(NAMES), Wanted()))
    moved = {name: TEST if side == "train" else "train" for name, side in by_name.items()}
    rows = [(name, "a", "query" if moved[name] == TEST else "val") for name in NAMES[:40]]
    file = write(tmp_path, split_table(rows).decode())
    parted = assign_splits(people(NAMES), parse_options({"split": str(file)}))
    told = sides(parted)
    for name in NAMES[:40]:
        assert told[name] == (TEST if moved[name] == TEST else "val")
    assert {n: told[n] for n in NAMES[40:]} == {n: by_name[n] for n in NAMES[40:]}


def test_a_table_of_joined_sets_is_refused_with_what_to_take_out_of_it():
    joined = Wanted(sides={f"folders/{name}": TEST for name in NAMES[:3]})
    with pytest.raises(ValueError, match=r"names none of .*: remove the set's name"):
        assign_splits(people(NAMES), joined)
    with pytest.raises(ValueError, match=r"names none of .*folders/nobody") as refused:
        assign_splits(people(NAMES), Wanted(sides={"folders/nobody": TEST}))
    assert "joined" not in str(refused.value)


def test_what_was_written_is_read_as_it_was():
    rows = [("ann", "hall", "query"), ("ann", "hall", "gallery"), ("B, ob", "", "train")]
    assert split_table([*rows, *rows]) == (
        b'person,camera,split\n"B, ob",,train\nann,hall,gallery\nann,hall,query\n'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "person,camera,split\nann,a,query\nann,b,train\n",
            "split.csv line 3: ann is in train, and in query above; an identity has one split",
        ),
        (
            "person,split\n0007,train\n7,gallery\n",
            "split.csv line 3: 7 is in gallery, and in train above",
        ),
        ("person,split\nann,tested\n", r"split.csv line 2: person 'ann', split 'tested'; it must"),
        ("person,split\nann\n", r"split.csv line 2: person 'ann', split ''"),
        (
            "path,pid\na/1.jpg,ann\n",
            "not a table of splits: it must have the columns person, c",
        ),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_sides(write(tmp_path, text))


def test_a_table_of_other_people_is_refused_and_missing_people_are_reported(tmp_path):
    file = write(tmp_path, "person,split\nzoe,train\nyan,query\n")
    with pytest.raises(
        ValueError, match="names none of these 60 identities: it has yan, zoe, the dat"
    ):
        assign_splits(people(NAMES), parse_options({"split": str(file)}))
    file = write(tmp_path, "person,split\nzoe,train\nperson00,query\n")
    warnings = assign_splits(people(NAMES), parse_options({"split": str(file)})).warnings
    assert "1 of 2 identities in the table of option split are not in the data set" in warnings


def test_a_folder_and_a_number_of_people_are_no_table(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder; name the table in it, .*/split\.csv"):
        read_sides(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"split=.*nowhere: there is no such file"):
        read_sides(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="test=20 is a number of identities, but option split"):
        parse_options({"test": "20", "split": "x"})


def test_no_one_is_held_out_when_all_are_trained_on():
    assert parse_options({"all": ""}) == Wanted(share=0)
    with pytest.raises(ValueError, match="option all trains on every identity; option test ha"):
        parse_options({"all": "", "test": "0.5"})


@pytest.mark.parametrize("share", ["9" * 10, "9" * 5000])
def test_an_excessive_number_of_people_is_refused(share):
    with pytest.raises(ValueError, match=r"a share of (inf|9999999999\.0) cannot be held out"):
        parse_options({"test": share})
