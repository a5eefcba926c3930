"""What arms start from, are taught by and are given textures by; each is made once into a cache.

SAN-PG of the evidence is trained on PIT. Its rival saw the same pictures for the same CPU time, and
learned who is on them. The shipped generator is what comes with the package.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.storage.outputs import write_file
from san_core.images.pixels import Pixels, resize
from san_core.inference.textures import predict_textures, psnr
from san_core.model import weights
from san_core.model.san import SAN, build_network
from san_core.recipe import Recipe, recipe_with_overrides
from san_core.recipes import get_recipe
from san_core.shipped.generator import SHIPPED_FOLDER
from san_core.synthesis.person.atlas import mirror_matrix
from san_core.training.loop import TrainingData, fit
from tests.benchmarks.evidence.code import RENDERING_MODULES, TRAINING_MODULES
from tests.benchmarks.evidence.data import (
    PIT,
    TEXTURE_SIZE,
    ImageSize,
    average_textures,
    cache_key,
    pit_arrays,
    rendered_set,
    save_npz,
    set_spec,
)

NONE, OWN, SHIPPED, IDENTITY = "none", "own", "shipped", "identity"
GENERATOR_RECIPE = ("demo-pg", "epochs=12 erasing=0 crop=pad")  # recipe of SAN-PG, and overrides
# What SAN-PG has in common with the network that starts as it
_SHARED_FIELDS = (
    *("arch", "last_stride", "image_height", "image_width", "crop_pad", "texture_size"),
    *("lr", "decoder_lr"),
)
TIMED_EPOCHS = 3  # of the rival, to see how many SAN-PG's time is
_CODE = (*RENDERING_MODULES, *TRAINING_MODULES)


class Start(NamedTuple):
    """A trained network and what it took."""

    path: Path
    cpu_seconds: float  # of training, rendering aside; 0 of what comes with the package
    facts: dict[str, float]  # of SAN-PG: psnr, dB on people not seen, and that of the mean texture


def recipe_of_generator(settings: Recipe) -> Recipe:
    """The recipe of SAN-PG for a network of `settings`."""
    base = recipe_with_overrides(get_recipe(GENERATOR_RECIPE[0]), GENERATOR_RECIPE[1])
    return dataclasses.replace(base, **{name: getattr(settings, name) for name in _SHARED_FIELDS})


def recipe_of_rival(settings: Recipe, epochs: int) -> Recipe:
    """The recipe of what learns identities of PIT, which `settings` starts as."""
    return dataclasses.replace(settings, init="none", epochs=epochs, checkpoint_every=epochs)


def trained_start(cache: Path, start: str, settings: Recipe) -> Start:
    """A start for a network of `settings`, trained if the cache has none of today's code."""
    if start == SHIPPED:
        return Start(SHIPPED_FOLDER, 0.0, {})
    if start == OWN:
        asked, train = recipe_of_generator(settings), _train_generator
    else:
        asked, train = recipe_of_rival(settings, TIMED_EPOCHS), _train_rival
    path = cache / f"{start}-{cache_key(_CODE, (asked, PIT, recipe_of_generator(settings)))}"
    if not (path / "told.json").is_file():
        path.mkdir(parents=True, exist_ok=True)
        write_file(path / "told.json", json.dumps(train(cache, path, settings)))
    told = json.loads((path / "told.json").read_text())
    return Start(path, told.pop("cpu_seconds"), told)


def _train_generator(cache: Path, path: Path, settings: Recipe) -> dict[str, float]:
    recipe = recipe_of_generator(settings)
    pit = pit_arrays(cache, recipe.image_size)
    textures, seen = average_textures(pit.textures, recipe.texture_size), ~pit.is_unseen
    data = TrainingData(
        images=pit.images[seen],
        textures=textures,
        texture_index=pit.index[seen],
        mirror=mirror_matrix(recipe.texture_size),
    )
    model = build_network(recipe, num_classes=0, seed=PIT.seed)
    seconds = _fit_seconds(model, data, recipe)
    weights.save_network(path, model, recipe, facts={})
    truth = textures[pit.index[pit.is_unseen]]
    mean = np.rint(textures[pit.index[seen]].mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return {
        "cpu_seconds": seconds,
        "psnr": psnr(predict_textures(model, pit.images[pit.is_unseen], device="cpu"), truth),
        "psnr_of_mean": psnr(np.broadcast_to(mean, truth.shape), truth),
    }


def _train_rival(cache: Path, path: Path, settings: Recipe) -> dict[str, float]:
    """For as many epochs as take the CPU time of SAN-PG."""
    given = trained_start(cache, OWN, settings).cpu_seconds
    pit = pit_arrays(cache, settings.image_size)
    people, labels = np.unique(pit.index[~pit.is_unseen], return_inverse=True)
    data = TrainingData(images=pit.images[~pit.is_unseen], labels=labels)

    def train(epochs: int) -> tuple[SAN, float]:
        recipe = recipe_of_rival(settings, epochs)
        model = build_network(recipe, num_classes=len(people), seed=PIT.seed)
        return model, _fit_seconds(model, data, recipe)

    _, timed = train(TIMED_EPOCHS)
    epochs = max(TIMED_EPOCHS, round(TIMED_EPOCHS * given / timed))
    model, seconds = train(epochs)
    weights.save_network(path, model, recipe_of_rival(settings, epochs), facts={})
    return {"cpu_seconds": seconds, "epochs": epochs}


def _fit_seconds(model: SAN, data: TrainingData, recipe: Recipe) -> float:
    """Train a network; returns the CPU seconds it took."""
    started = time.process_time()
    for _ in fit(model, data, recipe, seed=PIT.seed, device="cpu"):
        pass
    return time.process_time() - started


class SeenTextures(NamedTuple):
    """What the shipped generator saw on the training images of a set."""

    textures: Pixels  # (N, TEXTURE_SIZE, TEXTURE_SIZE, 3)
    cpu_seconds: float  # of enlarging the images and generating


def seen_textures(cache: Path, level: str, seed: int, image_size: ImageSize) -> SeenTextures:
    """The textures of a set, generated if the cache has none of today's code and generator."""
    asked = (set_spec(level, seed, image_size), weights.fingerprint(SHIPPED_FOLDER))
    file = cache / f"textures-{level}-{seed}-{cache_key(_CODE, asked)}.npz"
    if not file.is_file():
        them = rendered_set(cache, level, seed, image_size)
        made = _generate_textures(them.images[them.train_rows])
        save_npz(file, {name: np.array(value) for name, value in made._asdict().items()})
    with np.load(file) as kept:
        return SeenTextures(kept["textures"], float(kept["cpu_seconds"]))


def _generate_textures(images: Pixels) -> SeenTextures:
    generator = weights.load_network(SHIPPED_FOLDER)
    size = generator.recipe.image_size
    started = time.process_time()
    enlarged = np.stack([resize(image, size) for image in images])
    made = average_textures(predict_textures(generator.model, enlarged, device="cpu"), TEXTURE_SIZE)
    return SeenTextures(made, time.process_time() - started)
