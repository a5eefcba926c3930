"""`cuhk03-official` beside the released run, told anew by formulas.

Where its parts are from: main.py, args.py, transforms.py and the README command of the official
repository, of which nothing is copied. Everything is computed in float64 but where a loss says
otherwise. Legend: B batch, P people of 4 images.
"""

import copy
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from san_core.data.batches.augmentation import (
    IMAGENET_MEAN,
    TextureTargets,
    augment_images,
    normalise_images,
    texture_targets,
)
from san_core.data.batches.draws import draw_views
from san_core.images.pixels import resize
from san_core.model.san import build_network
from san_core.recipe import recipe_with_overrides
from san_core.recipes import get_recipe
from san_core.training import finiteness, loop, losses, objective
from san_core.training.distributed import ALONE
from san_core.training.finiteness import FiniteFlags
from san_core.training.optimisation import make_optimisation
from san_core.training.schedule import loss_weights

OFFICIAL = get_recipe("cuhk03-official")
SMALL = recipe_with_overrides(
    OFFICIAL,
    "arch=resnet10_quarter pretrained=none image_height=32 image_width=16 texture_size=64 "
    "embedding_dim=16 decoder_width=0.25 identities_per_batch=3",
)
LABELS = torch.arange(3).repeat_interleave(4)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn_batch(seed):
    """Images and textures of 3 people, 4 images each."""
    textures = randn(12, 3, 64, 64, seed=seed + 1).clamp(-1, 1)
    targets = TextureTargets(textures, torch.ones(12, dtype=torch.bool))
    return objective.Batch(randn(12, 3, 32, 16, seed=seed), LABELS, targets)


def identity_loss(logits):
    """Cross entropy against 0.9 for the person and 0.1 over all, a sample at a time."""
    total = 0.0
    for row, label in zip(logits, LABELS.tolist(), strict=True):
        shares = row.exp() / row.exp().sum()
        for identity, share in enumerate(shares):
            target = 0.9 * (identity == label) + 0.1 / len(row)
            total = total - target * share.log()
    return total / len(logits)


def triplet_loss(embeddings):
    """max(0, farthest of the person - nearest of others + 0.3), an anchor at a time."""
    total = 0.0
    for i, anchor in enumerate(embeddings):
        apart = ((embeddings - anchor) ** 2).sum(dim=1).clamp(min=1e-12).sqrt()
        farthest = max(d for j, d in enumerate(apart) if LABELS[j] == LABELS[i])
        nearest = min(d for j, d in enumerate(apart) if LABELS[j] != LABELS[i])
        total = total + (farthest - nearest + 0.3).clamp(min=0)
    return total / len(embeddings)


def reconstruction_loss(made, targets):
    return (made - targets).abs().sum() / made.numel()


def triplet_constraint(maps):
    """Anchor, positive and negative at fixed places, of every person but the last; a sum."""
    places = [(0, 1, 4), (1, 2, 5), (2, 3, 6), (3, 0, 4)]  # of f_d1 ... f_d4
    total = 0.0
    for start in range(0, len(LABELS) - 4, 4):
        for decoded, (a, p, n) in zip(maps, places, strict=True):
            anchor, positive, negative = (decoded[start + place] for place in (a, p, n))
            apart = ((anchor - positive) ** 2).mean() - ((anchor - negative) ** 2).mean()
            total = total + (apart + 0.3).clamp(min=0)
    return total


def twin_terms(output, batch):
    return {
        "id": identity_loss(output.logits),
        "tri": triplet_loss(output.compared),
        "rec": reconstruction_loss(output.texture, batch.targets.textures),
        "tr": triplet_constraint(output.maps),
    }


@pytest.mark.usefixtures("_float64")
def test_the_losses_and_their_gradients_are_those_of_the_released_run():
    model, batch = build_network(SMALL, num_classes=3, seed=0).train(), drawn_batch(1)
    output = model(batch.images)
    ours = objective.loss_terms(output, batch, SMALL, ALONE, FiniteFlags())
    twins = twin_terms(output, batch)
    assert set(ours) == set(twins)
    for name, term in twins.items():
        assert term.item() > 0
        torch.testing.assert_close(ours[name].double(), term, rtol=0, atol=1e-6)
        leaves = [output.logits, output.compared, output.texture, *output.maps]
        mine, theirs = (
            torch.autograd.grad(each, leaves, retain_graph=True, allow_unused=True)
            for each in (ours[name], term)
        )
        for one, other in zip(mine, theirs, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


class TwinAdam:
    """Adam with L2 decay, or AMSGrad, by its formulas (Kingma and Ba 2015; Reddi et al. 2018)."""

    def __init__(self, parameters, *, decay, first, amsgrad=False):
        self.parameters, self.decay, self.first, self.amsgrad = parameters, decay, first, amsgrad
        self.m = [torch.zeros_like(p) for p in parameters]
        self.v = [torch.zeros_like(p) for p in parameters]
        self.largest = [torch.zeros_like(p) for p in parameters]
        self.steps = 0

    def step(self, gradients, lr):
        self.steps += 1
        for i, (weight, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            if gradient is None:
                continue
            g = gradient + self.decay * weight.detach()
            self.m[i] = self.first * self.m[i] + (1 - self.first) * g
            self.v[i] = 0.999 * self.v[i] + 0.001 * g * g
            self.largest[i] = torch.maximum(self.largest[i], self.v[i])
            size = (self.largest if self.amsgrad else self.v)[i] / (1 - 0.999**self.steps)
            mean = self.m[i] / (1 - self.first**self.steps)
            weight.data -= lr * mean / (size.sqrt() + 1e-8)  # .data: autograd does not see it


def learning_rate(epoch):
    """Of ReID, in an epoch from 0: warm-up, then halved at each of --stepsize."""
    if epoch < 20:
        return 8e-6 * 1.259**epoch
    return 8e-4 * 0.5 ** sum(epoch - 20 >= size for size in (40, 80, 120, 160, 200, 240, 280))


class TwinStep:
    """One forward, two gradients and three Adams; the second gradient after the first step."""

    def __init__(self, model):
        self.model = model
        self.encoder, self.decoder = (
            list(model.encoder.parameters()),
            list(model.decoder.parameters()),
        )
        self.reid = [*self.encoder, *model.classifier.parameters()]
        self.optimizer, self.epoch = TwinAdam(self.reid, decay=5e-4, first=0.9), 0
        self.of_encoder = TwinAdam(self.encoder, decay=0, first=0.5)
        self.of_decoder = TwinAdam(self.decoder, decay=0, first=0.5)

    def __call__(self, batch, epoch):
        if self.epoch < 20 <= epoch:
            self.optimizer = TwinAdam(self.reid, decay=5e-4, first=0.9, amsgrad=True)
        self.epoch = epoch
        terms = twin_terms(self.model(batch.images), batch)
        loss = terms["id"] + terms["tri"]
        gradients = torch.autograd.grad(loss, self.reid, retain_graph=True)
        self.optimizer.step(gradients, learning_rate(epoch))
        loss = terms["rec"] + terms["tr"]
        both = torch.autograd.grad(loss, [*self.encoder, *self.decoder], allow_unused=True)
        self.of_encoder.step(both[: len(self.encoder)], 1e-5)
        self.of_decoder.step(both[len(self.encoder) :], 1e-5)


@pytest.mark.usefixtures("_float64")
def test_steps_before_and_after_the_warm_up_are_those_of_the_released_run():
    model = build_network(SMALL, num_classes=3, seed=0).train()
    twin = TwinStep(copy.deepcopy(model))
    steps = make_optimisation(model, SMALL, torch.amp.GradScaler("cpu", enabled=False))
    first = {name: value.detach().clone() for name, value in model.named_parameters()}
    for number, epoch in enumerate((0, 19, 20, 60)):
        batch = drawn_batch(10 * number)
        steps.set_progress(epoch + 0.4)
        terms = objective.loss_terms(model(batch.images), batch, SMALL, ALONE, FiniteFlags())
        steps.step(terms, loss_weights(SMALL, epoch), FiniteFlags())
        twin(batch, epoch)
        for (name, ours), theirs in zip(
            model.named_parameters(), twin.model.parameters(), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6, msg=f"{name}, {number}")
    moved = [not torch.equal(first[name], p) for name, p in model.named_parameters()]
    assert all(moved)


def test_the_learning_rates_of_320_epochs_are_those_of_the_released_run():
    steps = make_optimisation(
        build_network(SMALL, num_classes=3, seed=0),
        SMALL,
        torch.amp.GradScaler("cpu", enabled=False),
    )
    assert OFFICIAL.epochs == 320
    for epoch in range(320):
        for within in (0.0, 0.5, 0.99):
            steps.set_progress(epoch + within)
            (group,) = steps._scheduled.optimizer.param_groups
            assert group["lr"] == pytest.approx(learning_rate(epoch), rel=1e-12)
            assert group["amsgrad"] == (epoch >= 20)
        (textures,) = steps._constant.param_groups
        assert (textures["lr"], textures["betas"], textures["weight_decay"]) == (
            1e-5,
            (0.5, 0.999),
            0,
        )


def test_the_two_step_recipe_is_the_released_run_without_its_error():
    corrected = recipe_with_overrides(OFFICIAL, "stale_gradients=false")
    assert get_recipe("cuhk03-two-step") == corrected


def test_the_decoder_begins_with_the_released_weights():
    narrow = recipe_with_overrides(OFFICIAL, "arch=resnet18 pretrained=none decoder_width=0.5")
    decoder = build_network(narrow, num_classes=2, seed=0).decoder
    convolutions = [m for m in decoder.modules() if isinstance(m, nn.Conv2d)]
    for layer in convolutions:
        outputs, inputs, rows, columns = layer.weight.shape
        expected = 0.02 * math.sqrt(2 / ((inputs + outputs) * rows * columns))
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
        assert abs(layer.weight.mean().item()) < 0.1 * expected
        assert layer.bias is None or not layer.bias.any()
    norms = [m for m in decoder.modules() if isinstance(m, nn.BatchNorm2d)]
    scales = torch.cat([m.weight.detach() for m in norms])
    assert scales.mean().item() == pytest.approx(1, abs=0.003)
    assert scales.std().item() == pytest.approx(0.02, rel=0.1)
    assert len(convolutions) == 17
    assert not any(m.bias.any() for m in norms)


def pictures(count, height, width):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def by_pillow(picture, draws, number):
    """A picture resized, or enlarged and cropped, then mirrored, as in transforms.py."""
    image = Image.fromarray(picture)
    if number in draws.enlarged.tolist():
        top, left = draws.corners[number].tolist()
        large = image.resize((144, 288), Image.Resampling.BILINEAR)
        image = large.crop((left, top, left + 128, top + 256))
    else:
        image = image.resize((128, 256), Image.Resampling.BILINEAR)
    if number in draws.flipped.tolist():
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def test_a_view_is_that_of_the_file_resized_or_enlarged_from_its_own_size():
    files = pictures(12, 160, 60)
    small, large = (
        torch.from_numpy(np.stack([resize(file, size) for file in files]))
        for size in ((256, 128), (288, 144))
    )
    plain = recipe_with_overrides(OFFICIAL, "erasing=0")
    draws = draw_views(12, (256, 128), plain, generator=torch.Generator().manual_seed(1))
    assert 0 < len(draws.enlarged) < 12
    made = augment_images(small, draws, plain, large=large[draws.enlarged])
    expected = np.stack([by_pillow(file, draws, i) for i, file in enumerate(files)])
    torch.testing.assert_close(made, normalise_images(torch.from_numpy(expected)))


def test_a_crop_begins_at_a_rounded_place_whose_ends_are_half_as_likely():
    plain = recipe_with_overrides(OFFICIAL, "erasing_style=mean")  # which draws fewer numbers
    draws = draw_views(40_000, (256, 128), plain, generator=torch.Generator().manual_seed(1))
    places = draws.corners[draws.enlarged, 1].bincount(minlength=17) / len(draws.enlarged)
    assert len(places) == 17
    expected = torch.tensor([1 / 32, *15 * [1 / 16], 1 / 32])
    torch.testing.assert_close(places, expected, rtol=0, atol=0.006)


def test_an_erased_box_is_drawn_until_it_fits_and_takes_the_released_colour():
    generator = torch.Generator().manual_seed(1)
    draws = draw_views(2_000, (256, 128), OFFICIAL, generator=generator)
    top, left, bottom, right = draws.boxes.unbind(1)
    tall, wide = bottom - top, right - left
    erased = tall > 0
    assert erased.float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert int(tall.max()) < 256
    assert int(wide.max()) < 128
    areas, ratios = (tall * wide)[erased] / (256 * 128), (tall / wide)[erased]
    assert 0.019 < areas.min() < areas.max() < 0.403
    assert 0.28 < ratios.min() < ratios.max() < 3.4
    images = torch.from_numpy(pictures(8, 256, 128))
    draws = draw_views(8, (256, 128), OFFICIAL, generator=generator)
    large = images.new_zeros(len(draws.enlarged), 288, 144, 3)
    made = augment_images(images, draws, OFFICIAL, large=large)
    number = int((draws.boxes[:, 2] > 0).nonzero()[0])
    row, column = draws.boxes[number, :2].tolist()
    torch.testing.assert_close(made[number, :, row, column], torch.tensor(IMAGENET_MEAN))


def test_a_mirrored_image_keeps_its_texture():
    textures = torch.from_numpy(pictures(3, 4, 4))
    made = texture_targets(textures, torch.tensor([1]), mirror=None, flip_textures="keep")
    assert made.keep.all()
    expected = textures.permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(made.textures, expected, rtol=0, atol=1e-6)
    assert OFFICIAL.flip_textures == "keep"


@pytest.mark.parametrize(("name", "asked"), [("cuhk03-official", "float32"), ("cuhk03", "auto")])
def test_the_released_run_is_in_float32_on_every_device(monkeypatch, name, asked):
    class AskedError(Exception):
        pass

    def refuse(precision, _device):
        raise AskedError(precision)

    monkeypatch.setattr(loop, "autocast_type", refuse)
    monkeypatch.setattr(loop, "_check_fit_arguments", lambda *_: None)
    with pytest.raises(AskedError, match=asked):
        loop.fit(nn.Module(), None, get_recipe(name), seed=0, device="cpu")


def test_fixed_places_are_of_four_images_of_two_people():
    with pytest.raises(ValueError, match="needs 4 images of each of at least 2 people: 4"):
        losses.positional_triplets([randn(4, 1, 2, 2)], margin=0.3)
    with pytest.raises(ValueError, match="no decoder maps"):
        losses.positional_triplets([], margin=0.3)
    maps = torch.zeros(8, 1, 1, 1)
    maps[1] = 2.0  # image 0 of the first person is anchor, 1 its positive, 4 the next person's
    assert losses.positional_triplets([maps], margin=0.3) == pytest.approx(2.0**2 - 0 + 0.3)


def test_a_map_that_is_not_finite_is_named():
    maps = [torch.zeros(8, 1, 1, 1) for _ in range(2)]
    maps[1][1] = torch.nan
    with pytest.raises(finiteness.NonFiniteError, match="L_TR on f_d2"):
        losses.positional_triplets(maps, margin=0.3)


def test_a_triplet_with_an_image_that_is_left_out_does_not_count():
    maps = [randn(16, 2, 3, 3, seed=i) for i in range(4)]
    whole = losses.positional_triplets(maps, margin=50)
    keep = torch.ones(16, dtype=torch.bool)
    keep[1] = False  # of the first person: positive of f_d1, anchor of f_d2
    left = losses.positional_triplets(maps, margin=50, keep=keep)
    gone = [
        ((m[a] - m[p]) ** 2).mean() - ((m[a] - m[n]) ** 2).mean() + 50
        for m, (a, p, n) in ((maps[0], (0, 1, 4)), (maps[1], (1, 2, 5)))
    ]
    torch.testing.assert_close(whole - left, torch.stack(gone).sum())
