import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from san_core.evaluation.ranking import Labels
from san_core.model.encoder import EncoderOutput
from san_core.training import fit
from san_core.validation import mean_average_precision
from tests.san_core.tiny_run import tiny_data, tiny_model, tiny_recipe

SETTINGS = tiny_recipe("demo-baseline")


class Brightness(nn.Module):
    """An encoder of the image's mean brightness, in length and in direction."""

    dim = 2

    def forward(self, images):
        level = images.mean((1, 2, 3))
        return EncoderOutput(torch.stack([level, torch.ones_like(level)], dim=1), ())


def shaded(*levels):
    return np.stack([np.full((8, 4, 3), level, np.uint8) for level in levels])


@pytest.mark.parametrize("name", ["demo-baseline", "cuhk03-baseline"])  # cosine, Euclidean
def test_the_score_is_the_map_of_later_images(name):
    # queries: images 0 (person 1, camera 0), 1 (1, 1), 2 (2, 0), 3 (2, 1); gallery: 4 ... 7
    levels = [100, 104, 110, 112, 108, 101, 111, 118]
    pids = np.array([1, 1, 2, 2, 1, 1, 2, 2])
    camids = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    evaluate = mean_average_precision(
        shaded(*levels), Labels(pids, camids), tiny_recipe(name, "epochs=30"), device="cpu"
    )
    # right answers are of the other camera, those of the same person and camera are left out:
    # 100: [101 right] -> 1;  104: [108 right] -> 1;  110: 101 at 9, 108 at 2, [118 right] at 8,
    # 111 left out -> 1/2;  112: 108 at 4, [111 right] at 1, 101 at 11 -> 1
    assert evaluate(SimpleNamespace(encoder=Brightness())) == pytest.approx((1 + 1 + 1 / 2 + 1) / 4)


def test_without_cameras_the_first_image_of_a_person_is_the_query():
    levels, pids = [100, 200, 150, 190], np.array([1, 2, 1, 2])
    evaluate = mean_average_precision(shaded(*levels), Labels(pids, None), SETTINGS, device="cpu")
    assert evaluate(SimpleNamespace(encoder=Brightness())) == pytest.approx((1 + 1) / 2)


def test_training_takes_it_as_its_score():
    data = tiny_data()
    labels = Labels(data.labels + 1, np.arange(48) % 2)
    evaluate = mean_average_precision(data.images, labels, SETTINGS, device="cpu")
    settings = dataclasses.replace(SETTINGS, eval_every=2)
    reports = fit(tiny_model(settings), data, settings, seed=0, device="cpu", evaluate=evaluate)
    scores = [report.score for report in reports]
    assert scores[0] is None
    assert all(0 < score <= 1 for score in scores[1:])


@pytest.mark.parametrize(
    ("pids", "message"),
    [
        ([1, 1], "2 validation labels for 3 images"),
        ([1, 2, 3], "3 validation images show nobody twice in one camera: none are left"),
    ],
)
def test_images_that_cannot_be_searched_are_refused(pids, message):
    with pytest.raises(ValueError, match=message):
        mean_average_precision(
            shaded(1, 2, 3), Labels(np.array(pids), None), SETTINGS, device="cpu"
        )
