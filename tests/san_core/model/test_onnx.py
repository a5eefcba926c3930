import onnx
import onnxruntime
import pytest
import torch

from san_core.data.batches.augmentation import normalise_images
from san_core.inference.features import embed
from san_core.inference.textures import predict_textures
from san_core.model.onnx import export_encoder, export_generator
from tests.san_core.training.tiny_run import tiny_data, tiny_model, tiny_recipe

SETTINGS = tiny_recipe()


@pytest.fixture(scope="module")
def model():
    """A network whose batch normalisation has seen pictures."""
    made = tiny_model(SETTINGS).train()
    with torch.no_grad():
        made(normalise_images(torch.tensor(tiny_data().images)))
    return made


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """A folder of encoder.onnx and generator.onnx."""
    folder = tmp_path_factory.mktemp("onnx")
    export_encoder(folder / "encoder.onnx", model, SETTINGS)
    export_generator(folder / "generator.onnx", model, SETTINGS)
    return folder


def run(file, images):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"pixels": images})
    return found


@pytest.mark.parametrize("count", [1, 2, 7])
def test_an_exported_encoder_embeds_as_the_network(model, exported, count):
    images = tiny_data().images[:count]
    found = run(exported / "encoder.onnx", images)
    expected = embed(model, images)
    assert found.shape == expected.shape == (count, 16)
    assert expected.std() > 1e-3  # a thousand times what is allowed
    assert abs(found - expected).max() < 1e-6


@pytest.mark.slow
def test_an_exported_neck_embeds_as_the_network(tmp_path):
    settings = tiny_recipe("demo", "embedding=bnneck pooling=gem normalize_triplet=false")
    made = tiny_model(settings).train()
    with torch.no_grad():
        made(normalise_images(torch.tensor(tiny_data().images)))
    export_encoder(tmp_path / "encoder.onnx", made, settings)
    images = tiny_data().images[:3]
    found, expected = run(tmp_path / "encoder.onnx", images), embed(made, images)
    assert expected.std() > 1e-3
    assert abs(found - expected).max() < 1e-5


def test_an_exported_generator_paints_as_the_network(model, exported):
    images = tiny_data().images[:5]
    found = run(exported / "generator.onnx", images)
    levels = ((found + 1) * 127.5).round().clip(0, 255).transpose(0, 2, 3, 1)
    expected = predict_textures(model, images, device="cpu")
    assert expected.std() > 5  # levels
    assert abs(levels - expected).max() <= 1


@pytest.mark.slow
def test_an_exported_generator_that_copies_paints_as_the_network(tmp_path):
    settings = tiny_recipe("demo-pg", "texture_from=copy copy_queries=8")
    copying = tiny_model(settings).train()
    with torch.no_grad():
        copying(normalise_images(torch.tensor(tiny_data().images)))
        copying.decoder.copying.tell_query[3].weight.normal_()  # zeros hide what comes before
    export_generator(tmp_path / "generator.onnx", copying, settings)
    images = tiny_data().images[:3]
    found = run(tmp_path / "generator.onnx", images)
    levels = ((found + 1) * 127.5).round().clip(0, 255).transpose(0, 2, 3, 1)
    expected = predict_textures(copying, images, device="cpu")
    assert expected.std() > 5  # levels
    assert abs(levels - expected).max() <= 1


@pytest.mark.parametrize(("name", "output"), [("encoder", "embedding"), ("generator", "texture")])
def test_files_are_whole_and_say_what_they_take(exported, name, output):
    assert {file.name for file in exported.iterdir()} == {"encoder.onnx", "generator.onnx"}
    document = onnx.load(exported / f"{name}.onnx")
    assert [value.name for value in document.graph.output] == [output]
    onnx.checker.check_model(document, full_check=True)
    (pixels,) = document.graph.input
    assert pixels.name == "pixels"
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    shape = [d.dim_param or d.dim_value for d in pixels.type.tensor_type.shape.dim]
    assert shape == ["images", 32, 16, 3]


def test_a_baseline_paints_nothing(tmp_path):
    settings = tiny_recipe("demo-baseline")
    with pytest.raises(ValueError, match="the model has no decoder: a baseline cannot generate"):
        export_generator(tmp_path / "generator.onnx", tiny_model(settings), settings)
    assert list(tmp_path.iterdir()) == []
