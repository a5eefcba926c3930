"""Whom a data set trains and validates on."""

import numpy as np
import pytest

from san_core.data.batches.identities import (
    held_out_mask,
    split_identities,
    unseen_images_warning,
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
    with pytest.raises(ValueError, match=r"1 of 2 people in split val are trained on, such as 2:"):
        split_identities(overlapping, recipe)
    split_identities(overlapping, tiny_recipe("demo-baseline"))  # val is not used


@pytest.mark.parametrize(
    ("val", "message"),
    [((6, 6), "2 validation images show 1 person"), ((6, 7), "show nobody twice by another cam")],
)
def test_what_cannot_be_scored_is_not_validated_on(val, message):
    with pytest.raises(ValueError, match=message):
        split_identities(Listed(train=(1, 2, 3, 5), val=val), tiny_recipe(words="eval_every=1"))


def test_share_of_the_people_is_held_out_with_all_their_images():
    pids = np.repeat(np.arange(1, 31), 3)
    is_out = held_out_mask(pids, 0.2)
    people = set(pids[is_out])
    assert len(people) == 6
    np.testing.assert_array_equal(is_out, np.isin(pids, list(people)))
    np.testing.assert_array_equal(held_out_mask(pids[::-1], 0.2), is_out[::-1])
    assert len(set(pids[held_out_mask(pids, 0.01)])) == 2
    with pytest.raises(ValueError, match=r"holding out 2 of them .* leaves fewer than 2"):
        held_out_mask(np.array([1, 2, 3]), 0.1)


def test_an_epoch_that_leaves_out_most_images_says_so_and_which_p_would_not():
    recipe = tiny_recipe("demo-baseline", "identities_per_batch=16 images_per_identity=4")
    few_have_most = np.repeat(np.arange(31), [3000, *[6] * 30])
    # 16 of 31 people in a batch: 2 batches of 64 images; 2 of them: 30 batches of 8
    assert unseen_images_warning(few_have_most, recipe) == (
        "an epoch has 2 batches and shows 4.0% of the 3,180 images, as few people have most of"
        " them; identities_per_batch=2 would show 7.5%"
    )


def test_an_epoch_that_shows_most_images_says_nothing():
    recipe = tiny_recipe("demo-baseline", "identities_per_batch=4 images_per_identity=2")
    assert unseen_images_warning(np.repeat(np.arange(8), 6), recipe) == ""
