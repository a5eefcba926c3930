import numpy as np
import pytest
import torch

from san_core.data.batches.augmentation import normalise_images
from san_core.inference.features import embed
from tests.san_core.training.tiny_run import tiny_data, tiny_model, tiny_recipe


def batches(size):
    images = tiny_data().images
    return [images[i : i + size] for i in range(0, len(images), size)]


def test_features_are_the_encoders_embeddings_in_order():
    model = tiny_model(tiny_recipe()).eval()
    found = embed(model, batches(20), device="cpu")
    with torch.inference_mode():
        expected = model.encoder(normalise_images(torch.tensor(tiny_data().images))).embedding
    assert found.shape == (48, 16)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_features_come_out_the_same_twice_and_whatever_the_mode():
    model = tiny_model(tiny_recipe())
    first = embed(model.train(), iter(batches(16)), device="cpu")
    assert first.tobytes() == embed(model, batches(16), device="cpu").tobytes()


def test_features_may_be_the_mean_of_an_image_and_its_mirror_image():
    model, images = tiny_model(tiny_recipe()), tiny_data().images[:9]
    once, other = embed(model, images), embed(model, images[:, :, ::-1])
    assert not np.allclose(once, other)
    found = embed(model, images, mirrored=True)
    np.testing.assert_allclose(found, (once + other) / 2, rtol=1e-5, atol=1e-7)


def test_one_array_is_embedded_in_batches():
    model, images = tiny_model(tiny_recipe()), tiny_data().images
    found = embed(model, images, batch_size=20)
    assert found.tobytes() == embed(model, batches(20), device="cpu").tobytes()
    assert embed(model, images[:0]).shape == (0, 16)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 32, 16, 3)), r"images are float64 of shape \(2, 32, 16, 3\), must be uint8"),
        (np.zeros((32, 16, 3), np.uint8), r"images are uint8 of shape \(32, 16, 3\), must be"),
        ([np.zeros((1, 3, 32, 16), np.uint8)], r"of shape \(1, 3, 32, 16\), must be uint8 of"),
        (
            np.zeros((2, 32, 32, 3), np.uint8),
            r"\(2, 32, 32, 3\), must be uint8 of shape \(B, 32, 16, 3\), as the encoder was made",
        ),
    ],
)
def test_what_are_no_images_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        embed(tiny_model(tiny_recipe()), images)


def test_the_decoder_is_never_run():
    model = tiny_model(tiny_recipe())

    def fail(*args):
        raise AssertionError("the decoder ran")

    model.decoder.register_forward_pre_hook(fail)
    assert embed(model, batches(24), device="cpu").shape == (48, 16)


def test_no_batches_give_no_features():
    assert embed(tiny_model(tiny_recipe()), [], device="cpu").shape == (0, 16)


def test_an_embedding_that_is_not_finite_is_named():
    model = tiny_model(tiny_recipe())
    broken = batches(16)
    with torch.no_grad():
        model.encoder.head[0].bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="the embedding of image 0 is not finite"):
        embed(model, broken, device="cpu")


def test_a_network_that_has_embedded_can_still_be_trained():
    model, data = tiny_model(tiny_recipe()), tiny_data()
    embed(model, data.images)
    assert not any(parameter.is_inference() for parameter in model.parameters())
    out = model.train()(normalise_images(torch.tensor(data.images[:8])))
    out.compared.sum().backward()
