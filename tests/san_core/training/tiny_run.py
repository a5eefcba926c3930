"""A training run small enough for tests: 8 people, 6 images each, the demo's network."""

import numpy as np
from scipy.sparse import csr_array

from san_core.model import san
from san_core.recipe import recipe_with_overrides
from san_core.recipes import get_recipe
from san_core.training.loop import TrainingData

TINY_OVERRIDES = (
    "epochs=3 warmup_epochs=1 identities_per_batch=4 images_per_identity=2 image_height=32 "
    "image_width=16 texture_size=16 batch_size=8 embedding_dim=16 skips=true decoder_width=1"
)
DEMO_DECODER = "skips=false decoder_width=0.5"  # the demo's own plan of the decoder


def tiny_recipe(name="demo", words=""):
    base = get_recipe(name)
    return recipe_with_overrides(recipe_with_overrides(base, TINY_OVERRIDES), words)


def tiny_data(*, labels=True, textures=True, mirror=True, pit=False, enlarged=False, dense=False):
    """Arrays are read-only, as memory maps are; PIT data are the same pictures without labels."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(8), 6)
    colours = rng.integers(0, 256, (8, 4, 4, 3), np.uint8)
    painted = colours.repeat(4, axis=1).repeat(4, axis=2)  # (8, 16, 16, 3)
    shown = painted[people][:, :, :8].repeat(2, axis=1).repeat(2, axis=2)
    noisy = shown // 2 + rng.integers(0, 128, shown.shape, np.uint8)
    large = noisy.repeat(2, axis=1)[:, 5:41].repeat(2, axis=2)[:, :, 3:21]  # (48, 36, 18, 3)
    for array in (noisy, people, painted, large):
        array.setflags(write=False)
    return TrainingData(
        images=noisy,
        enlarged=large if enlarged else None,
        labels=people if labels else None,
        textures=painted if textures else None,
        texture_index=people if textures else None,
        mirror=left_right_mirror(16) if mirror else None,
        pit=tiny_data(labels=False, mirror=mirror) if pit else None,
        dense=rng.integers(0, 256, noisy.shape, np.uint8) if dense else None,
        texel_mirror=np.arange(256 * 256).reshape(256, 256)[:, ::-1].ravel() if dense else None,
    )


def left_right_mirror(size):
    """The mirror of an atlas whose left half is the right half mirrored."""
    columns = np.arange(size * size).reshape(size, size)[:, ::-1].ravel()
    shares = np.ones(size * size, np.float32)
    return csr_array((shares, columns, np.arange(size * size + 1)))


def tiny_model(settings, seed=0):
    return san.build_network(settings, num_classes=8 if settings.needs_identities else 0, seed=seed)


def tiny_teacher(words=""):
    """The encoder of a generator, which a recipe with w_distill learns features from."""
    return tiny_model(tiny_recipe("demo-pg", words), seed=3).encoder.eval()
