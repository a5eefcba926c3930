"""A folder for every identity."""

import os
import shutil
from pathlib import Path

import pytest

from san_core.data.readers.folders import listing
from san_core.data.tree import open_tree
from san_core.images.pixels import IMAGE_SUFFIXES

CAMERA_FIRST = {"camera-first": ""}
TRACKLETS = {"tracklets": ""}


def read(root, files, **options):
    for name in files:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.fsencode(name))
    with open_tree(root) as tree:
        return listing(tree, options)


def known(images):
    return [(image.split, image.name, image.pid, image.camid) for image in images]


def test_splits_people_and_cameras_are_folders(tmp_path):
    found = read(
        tmp_path,
        [
            "train/alice/door/1.jpg",
            "train/bob/hall/2.png",
            "query/carol/door/3.jpeg",
            "gallery/carol/hall/4.jpg",
            "gallery/0/hall/5.jpg",
            "gallery/-1/door/6.jpg",
        ],
    )
    # Names are numbered in order; in a gallery, 0 and -1 are distractors and junk.
    assert known(found.images) == [
        ("train", "train/alice/door/1.jpg", 1, 0),
        ("train", "train/bob/hall/2.png", 2, 1),
        ("query", "query/carol/door/3.jpeg", 3, 0),
        ("gallery", "gallery/-1/door/6.jpg", -1, 0),
        ("gallery", "gallery/0/hall/5.jpg", 0, 1),
        ("gallery", "gallery/carol/hall/4.jpg", 3, 1),
    ]
    assert [image.fields["person"] for image in found.images][:3] == ["alice", "bob", "carol"]
    assert found.images[0].read() == b"train/alice/door/1.jpg"
    assert found.problems == []


def test_without_splits_people_are_held_out(tmp_path):
    found = read(tmp_path, [f"{person}/{shot}.jpg" for person in "abcdeh" for shot in (1, 2, 3)])
    assert [image.name for image in found.images][:4] == [
        "a/1.jpg",
        "a/2.jpg",
        "a/3.jpg",
        "b/1.jpg",
    ]
    assert {image.camid for image in found.images} == {None}
    of = {s: {i.pid for i in found.images if i.split == s} for s in ("train", "query", "gallery")}
    assert (len(of["train"]), len(of["query"])) == (2, 4)  # a third of many is held out, by name
    assert of["query"] == of["gallery"]
    assert not of["train"] & of["query"]
    queries = [image.name for image in found.images if image.split == "query"]
    assert all(name.endswith("/1.jpg") for name in queries)


def test_the_share_that_is_held_out_may_be_chosen(tmp_path):
    files = [f"{person}/{shot}.jpg" for person in "abdehixyz" for shot in (1, 2)]
    found = read(tmp_path, files, test="0.5")
    held = {image.fields["person"] for image in found.images if image.split == "query"}
    assert held == set("abehx")
    with open_tree(tmp_path) as tree:
        fewer = listing(tree, {"test": "0.1"}).images
    assert {image.fields["person"] for image in fewer if image.split == "query"} == set("bhx")
    with open_tree(tmp_path) as tree:
        assert {image.split for image in listing(tree, {"test": "0"}).images} == {"train"}
        with pytest.raises(ValueError, match="option test='half' is neither a share"):
            listing(tree, {"test": "half"})
        with pytest.raises(ValueError, match=r"a share of 1\.0 cannot be held out"):
            listing(tree, {"test": "1"})


def test_hidden_folders_and_what_file_managers_leave_are_no_people(tmp_path):
    found = read(
        tmp_path,
        [
            *(f"{person}/{shot}.jpg" for person in ("ann", "bob") for shot in (1, 2)),
            *(".ipynb_checkpoints/1.jpg", "@eaDir/1.jpg", ".Trash-1000/1.jpg", "ann/.hidden.jpg"),
            *("ann/@eaDir/1.jpg", "bob/1.jpg~", "Icon\r", "README.md"),
        ],
        test="0",
    )
    assert {image.fields["person"] for image in found.images} == {"ann", "bob"}
    assert (len(found.images), found.problems) == (4, [])


def test_people_who_are_held_out_and_were_seen_by_one_camera_are_warned_of(tmp_path):
    names = [f"{p}/c{camera}/1.jpg" for p in "abdz" for camera in (1, 2)]
    found = read(tmp_path, [*names, *(f"{p}/c1/1.jpg" for p in "efghi")])
    assert found.warnings == [
        "3 of 5 identities that are held out for testing, such as f, are not seen by two cameras:"
        " they get no query, and their images are only in the gallery"
    ]


def test_cameras_keep_their_names(tmp_path):
    found = read(tmp_path, ["train/7/door/1.jpg", "train/7/hall/2.jpg", "train/8/door/3.jpg"])
    assert [image.fields for image in found.images] == [
        {"camera": "door"},
        {"camera": "hall"},
        {"camera": "door"},
    ]


def test_whole_numbers_are_kept(tmp_path):
    found = read(tmp_path, ["train/0007/a.jpg", "query/12/b.jpg", "gallery/12/c.jpg"])
    assert [(image.pid, image.fields) for image in found.images] == [(7, {}), (12, {}), (12, {})]


def test_what_is_no_image_of_a_person_is_a_problem_by_name(tmp_path):
    found = read(
        tmp_path,
        [
            "readme.txt",
            "notes.txt",
            "train/list.txt",
            "train/a/1.jpg",
            "train/a/notes.txt",
            "train/b/",
            "query/a/2.jpg",
            "spare/a/3.jpg",
            "gallery/a/4.jpg",
        ],
    )
    assert [image.name for image in found.images] == [
        "train/a/1.jpg",
        "query/a/2.jpg",
        "gallery/a/4.jpg",
    ]
    assert found.problems == [
        ("unknown name", "notes.txt", "not in the folder of an identity"),
        ("unknown name", "spare", "a folder beside the splits"),
        ("unknown name", "train/list.txt", "not in the folder of an identity"),
        (
            "unknown name",
            "train/a/notes.txt",
            f"images end in {', '.join(IMAGE_SUFFIXES)}",
        ),
        ("empty identity", "train/b", "no image in it"),
    ]


def test_junk_outside_of_a_gallery_is_nobody(tmp_path):
    files = ["train/-1/1.jpg", "train/a/2.jpg", "query/-01/3.jpg", "gallery/-01/4.jpg"]
    found = read(tmp_path, files)
    assert known(found.images) == [
        ("train", "train/a/2.jpg", 1, None),
        ("gallery", "gallery/-01/4.jpg", -1, None),
    ]
    assert found.problems == [
        ("unknown name", "train/-1", "junk, which only a gallery may hold"),
        ("unknown name", "query/-01", "junk, which only a gallery may hold"),
    ]


def test_nobody_to_be_held_out_hides_no_problem(tmp_path):
    with pytest.raises(
        ValueError, match=r"0 of 1 identities can be .* problems: 1 unknown name: -1 \("
    ):
        read(tmp_path, ["a/1.jpg", "-1/2.jpg"])


@pytest.mark.parametrize("start", ["train/", ""])
def test_an_archive_may_hold_all_in_one_folder(tmp_path, start):
    files = [f"set/{start}{person}/{shot}.jpg" for person in "ab" for shot in (1, 2)]
    for name in files:
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(b"")
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "root"))
    with open_tree(packed) as tree:
        found = listing(tree, {} if start else {"test": "0"}).images
    assert known(found) == [
        ("train", name.removeprefix("set/"), pid, None)
        for name, pid in zip(files, (1, 1, 2, 2), strict=True)
    ]


def test_an_archive_of_one_split_is_no_wrapping(tmp_path):
    read(tmp_path / "root", ["train/a/1.jpg"])
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "tar", tmp_path / "root"))
    with open_tree(packed) as tree:
        assert known(listing(tree, {}).images) == [("train", "train/a/1.jpg", 1, None)]


def test_folders_deeper_than_cameras_are_problems(tmp_path):
    found = read(tmp_path, ["train/a/door/1.jpg", "train/a/door/day1/2.jpg"])
    assert [(kind, name) for kind, name, _ in found.problems] == [
        ("unknown name", "train/a/door/day1")
    ]


def test_every_image_has_a_camera_or_none(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"train/a/2\.jpg has no camera, like 1 of 2 images; "
        r"every",
    ):
        read(tmp_path, ["train/a/2.jpg", "train/a/door/1.jpg"])


def test_splits_of_ones_own_and_people_held_out_contradict_each_other(tmp_path):
    with pytest.raises(ValueError, match="has splits of its own; option test has no effect"):
        read(tmp_path, ["train/a/1.jpg"], test="0.5")


def test_a_folder_without_people_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"has no image in folders of identities; they look like alice"
    ):
        read(tmp_path, ["1.jpg"])


def test_cameras_may_be_above_people(tmp_path):
    names = ["train/cam_a/ann/1.jpg", "train/cam_b/ann/2.jpg", "gallery/cam_a/-1/3.jpg"]
    found = read(tmp_path, [*names, "train/cam_a/-1/4.jpg", "train/cam_b/5.jpg"], **CAMERA_FIRST)
    assert known(found.images) == [
        ("train", "train/cam_a/ann/1.jpg", 1, 0),
        ("train", "train/cam_b/ann/2.jpg", 1, 1),
        ("gallery", "gallery/cam_a/-1/3.jpg", -1, 0),
    ]
    assert found.problems == [
        ("unknown name", "train/cam_a/-1", "junk, which only a gallery may hold"),
        ("unknown name", "train/cam_b/5.jpg", "not in the folder of an identity"),
    ]


def test_tracks_of_a_person_are_no_cameras(tmp_path):
    names = ["train/ann/t1/1.jpg", "train/ann/t2/2.jpg", "train/bob/t9/3.jpg"]
    found = read(tmp_path, [*names, "train/bob/4.jpg"], **TRACKLETS)
    assert known(found.images) == [
        ("train", name, pid, None) for name, pid in zip(names, (1, 1, 2), strict=True)
    ]
    assert found.problems == [
        ("unknown name", "train/bob/4.jpg", "not in the folder of a tracklet")
    ]
    assert found.warnings == []


@pytest.mark.parametrize(
    ("name", "options"),
    [("ann/door/t1/1.jpg", TRACKLETS), ("door/ann/t1/1.jpg", TRACKLETS | CAMERA_FIRST)],
)
def test_tracks_may_be_of_cameras(tmp_path, name, options):
    (image,) = read(tmp_path, [f"train/{name}"], **options).images
    assert (image.pid, image.camid) == (1, 0)
    assert image.fields == {"person": "ann", "camera": "door"}


def test_frames_of_one_track_on_both_sides_are_warned_of(tmp_path):
    names = [f"{person}/t1/{shot}.jpg" for person in ("dan", "eve", "cid") for shot in (1, 2)]
    (line,) = read(tmp_path, names, **TRACKLETS).warnings
    assert line.startswith("tracks without cameras: a query finds frames of its own track")


@pytest.mark.parametrize("name", ["Train", "bbox_train", "TEST"])
@pytest.mark.parametrize("start", ["", "gallery/"])
def test_a_part_of_a_data_set_is_no_person(tmp_path, name, start):
    with pytest.raises(
        ValueError, match=f"{start}{name} would be read as an identity or a camera, but is na"
    ):
        read(tmp_path, [f"{start}{name}/ann/1.jpg"])


@pytest.mark.parametrize(
    ("names", "options", "told"),
    [
        (("cam_a/ann", "Camera2/bob", "cam3/bob"), {}, "folders:camera-first reads cameras above"),
        (("ann/cam1", "bob/cam1"), CAMERA_FIRST, "folders reads identities above cameras"),
    ],
)
def test_people_who_are_called_as_cameras_are_refused(tmp_path, names, options, told):
    with pytest.raises(
        ValueError, match=f"are where identities are expected, but are named .*; {told}"
    ):
        read(tmp_path, [f"train/{name}/1.jpg" for name in names], **options)


def test_a_person_may_be_called_as_a_camera_among_others(tmp_path):
    assert len(read(tmp_path, ["train/cam/1.jpg", "train/ann/2.jpg"]).images) == 2


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            ("a/t1", "a/t2", "b/t3", "c/t4"),
            "4 for 3 identities, 4 of which saw one identity alone, such",
        ),
        (
            ("a/1", "b/1", "a/2", "b/2", "a/3", "b/3"),
            "3 for 2 identities; folders:tracklets reads tr",
        ),
        (
            ("a/t1", "b/t2", "c/t2", "d/t3"),
            "3 for 4 identities, 2 of which saw one identity alone, ",
        ),
    ],
)
def test_folders_that_look_like_no_cameras_are_doubted(tmp_path, names, told):
    (line,) = read(tmp_path, [f"train/{name}/1.jpg" for name in names]).warnings
    assert line.startswith(f"are these folders cameras? There are {told}")


def test_cameras_that_see_most_people_are_not_doubted(tmp_path):
    names = [f"train/{person}/{camera}/1.jpg" for person in "abc" for camera in "xyz"]
    assert read(tmp_path, [*names[:-1]]).warnings == []


def test_what_is_named_as_an_image_and_is_none_is_called_no_file(tmp_path):
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob/gone.jpg").symlink_to("nowhere.jpg")
    found = read(
        tmp_path, [f"{name}/{n}.jpg" for name in ("alice", "bob", "carol") for n in (1, 2)]
    )
    assert [*map(str, found.problems)] == ["bob/gone.jpg (no file)"]


def test_people_whose_names_are_no_text_are_problems_of_their_images(tmp_path):
    files = [f"{name}/{n}.jpg" for name in ("alice", "bob", "\udcff") for n in (1, 2)]
    found = read(tmp_path, files)
    assert {image.name for image in found.images} == {*files}  # packing them tells the names


def test_other_folders_are_reported_when_no_image_is_found(tmp_path):
    with pytest.raises(ValueError, match=r"problems: .*hall \(a folder beside the splits\)"):
        read(tmp_path, ["train/alice/1.jpg", "hall/alice/1.jpg"], **CAMERA_FIRST)
