import pytest
import torch

from san_core.model.encoder import Encoder
from san_core.model.trunks.ibn import InstanceBatchNorm
from san_core.model.weights import load_pretrained
from san_core.recipe import Recipe
from tests.san_core.training.tiny_run import tiny_model, tiny_recipe

SMALL = {"image_height": 64, "image_width": 32, "texture_size": 64}


def test_the_first_half_forgets_contrast_and_cast_of_its_image():
    norm = InstanceBatchNorm(6).train()
    maps = torch.randn(4, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = maps.clone()
    changed[1] = 3 * changed[1] + 2
    before, after = norm(maps), norm(changed)
    torch.testing.assert_close(after[:, :3], before[:, :3], rtol=0, atol=1e-4)
    assert (after[:, 3:] - before[:, 3:]).abs().max() > 0.1
    expected = torch.nn.functional.instance_norm(maps[:, :3])
    torch.testing.assert_close(before[:, :3], expected)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_three_stages_have_it_with_as_many_parameters(arch):
    plain, mixed = (Encoder(Recipe(arch=name, **SMALL)) for name in (arch, f"{arch}_ibn_a"))
    stages = [n for n, m in mixed.named_modules() if isinstance(m, InstanceBatchNorm)]
    blocks = [len(getattr(plain, f"layer{i}")) for i in (1, 2, 3)]
    assert len(stages) == sum(blocks)
    assert not [n for n in stages if not n.endswith("bn1") or n.startswith("layer4")]
    counts = [sum(p.numel() for p in e.parameters()) for e in (plain, mixed)]
    assert counts[0] == counts[1]
    assert "layer1.0.bn1.IN.weight" in mixed.state_dict()  # as in the published files


def test_published_weights_fit_by_name(tmp_path):
    settings = tiny_recipe("demo-baseline", "arch=resnet18_ibn_a pooling=gem last_stride=1")
    theirs, ours = tiny_model(settings, seed=1), tiny_model(settings, seed=2)
    trunk = {
        name: value
        for name, value in theirs.encoder.state_dict().items()
        if not name.startswith(("head.", "pooling."))
    }
    trunk |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(trunk, tmp_path / "resnet18_ibn_a.pth")
    load_pretrained(ours, str(tmp_path / "resnet18_ibn_a.pth"))
    for name in ("conv1.weight", "layer1.0.bn1.IN.weight", "layer2.0.bn1.BN.running_mean"):
        assert torch.equal(ours.encoder.state_dict()[name], theirs.encoder.state_dict()[name])


def test_imagenet_weights_are_asked_for_as_a_file():
    with pytest.raises(ValueError, match="does not exist for arch 'resnet50_ibn_a'; give a file"):
        Recipe(arch="resnet50_ibn_a", pretrained="imagenet")
