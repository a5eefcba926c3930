"""How images are divided among workers that embed them."""

import pytest

from san_core.evaluation.feature_parts import Part


@pytest.mark.parametrize(("total", "workers"), [(1, 1), (12, 3), (13, 3), (640, 7), (1000, 16)])
def test_workers_embed_every_image_once_in_whole_batches(total, workers):
    ranges = [Part(number, workers).rows(total, batch=4) for number in range(workers)]
    assert [row for rows in ranges for row in range(total)[rows]] == list(range(total))
    assert all(rows.start % 4 == 0 for rows in ranges)
    sizes = [rows.stop - rows.start for rows in ranges]
    assert max(sizes) - min(sizes) < 8  # by a batch, and what the last one lacks


def test_more_workers_than_batches_are_refused():
    with pytest.raises(ValueError, match="4 workers are too many: 12 images make 3 batches of 4"):
        Part(0, 4).rows(12, batch=4)


def test_parts_of_other_images_or_another_order_are_distinguished():
    told = [Part(0, 2).told(names)["images"] for names in (["a", "b"], ["b", "a"], ["a", "b"])]
    assert told[0] == told[2] != told[1]
