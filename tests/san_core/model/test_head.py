import pytest
import torch

from san_core.model.head import CosineClassifier, GemPooling
from san_core.model.san import build_network
from san_core.recipe import recipe_with_overrides
from san_core.recipes import get_recipe

DRAW = torch.Generator().manual_seed(0)


def test_the_generalised_mean_is_the_root_of_the_mean_of_powers():
    maps = torch.rand(2, 3, 4, 5, generator=DRAW)
    pooling = GemPooling()
    torch.testing.assert_close(pooling(maps), (maps**3).mean(dim=(2, 3)) ** (1 / 3))
    with torch.no_grad():
        pooling.exponent.fill_(1.0)
    torch.testing.assert_close(pooling(maps), maps.mean(dim=(2, 3)))


def test_empty_maps_have_a_generalised_mean_with_a_gradient():
    maps = torch.zeros(1, 2, 3, 3, requires_grad=True)
    pooling = GemPooling()
    pooling(maps).sum().backward()
    assert maps.grad.isfinite().all()
    assert pooling.exponent.grad.isfinite()


def test_a_cosine_classifier_knows_no_lengths():
    classifier = CosineClassifier(4, 3)
    features = torch.randn(5, 4, generator=DRAW)
    cosines = classifier(features)
    expected = torch.cosine_similarity(features[:, None], classifier.weight[None], dim=2)
    torch.testing.assert_close(cosines, expected)
    torch.testing.assert_close(classifier(7 * features), cosines)


def network(words):
    settings = recipe_with_overrides(get_recipe("demo-baseline"), words)
    return settings, build_network(settings, num_classes=5, seed=0).train()


def test_triplets_compare_what_comes_before_the_neck_and_identities_what_comes_after():
    settings, model = network("embedding=bnneck normalize_triplet=false")
    images = torch.randn(4, 3, *settings.image_size, generator=DRAW)
    output, encoded = model(images), model.encoder(images)
    assert torch.equal(output.compared, encoded.pooled)
    assert torch.equal(output.logits, model.classifier(encoded.embedding))
    torch.testing.assert_close(encoded.embedding.mean(dim=0), torch.zeros(128), rtol=0, atol=1e-5)
    assert model.classifier.bias is None
    assert not model.encoder.head.bias.requires_grad


@pytest.mark.parametrize(
    ("words", "metric"),
    [
        ("normalize_triplet=false", "euclidean"),
        ("normalize_triplet=true", "cosine"),
        ("normalize_triplet=false embedding=bnneck", "cosine"),
        ("normalize_triplet=false classifier=circle", "cosine"),
    ],
)
def test_what_is_trained_by_angle_is_compared_by_cosine(words, metric):
    assert network(words)[0].metric == metric
