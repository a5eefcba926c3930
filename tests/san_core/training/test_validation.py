import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from san_core.evaluation.ranking import Labels
from san_core.model.encoder import EncoderOutput
from san_core.training.finiteness import TrainingFailedError
from san_core.training.loop import fit
from san_core.training.validation import MapEvaluator
from tests.san_core.training.tiny_run import tiny_data, tiny_model, tiny_recipe

SETTINGS = tiny_recipe("demo-baseline")


class Brightness(nn.Module):
    """An encoder of the image's mean brightness, in length and in direction."""

    dim, image_size = 2, (8, 4)

    def forward(self, images):
        level = images.mean((1, 2, 3))
        features = torch.stack([level, torch.ones_like(level)], dim=1)
        return EncoderOutput(features, (), features)


def shaded(*levels):
    return np.stack([np.full((8, 4, 3), level, np.uint8) for level in levels])


@pytest.mark.parametrize("name", ["demo-baseline", "cuhk03-baseline"])  # cosine, Euclidean
def test_the_score_is_the_map_of_the_first_image_of_each_person_and_camera(name):
    # queries: images 0 (person 1, camera 0), 1 (1, 1), 2 (2, 0), 3 (2, 1)
    levels = [100, 104, 110, 113, 108, 101, 111, 118]
    pids = np.array([1, 1, 2, 2, 1, 1, 2, 2])
    camids = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    evaluate = MapEvaluator(
        shaded(*levels), Labels(pids, camids), tiny_recipe(name, "epochs=30"), device="cpu"
    )
    # right answers are of the other camera, those of the same person and camera are left out:
    # 100: 101 and 104 right -> 1;  104: 100 and 108 right -> 1;  113: 110 and 111 right -> 1;
    # 110: 108, [113 right], 104, [118 right] -> (1/2 + 2/4) / 2
    assert evaluate(SimpleNamespace(encoder=Brightness())) == pytest.approx((1 + 1 + 1 / 2 + 1) / 4)


def test_the_score_is_of_mirrored_images_too_where_the_recipe_says_so():
    flipped = []

    class Sides(Brightness):
        def forward(self, images):
            flipped.append(bool(images[0, 0, 0, 0] > images[0, 0, 0, -1]))
            return super().forward(images)

    images = shaded(100, 200, 150, 190)
    images[:, :, 0] = 0
    for mirrored, calls in ((False, [False]), (True, [False, True])):
        settings = dataclasses.replace(SETTINGS, mirrored=mirrored)
        labels = Labels(np.array([1, 2, 1, 2]), None)
        MapEvaluator(images, labels, settings, device="cpu")(SimpleNamespace(encoder=Sides()))
        assert flipped == calls
        flipped.clear()


def test_the_evaluator_reports_the_scored_people_and_the_interval():
    pids, camids = np.array([1, 1, 2, 2, 3]), np.array([0, 1, 0, 1, 0])
    evaluate = MapEvaluator(
        shaded(100, 101, 180, 120, 102), Labels(pids, camids), SETTINGS, device="cpu"
    )
    assert (evaluate.num_queries, evaluate.num_people, evaluate.interval) == (4, 2, None)
    score = evaluate(SimpleNamespace(encoder=Brightness()))
    assert evaluate.interval.low < score < evaluate.interval.high


def test_without_cameras_the_first_image_of_a_person_is_the_query():
    levels, pids = [100, 200, 150, 190], np.array([1, 2, 1, 2])
    evaluate = MapEvaluator(shaded(*levels), Labels(pids, None), SETTINGS, device="cpu")
    assert evaluate(SimpleNamespace(encoder=Brightness())) == pytest.approx((1 + 1) / 2)


def test_a_query_is_searched_among_the_other_queries_too():
    # A gallery without them would show person 1 alone: any network would find everybody.
    pids, camids = np.array([1, 1, 1, 1, 2, 2, 3, 3]), np.array([0, 0, 1, 1, 0, 1, 0, 1])
    levels = [100, 101, 180, 181, 102, 182, 103, 183]  # by camera, not by person
    evaluate = MapEvaluator(shaded(*levels), Labels(pids, camids), SETTINGS, device="cpu")
    assert evaluate(SimpleNamespace(encoder=Brightness())) < 0.5


def test_a_query_without_a_camera_leaves_itself_out():
    levels, pids = [100, 150, 101, 149], np.array([1, 1, 2, 2])  # everybody's nearest is a stranger
    evaluate = MapEvaluator(shaded(*levels), Labels(pids, None), SETTINGS, device="cpu")
    # 100: 101, 149, [150];  101: 100, [149], 150
    assert evaluate(SimpleNamespace(encoder=Brightness())) == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_training_takes_it_as_its_score():
    data = tiny_data()
    labels = Labels(data.labels + 1, np.arange(48) % 2)
    evaluate = MapEvaluator(data.images, labels, SETTINGS, device="cpu")
    settings = dataclasses.replace(SETTINGS, eval_every=2)
    reports = fit(tiny_model(settings), data, settings, seed=0, device="cpu", evaluate=evaluate)
    scores = [report.score for report in reports]
    assert scores[0] is None
    assert all(0 < score <= 1 for score in scores[1:])


@pytest.mark.parametrize(
    ("pids", "message"),
    [
        ([1, 1], "2 validation labels for 3 images"),
        ([1, 2, 3], "3 validation images show no identity twice, so they have no mAP"),
        ([1, 1, 1], "3 validation images show 1 identity: every answer would be right"),
        ([0, 0, 3], "query 0 has pid 0; people are numbered from 1"),
    ],
)
def test_images_that_cannot_be_searched_are_refused(pids, message):
    with pytest.raises(ValueError, match=message):
        MapEvaluator(shaded(1, 2, 3), Labels(np.array(pids), None), SETTINGS, device="cpu")


@pytest.mark.parametrize("camids", [[0, 0, 0, 0], [0, 1, 0, 2]])
def test_people_whom_one_camera_alone_shows_again_are_refused(camids):
    # person 1 alone is there twice, by one camera
    labels = Labels(np.array([1, 2, 1, 3]), np.array(camids))
    with pytest.raises(
        ValueError, match="4 validation images show no identity twice by another camera"
    ):
        MapEvaluator(shaded(1, 2, 3, 4), labels, SETTINGS, device="cpu")


@pytest.mark.parametrize("level", [0.0, 3.0])
def test_features_that_are_all_equal_end_training(level):
    class Collapsed(Brightness):
        def forward(self, images):
            found = super().forward(images)
            return found._replace(embedding=found.embedding * 0 + level)

    labels = Labels(np.array([1, 2, 1, 2]), None)
    evaluate = MapEvaluator(shaded(1, 2, 3, 4), labels, SETTINGS, device="cpu")
    with pytest.raises(TrainingFailedError, match=r"all 4 features of the validation images are"):
        evaluate(SimpleNamespace(encoder=Collapsed()))


def test_features_of_zeros_tie_and_are_counted():
    class Dead(Brightness):
        def forward(self, images):
            found = super().forward(images)
            keep = found.embedding.sum(dim=1, keepdim=True) != found.embedding.sum(dim=1)[0]
            return found._replace(embedding=found.embedding * keep)

    told = []
    labels = Labels(np.array([1, 2, 1, 2]), None)
    evaluate = MapEvaluator(
        shaded(50, 80, 90, 120), labels, SETTINGS, device="cpu", on_zeros=told.append
    )
    assert 0 <= evaluate(SimpleNamespace(encoder=Dead())) <= 1
    assert told == [1]
