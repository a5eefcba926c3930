"""Whom a data set trains and validates on."""

import numpy as np
import pytest

from san_core.data.batches.identities import (
    few_validated_warning,
    held_out_mask,
    rare_textures_warning,
    split_identities,
    unseen_images_warning,
    validation_queries,
)
from san_core.images.shard import Record
from tests.san_core.training.tiny_run import tiny_recipe


class Listed:
    """The records of a data set whose images are not needed."""

    def __init__(self, **people):
        self.records = [
            Record(f"{split}/{i}.jpg", pid, i, split, 0, 0, 0, "")  # a camera each
            for split, pids in people.items()
            for i, pid in enumerate(pids)
        ]

    def records_in_splits(self, split):
        return [record for record in self.records if record.split == split]


def test_people_who_are_trained_on_are_not_validated_on():
    recipe = tiny_recipe("demo-baseline", "eval_every=1")
    parted = split_identities(Listed(train=(1, 2, 3, 5, 5), val=(6, 7, 7)), recipe)
    assert (len(parted.train_records), len(parted.validation_records)) == (5, 3)
    overlapping = Listed(train=(1, 2, 3, 5), val=(2, 9))
    with pytest.raises(
        ValueError, match=r"1 of 2 identities in split val are trained on, such as 2:"
    ):
        split_identities(overlapping, recipe)
    split_identities(overlapping, tiny_recipe("demo-baseline"))  # val is not used


@pytest.mark.parametrize(
    ("val", "message"),
    [
        ((6, 6), "2 validation images show 1 identity"),
        ((6, 7), "show no identity twice by another cam"),
    ],
)
def test_what_cannot_be_scored_is_not_validated_on(val, message):
    with pytest.raises(ValueError, match=message):
        split_identities(Listed(train=(1, 2, 3, 5), val=val), tiny_recipe(words="eval_every=1"))


def people_held_out(records, share, draw=0):
    is_out = held_out_mask(records, share, draw=draw)
    return {record.pid for record, out in zip(records, is_out, strict=True) if out}


def test_share_of_the_people_is_held_out_with_all_their_images():
    records = Listed(train=[pid for pid in range(1, 301) for _ in range(2)]).records
    people = people_held_out(records, 0.2)
    assert 45 < len(people) < 75
    is_out = [record.pid in people for record in records]
    np.testing.assert_array_equal(held_out_mask(records, 0.2), is_out)
    np.testing.assert_array_equal(held_out_mask(records[::-1], 0.2), is_out[::-1])
    assert len(people_held_out(records, 0.0001)) == 2
    with pytest.raises(ValueError, match=r"holding out 2 of them .* leaves fewer than 2"):
        held_out_mask(Listed(train=[1, 2, 3]).records, 0.1)


def test_a_share_of_nearly_all_leaves_two_to_train_on():
    records = Listed(train=range(1, 6)).records
    assert len(people_held_out(records, 0.9)) == 3
    with pytest.raises(ValueError, match="3 training identities: holding out 2 of them"):
        people_held_out(records[:3], 0.9)


def test_people_keep_their_side_when_a_data_set_grows():
    few = Listed(train=list(range(100, 200))).records
    many = Listed(train=list(range(1, 400))).records
    held = people_held_out(few, 0.2)
    assert people_held_out(many, 0.2) & set(range(100, 200)) == held


def test_another_draw_holds_out_others_about_as_many():
    records = Listed(train=list(range(1, 301))).records
    draws = [people_held_out(records, 0.2, draw) for draw in range(3)]
    assert all(45 < len(people) < 75 for people in draws)
    assert all(len(one & other) < 30 for one in draws for other in draws if one is not other)


def test_a_draw_where_the_split_val_decides_is_refused():
    recipe = tiny_recipe("demo-baseline", "eval_every=1 validation_draw=2")
    with pytest.raises(ValueError, match="have a split val, so validation_draw=2 would have no"):
        split_identities(Listed(train=(1, 2, 3, 5, 5), val=(6, 7, 7)), recipe)


def test_few_validation_people_are_reported():
    seen_twice = [pid for pid in range(60) for _ in range(2)]
    records = Listed(val=seen_twice).records
    assert few_validated_warning(records) == ""
    assert few_validated_warning(records[:38]).startswith(
        "validation has 38 queries of 19 identities, and fewer than 100 or 20 give an uncertain"
    )
    assert "80 queries of 40 identities" in few_validated_warning(records[:80])
    assert few_validated_warning([]) == ""


def test_only_people_whom_another_camera_saw_ask():
    pids, camids = np.array([1, 1, 1, 2, 2, 3]), np.array([0, 0, 1, 4, 4, 2])
    np.testing.assert_array_equal(validation_queries(pids, camids), [0, 2])
    np.testing.assert_array_equal(validation_queries(pids, None), [0, 3])


def test_an_epoch_that_leaves_out_most_images_says_so_and_which_p_would_not():
    recipe = tiny_recipe("demo-baseline", "identities_per_batch=16 images_per_identity=4")
    few_have_most = np.repeat(np.arange(31), [3000, *[6] * 30])
    # 16 of 31 people in a batch: 2 batches of 64 images; 2 of them: 30 batches of 8
    assert unseen_images_warning(few_have_most, recipe) == (
        "an epoch has 2 batches and shows 4.0% of the 3,180 images, because a few identities have "
        "most of them; identities_per_batch=2 would show 7.5%"
    )


def test_an_epoch_that_shows_most_images_says_nothing():
    recipe = tiny_recipe("demo-baseline", "identities_per_batch=4 images_per_identity=2")
    assert unseen_images_warning(np.repeat(np.arange(8), 6), recipe) == ""


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        # 8 people of 6 images: 3 groups of 2 each, so 6 batches of 4 x 2 an epoch
        ("texture_every=11", ""),
        ("texture_every=12", "the training has 12"),
        ("texture_every=6 texture_epochs=1", "the texture_epochs have 6"),
        # 48 images in whole batches of 8
        ("texture_every=12 w_tri=0 triplet_ramp_epochs=0", "the training has 12"),
        ("texture_every=11 w_tri=0 triplet_ramp_epochs=0", ""),
        ("texture_every=1", ""),
    ],
)
def test_textures_of_the_first_batch_alone_are_warned_of(words, warning):
    sizes = "identities_per_batch=4 images_per_identity=2 epochs=2 warmup_epochs=0"
    recipe = tiny_recipe("demo", f"{sizes} {words}")
    line = rare_textures_warning(np.repeat(np.arange(8), 6), recipe)
    assert line.endswith(warning)
    assert bool(line) == bool(warning)


def test_a_training_without_textures_has_none_too_rarely():
    assert rare_textures_warning(np.repeat(np.arange(8), 6), tiny_recipe("demo-baseline")) == ""
