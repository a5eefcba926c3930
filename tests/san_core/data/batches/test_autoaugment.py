import dataclasses

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from san_core.data.batches.augmentation import MEAN_COLOUR
from san_core.data.batches.autoaugment import PolicyDraw, apply_policies, draw_policies
from san_core.data.batches.draws import draw_views
from san_core.data.batches.loader import Wanted, make_buffers
from tests.san_core.training.tiny_run import tiny_data, tiny_recipe

SETTINGS = tiny_recipe("demo", "autoaugment=0.25")
HALF = 0.01  # below the probability of every operation: it is done


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(seed=0):
    return torch.randint(0, 256, (1, 20, 10, 3), dtype=torch.uint8, generator=generator(seed))


def changed(images, policy, *, done=(HALF, HALF), directions=(0.9, 0.9)):
    views = images.clone()
    numbers = torch.tensor([(policy + 0.5) / 25, *done, *directions])
    apply_policies(views, [PolicyDraw(0, numbers)])
    return views[0].permute(2, 0, 1)


def test_the_first_policy_is_that_of_the_paper():
    image = picture()
    whole = image[0].permute(2, 0, 1)
    # Posterize 8 with probability 0.4, Rotate 9 with 0.6 (table 9): 8 - round(8 * 4 / 9) bits
    # are kept, and 9 is 30 degrees
    coarse = functional.posterize(whole, 4)
    turned = {
        sign: functional.rotate(
            coarse, sign * 30.0, InterpolationMode.BILINEAR, fill=[float(c) for c in MEAN_COLOUR]
        )
        for sign in (1, -1)
    }
    assert torch.equal(changed(image, 0, done=(0.39, 0.61)), coarse)
    assert torch.equal(changed(image, 0), turned[-1])
    assert torch.equal(changed(image, 0, directions=(0.9, 0.4)), turned[1])
    assert torch.equal(changed(image, 0, done=(0.41, 0.61)), whole)


def test_every_policy_keeps_bytes_of_the_same_size():
    image = picture()
    made = [changed(image, policy) for policy in range(25)]
    assert {(view.dtype, view.shape) for view in made} == {(torch.uint8, (3, 20, 10))}
    assert sum(not torch.equal(view, image[0].permute(2, 0, 1)) for view in made) > 20


def test_as_many_images_are_changed_as_asked_and_by_all_policies():
    drawn = draw_policies(20_000, SETTINGS, generator=generator())
    assert len(drawn) / 20_000 == pytest.approx(0.25, abs=0.01)
    policies = torch.stack([one.numbers[0] * 25 for one in drawn]).long().bincount(minlength=25)
    assert len(policies) == 25
    assert policies.min() > 0.7 * len(drawn) / 25
    assert draw_policies(9, tiny_recipe(), generator=generator()) == []


def test_no_other_draw_depends_on_policies():
    with_them, without = (
        draw_views(64, (16, 8), dataclasses.replace(SETTINGS, autoaugment=share), generator=made)
        for share, made in ((0.5, generator()), (0.0, generator()))
    )
    draw_policies(64, SETTINGS, generator=generator())
    assert all(torch.equal(a, b) for a, b in zip(with_them, without, strict=True))


def wanted(skip, count):
    rows = np.arange(48)
    return Wanted("main", tiny_data(), rows, rows[skip : skip + count], skip, (5, 0))


def test_processes_change_their_shares_as_one_would_the_whole():
    whole = make_buffers(torch.device("cpu")).load(wanted(0, 48), SETTINGS).pixels
    parts = [
        make_buffers(torch.device("cpu")).load(wanted(skip, 24), SETTINGS).pixels
        for skip in (0, 24)
    ]
    assert torch.equal(whole, torch.cat(parts))
    untouched = torch.from_numpy(tiny_data().images.copy())
    rows = [not torch.equal(a, b) for a, b in zip(whole, untouched, strict=True)]
    assert 0 < sum(rows) < 30


def test_torchs_own_numbers_are_neither_read_nor_moved():
    before = torch.get_rng_state()
    apply_policies(
        picture(), draw_policies(1, tiny_recipe("demo", "autoaugment=1"), generator=generator())
    )
    assert torch.equal(torch.get_rng_state(), before)
