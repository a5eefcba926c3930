"""The counts of a data set, compared with a training and an evaluation before they begin."""

import json

import pytest

from components.__main__ import main
from san_core.images.imageset import write_imageset
from san_core.images.pixels import encode_jpeg
from san_core.images.shard import Item


@pytest.fixture
def checked(tmp_path, picture):
    """Checks a set of a few images, given as split=pids."""
    data = encode_jpeg(picture(0), quality=80)

    def check(overrides="", **people):
        items = [
            Item(f"{split}/{i}.jpg", data, pid, i % 2, split)
            for split, pids in people.items()
            for i, pid in enumerate(pids)
        ]
        write_imageset(tmp_path / "reid", items, provenance={})
        flags = ["--recipe", "demo-baseline", "--overrides", overrides]
        out = ["--dataset", str(tmp_path / "reid"), "--counts", str(tmp_path / "counts.json")]
        return main(["check_reid", *out, *flags])

    return check


TESTED = {"query": [20, 21], "gallery": [20, 21, 21]}


def test_counts_of_a_set_that_will_do_are_told(checked, tmp_path):
    train = [pid for pid in range(1, 11) for _ in range(4)]
    assert checked("eval_every=1 validation_share=0.1", train=train, **TESTED) == 0
    assert json.loads((tmp_path / "counts.json").read_bytes()) == {
        "train_people": 8,
        "train_images": 32,
        "validation_people": 2,
        "validation_images": 8,
        "queries": 2,
        "gallery_images": 3,
    }


def test_few_validation_people_are_warned_of(checked, caplog):
    train = [pid for pid in range(1, 11) for _ in range(4)]
    assert checked("eval_every=1 validation_share=0.1", train=train, **TESTED) == 0
    assert (
        "validation has 4 queries of 2 identities, and fewer than 100 or 20 give an" in caplog.text
    )


def test_texture_losses_of_one_batch_are_warned_of(checked, caplog):
    train = [pid for pid in range(1, 11) for _ in range(4)]
    assert checked("w_rec=1 texture_every=1000", train=train, **TESTED) == 0
    assert "texture_every=1000 leaves texture losses to the first batch alone" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "people", "message"),
    [
        ("", {"train": range(1, 8)}, "identities_per_batch is 8, but there are 7 identities"),
        (
            "w_tri=0",
            {"train": [1, 1]},
            "the data set has 1 identity to train on; at least 2 are needed",
        ),
        ("", {"val": [1]}, "split train"),
        (
            "eval_every=1",
            {"train": range(1, 10), "val": [9, 30]},
            "1 of 2 identities in split val are trained on, such as 9",
        ),
        (
            "eval_every=1 validation_share=0.9 identities_per_batch=2",
            {"train": range(1, 4)},
            "holding out 2 of them for validation leaves fewer than 2 to train on",
        ),
        ("", {"train": range(1, 9), "query": []}, "the data set has no images in split query"),
        ("", {"train": range(1, 9), "gallery": []}, "the data set has no images in split gallery"),
    ],
)
def test_a_set_that_will_not_do_is_refused(checked, capsys, overrides, people, message):
    assert checked(overrides, **{**TESTED, **people}) == 1
    (line,) = (one for one in capsys.readouterr().err.splitlines() if one.startswith("check_reid:"))
    assert message in line


def test_an_epoch_that_would_leave_out_most_images_is_said_to(checked, capsys):
    train = [1] * 60 + list(range(2, 9))
    assert checked("identities_per_batch=8 images_per_identity=2", train=train, **TESTED) == 0
    assert "an epoch has 1 batch and shows 23.9% of the 67 images" in capsys.readouterr().err
