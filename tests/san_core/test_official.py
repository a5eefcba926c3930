"""The port of the released code for benchmarks: it computes the same values."""

import pytest
import torch

from san_core.training import losses
from tests.benchmarks import official
from tests.san_core.training.tiny_run import tiny_model, tiny_recipe

LABELS = torch.arange(2).repeat_interleave(4)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_its_identity_loss_is_ours():
    logits = randn(8, 5)
    ours = losses.identity_loss(logits, LABELS, smoothing=0.1)
    torch.testing.assert_close(official.smoothed_cross_entropy(logits, LABELS), ours)


def test_its_triplet_is_ours():
    embedding = randn(8, 6)
    ours = losses.triplet_loss(embedding, LABELS, margin=0.3)
    torch.testing.assert_close(official.hard_triplet(embedding, LABELS), ours)


def test_its_constraint_takes_fixed_places_of_a_batch():
    maps = tuple(randn(8, 2, 3, 3, seed=i) for i in range(4))
    triples = [(0, 1, 4), (1, 2, 5), (2, 3, 6), (3, 0, 4)]  # anchor, positive, negative a map
    expected = sum(
        max(((m[a] - m[p]) ** 2).mean() - ((m[a] - m[n]) ** 2).mean() + 0.3, 0.0)
        for m, (a, p, n) in zip(maps, triples, strict=True)
    )
    torch.testing.assert_close(official.fixed_triplets(maps), expected)


@pytest.mark.usefixtures("one_thread")
def test_its_step_moves_all_weights_and_runs_on_todays_torch():
    settings = tiny_recipe("demo", "w_tr=1 texture_size=64")
    model = tiny_model(settings)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    step = official.OfficialStep(model)
    step(randn(8, 3, 32, 16), LABELS, randn(8, 3, 64, 64).clamp(-1, 1))
    assert all(not torch.equal(before[n], p) for n, p in model.named_parameters())
