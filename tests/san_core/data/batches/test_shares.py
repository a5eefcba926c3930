"""Whether processes can share batches, before there are images to share."""

import pytest

from san_core.data.batches.shares import check_shares, check_shares_of_full_batches
from san_core.recipe import recipe_with_overrides
from san_core.recipes import get_recipe


@pytest.mark.parametrize(
    ("name", "overrides", "size", "message"),
    [
        ("cuhk03", "identities_per_batch=16", 3, "a batch of 16 identities of 4 images cannot be"),
        (
            "pit",
            "batch_size=64",
            6,
            "a batch of 64 images cannot be divided equally among 6 processes",
        ),
        (
            "cuhk03",
            "pit_every=2 batch_size=30",
            4,
            "a batch of 30 images cannot be divided equally",
        ),
        (
            "cuhk03",
            "texture_share=0.25",
            8,
            "texture_share 0.25 of 16 identities is 4, which cannot",
        ),
        ("cuhk03-two-step", "", 2, "two_step trains in one process"),
    ],
)
def test_processes_that_batches_do_not_divide_by_are_refused(name, overrides, size, message):
    recipe = recipe_with_overrides(get_recipe(name), overrides)
    check_shares_of_full_batches(recipe, 1)
    with pytest.raises(ValueError, match=message):
        check_shares_of_full_batches(recipe, size)


def test_a_share_of_few_images_must_leave_some_with_textures():
    words = "w_tri=0 w_tr=0 normalize_triplet=false batch_size=64 texture_share=0.1"
    recipe = recipe_with_overrides(get_recipe("cuhk03"), words)
    check_shares(recipe, 1, images=6)
    with pytest.raises(
        ValueError, match=r"texture_share 0\.1 of 4 images is 0, which cannot be divided equally"
    ):
        check_shares(recipe, 1, images=4)


def test_the_one_small_batch_of_few_images_counts():
    recipe = recipe_with_overrides(get_recipe("pit"), "batch_size=64")
    check_shares(recipe, 3, images=6)
    with pytest.raises(ValueError, match="a batch of 6 images cannot be divided equally among 4"):
        check_shares(recipe, 4, images=6)
