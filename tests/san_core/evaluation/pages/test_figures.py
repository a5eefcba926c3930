"""Figures as people read them."""

import pytest

from san_core.evaluation.pages.figures import is_share, number_in_words


@pytest.mark.parametrize("name", ["rank1", "mAP", "mINP_sysu", "val_mAP_low", "accuracy_identity"])
def test_shares_are_known_by_their_names(name):
    assert is_share(name)


@pytest.mark.parametrize("name", ["val_psnr", "loss", "num_skipped", "ranking", "accuracy"])
def test_other_figures_are_no_shares(name):
    assert not is_share(name)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (12936.0, "12,936"),
        (12936.7, "12,937"),
        (9999.6, "10,000"),
        (3.0, "3"),
        (21.456, "21.46"),
        (0.00012, "0.00012"),
    ],
)
def test_large_numbers_are_whole_and_have_no_exponent(value, words):
    assert number_in_words(value) == words
