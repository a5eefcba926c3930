"""What must be on a GPU as it is on a processor.

`accelerator` is a processor in the everyday tests, so that this code is tried everywhere, and a GPU
in `make bench-gpu`. Tests that mean nothing on a processor bear the marker themselves.
"""

import io
import warnings

import numpy as np
import pytest
import torch

from san_core.data.batches.augmentation import TextureMirror, augment_images, texture_targets
from san_core.data.batches.draws import draw_views
from san_core.inference.features import embed
from san_core.inference.textures import predict_textures
from san_core.training.loop import fit
from tests.san_core.training.tiny_run import (
    DEMO_DECODER,
    left_right_mirror,
    tiny_data,
    tiny_model,
    tiny_recipe,
)

CPU = torch.device("cpu")
LEVEL = 1 / (255 * 0.224)  # of 255, in an image normalised by the least of the deviations


def train(device, settings, *, epochs=2, **options):
    """The reports of the first epochs."""
    reports = fit(tiny_model(settings), tiny_data(), settings, seed=0, device=device, **options)
    return [next(reports) for _ in range(epochs)]


@pytest.mark.parametrize("crop", ["none", "pad", "translate"])
def test_augmented_images_differ_by_one_level_at_most(accelerator, crop):
    images = torch.from_numpy(tiny_data().images.copy())
    settings = tiny_recipe(words=f"crop={crop} flip=0.5 erasing=0.5")
    size = (images.shape[1], images.shape[2])
    seeded = torch.Generator().manual_seed(0)
    draws = draw_views(len(images), size, settings, generator=seeded)
    there, here = (
        augment_images(images.to(place), draws.unpacked(draws.packed().to(place)), settings)
        for place in (accelerator, CPU)
    )
    assert there.device.type == accelerator.type
    assert (there.cpu() - here).abs().max() <= 1.01 * LEVEL
    assert there.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("averaged", [False, True])
def test_mirrored_textures_are_equal(accelerator, averaged):
    matrix = left_right_mirror(16)
    if averaged:
        matrix = (matrix + matrix[::-1]).tocsr() / 2
    textures = torch.from_numpy(tiny_data().textures.copy())
    flipped = torch.arange(0, len(textures), 3)
    there, here = (
        texture_targets(
            textures.to(place),
            flipped.to(place),
            mirror=TextureMirror.from_matrix(matrix, place),
        )
        for place in (accelerator, CPU)
    )
    torch.testing.assert_close(there.textures.cpu(), here.textures, rtol=0, atol=1e-5)
    assert torch.equal(there.keep.cpu(), here.keep)


@pytest.mark.parametrize("name", ["demo", "demo-baseline"])
def test_losses_of_the_first_epoch_are_those_of_a_processor(accelerator, name):
    settings = tiny_recipe(name, "" if name.endswith("baseline") else DEMO_DECODER)
    (there,) = train(accelerator, settings, epochs=1, precision="float32")
    (here,) = train(CPU, settings, epochs=1, precision="float32")
    assert there.terms == pytest.approx(here.terms, rel=0.02)
    assert there.loss == pytest.approx(here.loss, rel=0.02)


def test_training_goes_on_where_it_was(accelerator):
    settings = tiny_recipe(words=f"checkpoint_every=1 {DEMO_DECODER}")
    states = []

    def keep(state):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        states.append(torch.load(buffer, weights_only=True, map_location="cpu"))

    undisturbed = train(accelerator, settings, epochs=3, precision="float32", on_state=keep)
    (resumed,) = train(accelerator, settings, epochs=1, precision="float32", state=states[1])
    assert resumed.epoch == 3
    assert resumed.terms == pytest.approx(undisturbed[2].terms, rel=0.01)


def test_embeddings_are_those_of_a_processor(accelerator):
    model, images = tiny_model(tiny_recipe()), tiny_data().images
    here = embed(model, images, batch_size=16)
    there = embed(model, images, device=accelerator, batch_size=16)
    np.testing.assert_allclose(there, here, rtol=0, atol=0.01 * np.abs(here).max())


def test_textures_are_those_of_a_processor(accelerator):
    model, images = tiny_model(tiny_recipe()), tiny_data().images
    here = predict_textures(model, images, device=CPU)
    there = predict_textures(model, images, device=accelerator)
    assert np.abs(there.astype(int) - here).max() <= 2


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_textures_of_half_precision_are_near(precision):
    model, images = tiny_model(tiny_recipe()), tiny_data().images
    full = predict_textures(model, images, device=CPU)
    half = predict_textures(model, images, device="cuda", precision=precision)
    assert np.abs(half.astype(int) - full).mean() < 4


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_as_full_does(precision):
    settings = tiny_recipe()
    mixed = train("cuda", settings, epochs=3, precision=precision)
    full = train("cuda", settings, epochs=3, precision="float32")
    assert mixed[2].loss == pytest.approx(full[2].loss, rel=0.1)
    assert mixed[2].loss < mixed[0].loss


@pytest.mark.gpu
def test_a_compiled_network_learns_as_it_is():
    settings = tiny_recipe()
    compiled = train("cuda", settings, epochs=1, precision="float32", compiled=True)
    eager = train("cuda", settings, epochs=1, precision="float32")
    assert compiled[0].terms == pytest.approx(eager[0].terms, rel=0.02)


@pytest.mark.gpu
def test_a_step_waits_for_the_device_once_at_most():
    settings = tiny_recipe(words="epochs=4")
    steps = 6  # 8 people of 3 pairs of images, 4 people a batch
    reports = fit(
        tiny_model(settings), tiny_data(), settings, seed=0, device="cuda", precision="float32"
    )
    next(reports)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            next(reports)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    synchronising = [str(each.message) for each in waits if "synchroniz" in str(each.message)]
    assert len(synchronising) <= steps
