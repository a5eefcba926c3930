import pytest

from san_core.recipes import get_recipe
from san_core.training.schedule import is_warmed_up_apart, learning_rate_share, loss_weights
from tests.san_core.training.tiny_run import tiny_recipe


def test_learning_rates_by_hand():
    cosine = tiny_recipe("demo", "epochs=10 warmup_epochs=2")
    shares = [learning_rate_share(cosine, p) for p in (0, 1, 2, 6, 10)]
    assert shares == pytest.approx([0, 0.5, 1, 0.5, 0])
    steps = tiny_recipe("demo", "epochs=10 schedule=multistep milestones=4,6 gamma=0.5")
    shares = [learning_rate_share(steps, p) for p in (0.5, 3.9, 4, 5.5, 6, 9)]
    assert shares == pytest.approx([0.5, 1, 0.5, 0.5, 0.25, 0.25])


def test_the_cosine_may_begin_later_than_warm_up_ends():
    late = tiny_recipe("demo", "epochs=60 warmup_epochs=10 cosine_from=30")
    shares = [learning_rate_share(late, p) for p in (5, 10, 29.9, 30, 45, 60)]
    assert shares == pytest.approx([0.5, 1, 1, 1, 0.5, 0])


def test_the_triplet_alone_is_ramped():
    words = "w_id=2 w_tri=3 w_distill=4 w_rec=5 w_tr=7"
    ramped = tiny_recipe("demo", f"{words} triplet_ramp_epochs=2 epochs=4")
    first = {"id": 2, "tri": 0, "distill": 4, "rec": 5, "tr": 7, "dense": 0}
    assert loss_weights(ramped, 0) == first
    assert loss_weights(ramped, 0.5)["tri"] == pytest.approx(3 * 0.5 / 2)
    assert loss_weights(ramped, 2) == loss_weights(ramped, 3.5)
    assert loss_weights(ramped, 2)["tri"] == 3
    plain = tiny_recipe("demo", "triplet_ramp_epochs=0")
    assert loss_weights(plain, 0)["tri"] == plain.w_tri


def test_an_exponential_warm_up_ends_with_its_last_epoch():
    recipe = get_recipe("cuhk03-official")
    end = recipe.warmup_epochs
    assert [is_warmed_up_apart(recipe, epoch) for epoch in (0, end - 0.01, end)] == [
        True,
        True,
        False,
    ]
    assert not is_warmed_up_apart(get_recipe("cuhk03"), 0)
