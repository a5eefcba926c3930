import math

import numpy as np
import pytest
import torch

from san_core.inference.network import TextureError
from san_core.inference.textures import predict_textures, psnr, stream_textures
from tests.san_core.training.tiny_run import tiny_data, tiny_model, tiny_recipe


@pytest.fixture
def generator():
    model = tiny_model(tiny_recipe("demo-pg"))
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 32, 16, generator=torch.Generator().manual_seed(0)))
        model.decoder.head[1].weight *= 20  # so that some values leave [-1, 1]
    return model.eval()


def images():
    return tiny_data().images


def test_textures_are_the_decoders_clipped_and_rounded(generator):
    found = predict_textures(generator, images(), device="cpu", batch_size=48)
    pixels = torch.tensor(images()).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        raw = generator((pixels - mean[:, None, None]) / std[:, None, None]).texture.numpy()
    assert raw.max() > 1
    assert raw.min() < -1
    expected = np.rint((np.clip(raw, -1, 1) + 1) * 127.5).transpose(0, 2, 3, 1)
    assert found.shape == (48, 16, 16, 3)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 1  # a value at the half may round either way
    assert (found != expected).mean() < 1e-3


def test_a_texture_does_not_depend_on_its_company(generator):
    together = predict_textures(generator, images(), device="cpu", batch_size=16)
    order = np.random.default_rng(1).permutation(48)
    shuffled = predict_textures(generator, images()[order], device="cpu", batch_size=16)
    assert np.array_equal(shuffled, together[order])
    alone = predict_textures(generator, images()[7:8], device="cpu", batch_size=16)
    assert np.array_equal(alone[0], together[7])
    some = predict_textures(generator, images()[3:40], device="cpu", batch_size=16)
    assert np.array_equal(some, together[3:40])


def test_a_network_sees_batches_of_one_size_alone(generator):
    seen = []
    generator.encoder.conv1.register_forward_pre_hook(
        lambda _module, given: seen.append(len(given[0]))
    )
    predict_textures(generator, images()[:35], device="cpu", batch_size=16)
    assert seen == [16, 16, 16]


def test_a_training_generator_is_put_into_evaluation(generator):
    expected = predict_textures(generator, images(), device="cpu")
    again = predict_textures(generator.train(), images(), device="cpu")
    assert np.array_equal(again, expected)


def test_no_images_give_no_textures(generator):
    assert predict_textures(generator, images()[:0], device="cpu").shape == (0, 16, 16, 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_texture_that_is_not_finite_is_refused(generator, value):
    calls = iter(range(100))

    def spoil(_module, _inputs, output):  # the second picture of the third batch
        return output.index_fill(0, torch.tensor([1]), value) if next(calls) == 2 else output

    generator.decoder.head.register_forward_hook(spoil)
    made = stream_textures(generator, images(), device="cpu", batch_size=16)
    assert len([next(made) for _ in range(32)]) == 32
    with pytest.raises(TextureError, match="the texture of image 33 is not finite") as refused:
        next(made)
    assert refused.value.place == 33


def test_a_picture_that_fills_a_batch_up_is_not_looked_at(generator):
    generator.decoder.head.register_forward_hook(
        lambda _module, _inputs, output: output.index_fill(0, torch.tensor([15]), float("nan"))
    )
    assert len(predict_textures(generator, images()[:7], device="cpu", batch_size=16)) == 7


def test_a_baseline_cannot_generate():
    with pytest.raises(ValueError, match="the model has no decoder: a baseline cannot generate"):
        predict_textures(tiny_model(tiny_recipe("demo-baseline")), images(), device="cpu")


def test_psnr_by_hand():
    a = np.zeros((2, 2, 2, 3), np.uint8)
    b = a.copy()
    b[0] = 10  # squared errors 100 in one of two images: MSE 50
    assert psnr(a, b) == psnr(b, a) == pytest.approx(10 * math.log10(255**2 / 50))


def test_psnr_pools_errors_before_the_logarithm():
    a = np.zeros((2, 1, 1, 3), np.uint8)
    b = np.array([1, 100], np.uint8).reshape(2, 1, 1, 1).repeat(3, axis=3)
    assert psnr(a, b) == pytest.approx(10 * math.log10(255**2 / ((1 + 100**2) / 2)))


def test_equal_arrays_have_infinite_psnr():
    assert psnr(images(), images()) == math.inf


def test_psnr_refuses_other_shapes_and_nothing():
    with pytest.raises(
        ValueError,
        match=r"two arrays of the same shape, found \(48, 32, 16, 3\), "
        r"\(1, 32",
    ):
        psnr(images(), images()[:1])
    with pytest.raises(ValueError, match="PSNR needs two arrays of the same shape"):
        psnr(images()[:0], images()[:0])
