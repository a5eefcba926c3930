"""The terms of a batch: of what, by which labels, and of which images."""

import pytest
import torch

from san_core.data.batches.augmentation import TextureTargets
from san_core.model.san import SANOutput
from san_core.training import losses
from san_core.training.distributed import ALONE
from san_core.training.finiteness import FiniteFlags
from san_core.training.objective import Batch, loss_terms
from tests.san_core.training.tiny_run import tiny_recipe

LABELS = torch.tensor([0, 0, 0, 1, 1, 1])
KEEP = torch.tensor([True, True, False, True, True, False])


def test_losses_of_textures_leave_out_images_whose_texture_is_unknown():
    recipe, draw = tiny_recipe("demo", "w_tr=1 tr_margin=1.0"), torch.Generator().manual_seed(0)
    texture, truth = torch.rand(2, 6, 3, 16, 16, generator=draw)
    maps = tuple(torch.rand(6, 2, n, n, generator=draw) for n in (2, 4))
    output, targets = SANOutput(None, None, texture, maps), TextureTargets(truth, KEEP)
    batch = Batch(torch.zeros(6, 3, 8, 4), LABELS, targets)
    terms = loss_terms(output, batch, recipe, ALONE, FiniteFlags())
    assert terms.keys() == {"rec", "tr"}
    assert terms["rec"].item() == pytest.approx((texture - truth).abs()[KEEP].mean().item())
    known = [of[KEEP] for of in maps]
    expected, of_all = (
        losses.triplet_reid_constraint(of, labels, margin=1.0).item()
        for of, labels in ((known, LABELS[KEEP]), (maps, LABELS))
    )
    assert terms["tr"].item() == pytest.approx(expected)
    assert terms["tr"].item() != pytest.approx(of_all, rel=1e-3)
