"""What a training step of each cheap form of texture supervision costs beside the baseline's.

CPU time of whole short trainings by `fit`, on pictures and textures of noise at the sizes of the
evidence: forms that spare some batches or epochs have no single step to measure.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from san_core.data.batches.training_data import TrainingData
from san_core.model.san import build_network
from san_core.recipe import Recipe
from san_core.synthesis.person.atlas import mirror_matrix
from san_core.training.loop import fit
from tests.benchmarks.evidence.arms import ARMS, CHEAP_ARMS, recipe_of_arm
from tests.benchmarks.evidence.starts import recipe_of_generator
from tests.benchmarks.figure import Figure
from tests.benchmarks.measuring import median_cpu_seconds

EPOCHS, BATCHES = 4, 4  # of a training, and of its epochs
ROUNDS = 5
MEASURED = ("full", *CHEAP_ARMS)


def figures() -> Iterator[Figure]:
    """The CPU time of every form over the baseline's; they take turns."""
    rivals = [short_training(short_recipe(name)) for name in ("baseline", *MEASURED)]
    baseline, *seconds = median_cpu_seconds(*rivals, times=ROUNDS)
    for name, taken in zip(MEASURED, seconds, strict=True):
        yield Figure(f"evidence.step_cost_{name}", taken / baseline, "ratio")


def short_recipe(name: str) -> Recipe:
    """The recipe of an arm for fewer epochs, of which the same share has textures."""
    return recipe_of_arm((ARMS | CHEAP_ARMS)[name], EPOCHS)


def short_training(settings: Recipe, *, batches: int = BATCHES) -> Callable[[], object]:
    """A training by that recipe, which each call does once more, with so many batches an epoch."""
    data = _noise(settings, batches)
    model = build_network(settings, num_classes=data.num_classes, seed=0)
    teacher = build_network(recipe_of_generator(settings), num_classes=0, seed=1).encoder
    taught_by = teacher if settings.w_distill else None
    return lambda: list(fit(model, data, settings, seed=0, device="cpu", teacher=taught_by))


def _noise(settings: Recipe, batches: int) -> TrainingData:
    """Pictures of as many people as a batch has, each in all batches, and a texture for each."""
    draw = np.random.default_rng(0)
    people, size = settings.identities_per_batch, settings.texture_size
    labels = np.repeat(np.arange(people), batches * settings.images_per_identity)
    shape = (len(labels), *settings.image_size, 3)
    data = TrainingData(images=draw.integers(0, 256, shape, np.uint8), labels=labels)
    if not settings.needs_decoder:
        return data
    textures = draw.integers(0, 256, (people, size, size, 3), np.uint8)
    return dataclasses.replace(
        data, textures=textures, texture_index=labels, mirror=mirror_matrix(size)
    )
