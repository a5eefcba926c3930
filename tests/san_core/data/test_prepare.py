"""Images on their way from a listing into a set."""

import errno
import io
import json
import os
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from san_core.data.prepare import (
    Findings,
    SetPart,
    check_images,
    number_on,
    select_splits,
    train_on_all,
    write_prepared_set,
)
from san_core.data.readers import images
from san_core.data.records import (
    ListedImage,
    Listing,
    Problem,
    ProblemsError,
    PublishedCounts,
    SplitCounts,
)
from san_core.data.tree import open_tree
from san_core.images.imageset import ImageSet, write_imageset
from san_core.images.pixels import decode, encode_jpeg, encode_png
from san_core.images.shard import Item
from tests.benchmarks.groups.datasets import PREPARE_CODE
from tests.benchmarks.measuring import peak_mib


@pytest.fixture
def jpeg(picture):
    return lambda seed: encode_jpeg(picture(seed), quality=90)


def listed(name, data, pid=1, camid=0, split="train", **fields):
    return ListedImage(name, pid, camid, split, lambda: data, fields)


def taken(images, seen=None):
    found = Findings()
    items = list(check_images(images, found, seen={} if seen is None else seen))
    return items, found.problems


def test_whole_images_pass_as_they_are(jpeg, picture):
    png = encode_png(picture(2))
    images = [listed("a.jpg", jpeg(1), 3, 2, "query", person="x"), listed("b.png", png)]
    items, problems = taken(images)
    assert items == [
        Item("a.jpg", jpeg(1), 3, 2, "query", {"person": "x"}),
        Item("b.png", png, 1, 0, "train", {}),
    ]
    assert problems == []


def missing():
    raise FileNotFoundError("b.jpg is gone")


def test_damaged_images_are_problems_by_name(jpeg):
    cut, text = jpeg(1)[:-100], b"no image"
    images = [
        listed("cut.jpg", cut),
        listed("text.jpg", text),
        ListedImage("b.jpg", 1, 0, "train", missing),
        listed("good.jpg", jpeg(1)),
    ]
    items, problems = taken(images)
    assert [item.name for item in items] == ["good.jpg"]
    assert [(kind, name) for kind, name, _ in problems] == [
        ("damaged image", "cut.jpg"),
        ("damaged image", "text.jpg"),
        ("damaged image", "b.jpg"),
    ]
    assert problems[0].detail.startswith(f"{len(cut)} bytes are not a whole image (image file is t")
    assert problems[1].detail == "8 bytes that are not one of JPEG, PNG, WebP, BMP, TIFF"
    assert problems[2].detail == "b.jpg is gone"


def test_a_name_of_any_bytes_is_a_printable_problem(tmp_path, jpeg):
    (tmp_path / "own").mkdir()
    for i, name in enumerate([b"a\xff.jpg", b"good.jpg"]):
        (tmp_path / "own" / os.fsdecode(name)).write_bytes(jpeg(i))
    with open_tree(tmp_path / "own") as tree:
        found = images.listing(tree, {}).images
        told = Findings()
        items = check_images(found, told, seen={})
        write_prepared_set(tmp_path / "set", items, told, provenance={}, skip_bad=True)
    with ImageSet.open(tmp_path / "set") as kept:
        assert [record.name for record in kept.records] == ["good.jpg"]
        assert kept.manifest["provenance"]["skipped"] == [
            {"kind": "unknown name", "name": r"a\udcff.jpg", "detail": "not in UTF-8"}
        ]


def test_of_equal_images_the_first_is_taken_also_between_sets(jpeg):
    seen = {}
    items, problems = taken([listed("a.jpg", jpeg(1)), listed("b.jpg", jpeg(1), 2)], seen)
    assert [item.name for item in items] == ["a.jpg"]
    assert problems == [("duplicate image", "b.jpg", "the same as a.jpg")]
    items, problems = taken([listed("c.jpg", jpeg(1)), listed("d.jpg", jpeg(2))], seen)
    assert [item.name for item in items] == ["d.jpg"]
    assert problems == [("duplicate image", "c.jpg", "the same as a.jpg")]


def test_images_of_one_name_in_two_sets_are_compared_too(jpeg):
    seen, found = {}, Findings()
    first = check_images([listed("a.jpg", jpeg(1))], found, seen=seen, prefix="one/")
    second = check_images([listed("a.jpg", jpeg(1))], found, seen=seen, prefix="two/")
    assert [item.name for item in [*first, *second]] == ["one/a.jpg"]
    assert found.problems == [("duplicate image", "two/a.jpg", "the same as one/a.jpg")]


def test_images_that_a_published_split_has_twice_are_kept(jpeg):
    found = Findings()
    images = [
        listed("a.jpg", jpeg(1)),
        listed("b.jpg", jpeg(1), 2),
        listed("c.jpg", jpeg(1), split="query"),
    ]
    items = list(check_images(images, found, seen={}, is_published=True))
    assert [item.name for item in items] == ["a.jpg", "b.jpg"]
    assert found.duplicates == [("duplicate image", "b.jpg", "the same as a.jpg")]
    assert found.problems == [("duplicate image", "c.jpg", "the same as a.jpg")]


def test_a_name_that_a_tar_cannot_hold_is_a_problem(tmp_path, jpeg):
    fine = [f"{'d' * 155}/{'n' * 96}.jpg", f"{'n' * 96}.jpg", f"{'人' * 32}.jpg"]
    long = [f"{'d' * 156}/n.jpg", f"{'n' * 97}.jpg", f"{'人' * 33}.jpg"]
    found = Findings()
    images = [listed(name, jpeg(i)) for i, name in enumerate([*fine, *long])]
    items = check_images(images, found, seen={})
    write_prepared_set(tmp_path / "set", items, found, provenance={}, skip_bad=True)
    with ImageSet.open(tmp_path / "set") as kept:
        assert [record.name for record in kept.records] == fine
    limit = "a tar holds names of 100 bytes, or of 155 for the folders and 100 for the file"
    assert found.problems == [
        ("unknown name", name, f"{size} bytes long; {limit}")
        for name, size in zip(long, (162, 101, 103), strict=True)
    ]


def doubts(tmp_path, jpeg, *people):
    items = [
        Item(f"{i}.jpg", jpeg(i), pid, int(split == "gallery"), split)
        for i, (split, pid) in enumerate((split, pid) for split, pids in people for pid in pids)
    ]
    return write_prepared_set(tmp_path, items, Findings(), provenance={}).warnings


def test_test_people_that_were_trained_on_are_reported(tmp_path, jpeg):
    people = [("train", (1, 2)), ("val", (3,)), ("query", (2, 4)), ("gallery", (2, 4, 3, 0, -1))]
    assert doubts(tmp_path, jpeg, *people) == [
        "2 of 3 identities in query and gallery are in train or val too, such as 2: scores will "
        "be too high"
    ]


def test_queries_without_matches_are_reported(tmp_path, jpeg):
    people = [("train", (1,)), ("query", (2, 3, 4)), ("gallery", (3, 5))]
    assert doubts(tmp_path / "some", jpeg, *people) == [
        "2 of 3 identities in query are not in gallery, such as 2: their queries cannot be scored"
    ]
    assert doubts(tmp_path / "all", jpeg, *people[:2]) == [
        "there are queries but no gallery, so nothing can be scored"
    ]
    people = [("train", (1,)), ("query", (3,)), ("gallery", (3, 5))]
    assert doubts(tmp_path / "none", jpeg, *people) == []


def seen_by(jpeg, *images):
    """Items of (split, pid, camid)."""
    return [
        Item(f"{i}.jpg", jpeg(i), pid, camid, split, {"person": "abc"[pid - 1]})
        for i, (split, pid, camid) in enumerate(images)
    ]


def test_queries_on_one_camera_alone_are_reported_and_kept_in_the_manifest(tmp_path, jpeg):
    images = [("query", 1, 0), ("query", 1, 0), ("query", 2, 0), ("gallery", 1, 0)]
    items = seen_by(jpeg, *images, ("gallery", 2, 0), ("gallery", 2, 1))
    written = write_prepared_set(tmp_path / "set", items, Findings(), provenance={})
    # The second person was seen by camera 1 too.
    assert written.warnings == [
        "2 of 3 queries show identities whose gallery images are all by the query's own camera, "
        "such as a: these images are left out, so the queries are not scored"
    ]
    with ImageSet.open(tmp_path / "set") as kept:
        assert kept.manifest["provenance"]["warnings"] == written.warnings


@pytest.mark.parametrize(
    ("gallery", "message"),
    [
        (
            [("gallery", 1, 0), ("gallery", 2, 1)],
            "none of the 2 queries can be scored: 2 show identities whose gallery images are all "
            "by the query's own camera and are left out; csv:camera-free and folders:camera-free",
        ),
        (
            [("gallery", 3, 1)],
            "none of the 2 queries can be scored: 2 show identities that are not",
        ),
        (
            [("gallery", 1, 0)],
            "queries can be scored: 1 show identities that are not in gallery; 1 s",
        ),
    ],
)
def test_a_set_of_which_no_query_can_be_scored_is_refused(tmp_path, jpeg, gallery, message):
    items = seen_by(jpeg, ("train", 1, 0), ("query", 1, 0), ("query", 2, 1), *gallery)
    with pytest.raises(ValueError, match=message):
        write_prepared_set(tmp_path / "set", items, Findings(), provenance={})
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_cameras_do_not_matter_where_queries_are_judged_without(tmp_path, jpeg):
    items = seen_by(jpeg, ("query", 1, 0), ("gallery", 1, 0), ("gallery", 2, 0))
    camera_free = SetPart("own", protocol="camera-free")
    written = write_prepared_set(tmp_path, items, Findings(), provenance={}, parts=[camera_free])
    assert written.warnings == []


def test_all_that_people_should_know_is_warned_of(tmp_path, jpeg):
    found = Findings([Problem("unknown name", "x.gif")], warnings=["passed over: 2 files"])
    items = seen_by(jpeg, ("train", 1, 0), ("query", 1, 0), ("gallery", 1, 1))
    written = write_prepared_set(
        tmp_path,
        items,
        found,
        provenance={},
        parts=[SetPart("own", published={"train": PublishedCounts(2, 5)})],
        skip_bad=True,
    )
    assert written.warnings == [
        "left out: 1 unknown name: x.gif",
        "differs from the published set: train: 1 images of 1 identities; 5 of 2 were published",
        "passed over: 2 files",
        "1 of 1 identities in query and gallery are in train or val too, such as a: scores will "
        "be too high",
        "query and gallery show 1 identity: every answer is right",
    ]
    with ImageSet.open(tmp_path) as kept:
        assert kept.manifest["provenance"]["warnings"] == written.warnings


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF"])
def test_an_image_of_another_format_is_kept_as_png(tmp_path, picture, kind):
    buffer = io.BytesIO()
    Image.fromarray(picture(1)).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    found = Findings()
    suffix = {"WEBP": "webp", "BMP": "jpg", "TIFF": "tif"}[kind]  # names may be wrong
    items = check_images([listed(f"a/1.{suffix}", buffer.getvalue())], found, seen={})
    write_prepared_set(tmp_path, items, found, provenance={})
    with ImageSet.open(tmp_path) as kept:
        (record,) = kept.records
        assert record.name == "a/1.png"
        assert kept.read(record).startswith(b"\x89PNG")
        assert np.array_equal(decode(kept.read(record)), picture(1))
        told = {"WEBP": "WebP"}.get(kind, kind)
        assert kept.manifest["provenance"]["kept_as_png"] == {told: 1}


def test_transparent_images_are_counted(tmp_path, picture):
    found, buffers = Findings(), [io.BytesIO() for _ in range(3)]
    for alpha, buffer in zip((0, 254, 255), buffers, strict=True):
        image = Image.fromarray(picture(alpha))
        image.putalpha(alpha)
        image.save(buffer, "PNG")
    images = [listed(f"a/{i}.png", buffer.getvalue()) for i, buffer in enumerate(buffers)]
    write_prepared_set(tmp_path, check_images(images, found, seen={}), found, provenance={})
    with ImageSet.open(tmp_path) as kept:
        assert kept.manifest["provenance"]["laid_on_white"] == 2


def test_an_image_that_would_be_called_as_another_is_a_problem(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture(1)).save(buffer, "BMP")
    images = [listed("a/1.png", encode_png(picture(2))), listed("a/1.bmp", buffer.getvalue())]
    items, problems = taken(images)
    assert [item.name for item in items] == ["a/1.png"]
    told = "it would be stored as a/1.png, like a/1.png"
    assert problems == [("unknown name", "a/1.bmp", told)]


def test_validation_people_that_are_trained_on_are_reported(tmp_path, jpeg):
    people = [("train", (1, 2)), ("val", (2, 3)), ("query", (4, 5)), ("gallery", (4, 5))]
    assert doubts(tmp_path, jpeg, *people) == [
        "1 of 2 identities in val are in train too, such as 2: val cannot be used for validation "
        "(eval_every)"
    ]


def test_a_single_test_person_is_reported(tmp_path, jpeg):
    people = [("train", (1,)), ("query", (3,)), ("gallery", (3, 3, -1))]
    assert doubts(tmp_path / "one", jpeg, *people) == [
        "query and gallery show 1 identity: every answer is right"
    ]
    people = [("train", (1,)), ("query", (3,)), ("gallery", (3, 0))]
    assert doubts(tmp_path / "distracted", jpeg, *people) == []


def test_a_part_of_a_data_set_has_the_splits_that_are_needed():
    images = [listed("a", b""), listed("b", b"", split="query"), listed("c", b"", split="val")]
    published = {"train": PublishedCounts(1, 1), "query": PublishedCounts(1, 1)}
    elsewhere = Problem("missing image", "y", split="gallery")
    problems = [Problem("unknown name", "x"), Problem("damaged image", "z", split="val")]
    whole = Listing(images, [*problems, elsewhere], published, "market1501")
    part = select_splits(whole, ("train", "val"), needed=("train",), name="market1501")
    assert [image.name for image in part.images] == ["a", "c"]
    assert part.problems == problems
    assert part.published == {"train": (1, 1)}
    with pytest.raises(ValueError, match="data set market1501 has no images in split gallery"):
        select_splits(whole, ("query", "gallery"), needed=("query", "gallery"), name="market1501")


def test_moved_people_keep_apart_and_nobody_stays_nobody():
    items = [Item("a.jpg", b"", pid, None, "gallery") for pid in (1, 7, 0, -1)]
    items += [Item("b.jpg", b"", None, None, "images")]
    found = list(number_on(items, people=10, cameras=0))
    assert [(item.name, item.pid) for item in found] == [
        ("a.jpg", 11),
        ("a.jpg", 17),
        ("a.jpg", 0),
        ("a.jpg", -1),
        ("b.jpg", None),
    ]


def test_cameras_to_train_on_keep_apart_and_those_of_test_images_stay():
    items = [Item("a", b"", 2, 3, "train", {"camera": "door"}), Item("b", b"", 2, 0, "val")]
    found = list(number_on([*items, Item("c", b"", 3, 4, "query")], people=10, cameras=6))
    assert [(item.pid, item.camid, item.fields) for item in found] == [
        (12, 9, {"person": "2", "camera": "door"}),
        (12, 6, {"person": "2", "camera": "0"}),
        (13, 4, {"person": "3"}),
    ]


def test_a_set_is_trained_on_as_a_whole_but_for_distractors_junk_and_second_pictures():
    labels = (("a", 1, "train"), ("b", 2, "query"), ("c", 2, "gallery"), ("d", 0, "gallery"))
    labels += (("e", -1, "gallery"), ("f", 2, "multi"), ("g", 3, "val"))
    images = [listed(name, b"", pid=pid, split=split) for name, pid, split in labels]
    problem = Problem("unknown name", "x")
    whole = Listing(images, [problem], {"train": PublishedCounts(1, 1)}, "market1501", ["doubt"])
    found = train_on_all(whole, name="market1501")
    assert [(i.name, i.pid, i.split) for i in found.images] == [
        ("a", 1, "train"),
        ("b", 2, "train"),
        ("c", 2, "train"),
        ("g", 3, "train"),
    ]
    assert (found.problems, found.published, found.protocol) == ([problem], {}, "")
    assert found.warnings == [
        "doubt",
        "option all trains on 2 test images of market1501: scores on market1501 are not benchmark "
        "results",
    ]
    only = Listing(images[:1], [])
    assert train_on_all(only, name="csv").warnings == []


def items_of(jpeg, count, split, pids=2):
    return [Item(f"{split}/{i}.jpg", jpeg(i), 1 + i % pids, i % 3, split) for i in range(count)]


def test_the_manifest_has_protocol_and_counts(tmp_path, jpeg):
    queries = [item._replace(pid=item.pid + 2) for item in items_of(jpeg, 3, "query")]
    found = [Item(f"{pid}.jpg", jpeg(9), pid, 5, "gallery") for pid in (0, 3, 4)]
    items = [*items_of(jpeg, 4, "train"), *queries, *found]
    written = write_prepared_set(tmp_path, items, Findings(), provenance={"made_by": "a test"})
    assert written.protocol == "market1501"
    assert written.counts["train"] == SplitCounts(ids=2, images=4, cameras=3, distractors=0, junk=0)
    with ImageSet.open(tmp_path) as images:
        assert images.manifest["provenance"] == {
            "made_by": "a test",
            "protocol": "market1501",
            "subsets": {
                "train": {"ids": 2, "images": 4, "cameras": 3, "distractors": 0, "junk": 0},
                "query": {"ids": 2, "images": 3, "cameras": 3, "distractors": 0, "junk": 0},
                "gallery": {"ids": 2, "images": 3, "cameras": 1, "distractors": 1, "junk": 0},
            },
        }
        assert [images.read(record) for record in images.records] == [item.data for item in items]


@pytest.mark.parametrize(
    ("protocol", "camid", "split", "expected"),
    [
        ("", 0, "query", "market1501"),
        ("", None, "query", "camera-free"),
        ("", None, "images", ""),
        ("single-gallery-shot", 0, "query", "single-gallery-shot"),
    ],
)
def test_the_protocol_follows_from_the_cameras(tmp_path, jpeg, protocol, camid, split, expected):
    item = Item("a.jpg", jpeg(1), 1, camid, split)
    parts = [SetPart("own", protocol=protocol)]
    written = write_prepared_set(tmp_path, [item], Findings(), provenance={}, parts=parts)
    assert written.protocol == expected


def test_every_split_has_a_contact_sheet(tmp_path, jpeg):
    items = [*items_of(jpeg, 130, "train"), *items_of(jpeg, 16, "query")]
    write_prepared_set(tmp_path, items, Findings(), provenance={})
    shapes = {p.name: decode(p.read_bytes()).shape for p in (tmp_path / "preview").iterdir()}
    # Fifteen cells of 128x64 a row, with gaps of 2 and two lines of a label: 44 of 130 pictures are
    # three rows, 16 two.
    assert shapes == {
        "train.png": (3 * 154 + 2, 15 * 66 + 2, 3),
        "query.png": (2 * 154 + 2, 15 * 66 + 2, 3),
    }


def test_a_set_with_problems_is_refused_unless_they_are_skipped(tmp_path, jpeg):
    found = Findings([Problem("unknown name", "x.gif")])
    images = [listed("a.jpg", jpeg(1)), listed("b.jpg", b"damaged"), listed("c.jpg", jpeg(1))]
    with pytest.raises(ProblemsError, match=r"^1 unknown name: x\.gif; 1 damaged image: b\.jpg \("):
        write_prepared_set(
            tmp_path / "a", check_images(images, found, seen={}), found, provenance={}
        )
    assert not (tmp_path / "a" / "manifest.json").exists()
    found = Findings([Problem("unknown name", "x.gif")])
    write_prepared_set(
        tmp_path / "b",
        check_images(images, found, seen={}),
        found,
        provenance={},
        skip_bad=True,
    )
    with ImageSet.open(tmp_path / "b") as kept:
        assert [record.name for record in kept.records] == ["a.jpg"]
        assert kept.manifest["provenance"]["skipped"] == [
            {"kind": "unknown name", "name": "x.gif", "detail": ""},
            {
                "kind": "damaged image",
                "name": "b.jpg",
                "detail": "7 bytes that are not one of JPEG, PNG, WebP, BMP, TIFF",
            },
            {"kind": "duplicate image", "name": "c.jpg", "detail": "the same as a.jpg"},
        ]


def test_images_of_a_split_whose_textures_would_have_one_name_are_a_problem(jpeg):
    images = [listed("a/0.jpg", jpeg(1)), listed("a/0.png", jpeg(2)), listed("b/0.png", jpeg(3))]
    items, problems = taken(images)
    assert [item.name for item in items] == ["a/0.jpg", "b/0.png"]
    detail = "it differs from a/0.jpg only in its ending"
    assert problems == [("ambiguous name", "a/0.png", detail)]


def test_images_of_two_splits_have_textures_of_two_sets(jpeg):
    images = [listed("0.jpg", jpeg(1)), replace(listed("0.png", jpeg(2)), split="query")]
    assert taken(images)[1] == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM])
def test_error_of_the_file_system_is_no_fault_of_the_image(number):
    def read():
        raise OSError(number, os.strerror(number), "/nfs/a.jpg")

    image = ListedImage("a.jpg", 1, 0, "train", read)
    with pytest.raises(OSError) as found:
        taken([image])
    assert (found.value.errno, found.value.filename) == (number, "/nfs/a.jpg")


def test_image_that_cannot_be_had_is_a_problem():
    def read():
        raise PermissionError(errno.EACCES, "Permission denied", "a.jpg")

    assert [p.kind for p in taken([ListedImage("a.jpg", 1, 0, "train", read)])[1]] == [
        "damaged image"
    ]


@pytest.mark.slow
def test_memory_does_not_follow_the_size_of_pictures(tmp_path):
    photograph = encode_jpeg(np.zeros((2000, 2000, 3), np.uint8), quality=50)  # decoded, 12 MB
    photograph += bytes(2 << 20)  # after its end; a camera's file is as long

    def items():
        for i in range(20):
            yield Item(f"{i}.jpg", photograph + bytes([i]), 1, 0, "train")

    tracemalloc.start()
    write_prepared_set(tmp_path / "a", items(), Findings(), provenance={})
    write_imageset(tmp_path / "b", items(), provenance={})
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 60 << 20


def test_a_set_of_which_nothing_is_left_is_refused(tmp_path):
    found = Findings()
    items = check_images([listed("b.jpg", b"damaged")], found, seen={})
    with pytest.raises(ProblemsError, match=r"^1 damaged image: b\.jpg \(7 bytes that are not"):
        write_prepared_set(tmp_path, items, found, provenance={}, skip_bad=True)
    assert not (tmp_path / "manifest.json").exists()


def test_shards_are_numbered_when_their_number_is_known(tmp_path, jpeg):
    write_prepared_set(tmp_path, items_of(jpeg, 1001, "train"), Findings(), provenance={})
    names = sorted(p.name[:15] for p in (tmp_path / "shards").iterdir())
    assert names == ["00000-of-00002."] * 2 + ["00001-of-00002."] * 2
    for sidecar in (tmp_path / "shards").glob("*.json"):
        assert json.loads(sidecar.read_bytes())["tar"] == f"shards/{sidecar.stem}.tar"
    with ImageSet.open(tmp_path) as images:
        images.verify()


@pytest.mark.slow
def test_memory_stays_flat_over_130000_images():
    few, many = (peak_mib(PREPARE_CODE.format(count=count)) for count in (13_000, 130_000))
    # An image takes less than 1 KiB: its name, labels and digest, in the listing and the index.
    assert (many - few) * 1024 / (130_000 - 13_000) < 1
