import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torchvision.transforms.v2 import functional as v2

from san_core.data.batches import augmentation
from san_core.data.batches.augmentation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MEAN_COLOUR,
    BufferPool,
    TextureMirror,
    augment_images,
    normalise_by_torch,
    normalise_images,
    texture_targets,
)
from san_core.data.batches.draws import draw_views
from san_core.recipes import get_recipe
from tests.san_core.training.tiny_run import left_right_mirror

PLAIN = dataclasses.replace(get_recipe("demo"), flip=0.0, crop="none", erasing=0.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


MEAN = normalise_images(torch.tensor(MEAN_COLOUR, dtype=torch.uint8).reshape(1, 1, 1, 3))


def noise(batch=64, height=16, width=8):
    shape = (batch, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(9))


def draws_for(images, settings, seed=0, skip=0):
    size = tuple(images.shape[1:3])
    return draw_views(len(images), size, settings, generator=generator(seed), skip=skip)


class Views(NamedTuple):
    images: torch.Tensor
    flipped: torch.Tensor  # (B,) bool


def made_views(images, settings, seed=0, skip=0):
    drawn = draws_for(images, settings, seed, skip)
    flipped = torch.zeros(len(images), dtype=torch.bool).index_fill(0, drawn.flipped, True)
    return Views(augment_images(images, drawn, settings), flipped)


def views(images, seed=0, **changes):
    return made_views(images, dataclasses.replace(PLAIN, **changes), seed)


def test_normalisation_by_hand():
    image = torch.tensor([255, 0, 51], dtype=torch.uint8).reshape(1, 1, 1, 3)
    expected = [
        (v - m) / s for v, m, s in zip((1, 0, 0.2), IMAGENET_MEAN, IMAGENET_STD, strict=True)
    ]
    torch.testing.assert_close(normalise_images(image).flatten(), torch.tensor(expected))


def test_normalised_images_are_channels_last():
    assert normalise_images(noise()).is_contiguous(memory_format=torch.channels_last)


def test_with_everything_off_an_image_is_only_normalised():
    torch.testing.assert_close(views(noise()).images, normalise_images(noise()))


def one_by_one(images, settings, seed):
    """The same augmentation, a sample at a time by torchvision, from the same numbers."""
    numbers = torch.rand(len(images), 9, generator=generator(seed)).tolist()
    made = []
    for image, drawn in zip(images.permute(0, 3, 1, 2), numbers, strict=True):
        flip, enlarge, row, column, erase, area, ratio, erase_row, erase_column = drawn
        height, width = image.shape[1:]
        tall, wide, pad = height, width, settings.crop_pad
        if settings.crop == "pad":
            image = v2.pad(image, [pad] * 4, fill=list(MEAN_COLOUR))
            tall, wide = height + 2 * pad, width + 2 * pad
        elif settings.crop == "translate" and enlarge < 0.5:
            tall, wide = round(height * 1.125), round(width * 1.125)
            image = v2.resize(image, [tall, wide], antialias=False)
        top, left = int(row * (tall - height + 1)), int(column * (wide - width + 1))
        if settings.crop == "pad":  # the draw moves the image, not the window
            top, left = tall - height - top, wide - width - left
        image = v2.crop(image, top, left, height, width)
        if flip < settings.flip:
            image = v2.horizontal_flip(image)
        if erase < settings.erasing:
            size = (0.02 + 0.38 * area) * height * width
            shape = 0.3 + (1 / 0.3 - 0.3) * ratio
            rows = min(height, max(1, round((size * shape) ** 0.5)))
            columns = min(width, max(1, round((size / shape) ** 0.5)))
            y, x = int(erase_row * (height - rows + 1)), int(erase_column * (width - columns + 1))
            mean = torch.tensor(MEAN_COLOUR, dtype=torch.uint8)[:, None, None]
            image = v2.erase(image, y, x, rows, columns, mean)
        scaled = v2.to_dtype(image, torch.float32, scale=True)
        made.append(v2.normalize(scaled, list(IMAGENET_MEAN), list(IMAGENET_STD)))
    return torch.stack(made)


@pytest.mark.parametrize("crop", ["none", "pad", "translate"])
def test_a_batch_is_augmented_as_torchvision_does_sample_by_sample(crop):
    images = noise(48, 32, 16)
    settings = dataclasses.replace(PLAIN, flip=0.5, crop=crop, crop_pad=3, erasing=0.5)
    made = made_views(images, settings, 4).images
    # one level of 255 is 0.018 after normalisation; libraries may round a half either way
    torch.testing.assert_close(made, one_by_one(images, settings, 4), atol=0.02, rtol=0)


@pytest.mark.parametrize("crop", ["translate", "pad"])
def test_a_share_of_a_batch_is_augmented_as_in_the_whole(crop):
    colours = {"jitter": 0.2, "greyscale": 0.3}
    settings = dataclasses.replace(PLAIN, flip=0.5, crop=crop, erasing=0.5, **colours)
    whole = made_views(noise(), settings)
    for share in (slice(0, 40), slice(40, 64)):
        made = made_views(noise()[share], settings, skip=share.start)
        assert torch.equal(made.images, whole.images[share])
        assert torch.equal(made.flipped, whole.flipped[share])


def test_equal_generators_give_equal_views():
    full = {"flip": 0.5, "crop": "translate", "erasing": 0.5}
    assert torch.equal(views(noise(), **full).images, views(noise(), **full).images)
    assert not torch.equal(views(noise(), **full).images, views(noise(), seed=1, **full).images)


@pytest.mark.parametrize("crop", ["none", "pad", "translate"])
def test_flipped_images_are_mirrored_and_the_others_are_not(crop):
    images = torch.full((64, 16, 8, 3), 50, dtype=torch.uint8)
    images[:, :, :4] = 200  # the left half is bright
    made = views(images, flip=0.5, crop=crop, crop_pad=1)
    left, right = made.images[..., 1:4].mean((1, 2, 3)), made.images[..., 4:7].mean((1, 2, 3))
    assert torch.equal(made.flipped, left < right)
    assert 10 < made.flipped.sum() < 54


def test_flip_probabilities_zero_and_one():
    assert not views(noise(), flip=0.0).flipped.any()
    flipped = views(noise(), flip=1.0)
    assert flipped.flipped.all()
    torch.testing.assert_close(flipped.images, normalise_images(noise()).flip(3))


def test_images_draw_by_themselves():
    same = noise(1).expand(64, -1, -1, -1)
    made = views(same, crop="pad", crop_pad=3).images
    assert len(torch.unique(made.flatten(1), dim=0)) > 20  # of 7 x 7 windows


def test_a_padded_crop_is_a_shifted_window_with_the_mean_outside():
    images = noise()
    made = views(images, crop="pad", crop_pad=2).images
    padded = MEAN.expand(64, 3, 20, 12).clone()
    padded[:, :, 2:-2, 2:-2] = normalise_images(images)
    shifts = set()
    for i in range(64):
        windows = {(y, x): padded[i, :, y : y + 16, x : x + 8] for y in range(5) for x in range(5)}
        shifts.update(s for s, w in windows.items() if torch.allclose(w, made[i], atol=1e-6))
        assert any(torch.allclose(w, made[i], atol=1e-6) for w in windows.values())
    assert {y for y, _ in shifts} == {x for _, x in shifts} == {0, 1, 2, 3, 4}


def test_half_of_the_images_are_translated():
    images = noise()
    made = views(images, crop="translate").images
    untouched = (made - normalise_images(images)).abs().amax((1, 2, 3)) < 1e-5
    assert 16 < untouched.sum() < 48
    large = torch.nn.functional.interpolate(
        images.float().permute(0, 3, 1, 2), size=(18, 9), mode="bilinear"
    )
    large = normalise_images(large.round().to(torch.uint8).permute(0, 2, 3, 1))
    i = int((~untouched).nonzero()[0])
    windows = [large[i, :, y : y + 16, x : x + 8] for y in range(3) for x in range(2)]
    # one level of 255 is 0.018 after normalisation; libraries may round a half either way
    assert any(torch.allclose(w, made[i], atol=0.02) for w in windows)


def test_the_mean_colour_is_the_imagenet_mean():
    assert MEAN.abs().max() < 0.5 / 255 / min(IMAGENET_STD)


def test_erasing_sets_one_box_of_the_right_size_to_the_mean():
    images = torch.zeros(400, 64, 32, 3, dtype=torch.uint8)  # black is never the mean
    made = views(images, erasing=0.5).images
    erased = (made == MEAN).all(dim=1)
    count = erased.sum((1, 2))
    assert 160 < (count > 0).sum() < 240
    for box in erased[count > 0]:
        rows, columns = box.any(dim=1).sum(), box.any(dim=0).sum()
        assert box.sum() == rows * columns  # one whole rectangle
        assert rows * columns <= 0.42 * 64 * 32
    hit = erased.any(dim=0)
    assert hit.any(dim=0).all()  # every column and every row is hit by some box
    assert hit.any(dim=1).all()


def test_switching_one_augmentation_off_leaves_the_others_draws():
    images = noise()
    first = views(images, flip=0.5, erasing=0.0, crop="pad")
    second = views(images, flip=0.5, erasing=1.0, crop="none")
    assert torch.equal(first.flipped, second.flipped)


def slow_colours(image, saturation, brightness, contrast):
    """One image of plain floats: every pixel by itself, then the contrast of all."""
    changed = []
    for red, green, blue in image.reshape(-1, 3).tolist():
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        changed.append([brightness * (grey + saturation * (c - grey)) for c in (red, green, blue)])
    mean = sum(0.299 * r + 0.587 * g + 0.114 * b for r, g, b in changed) / len(changed)
    return torch.tensor([[mean + contrast * (c - mean) for c in one] for one in changed])


def test_colours_change_as_pixel_by_pixel():
    images = noise(3, 4, 5)
    factors = torch.tensor([[1000, 1000, 1000], [0, 1250, 800], [1400, 700, 1300]])
    made = augmentation._change_colours(images, factors)
    assert torch.equal(made[0], images[0])
    for image, one, three in zip(images, made, factors / 1000, strict=True):
        expected = slow_colours(image, *three.tolist()).clamp(0, 255).reshape(one.shape)
        torch.testing.assert_close(one.float(), expected, rtol=0, atol=0.51)
    assert (made[1].float().std(dim=2) < 1).all()  # grey


def test_colours_are_drawn_within_their_bounds_and_move_no_other_draw():
    plain = dataclasses.replace(PLAIN, flip=0.5, erasing=0.5)
    changed = dataclasses.replace(plain, jitter=0.2, greyscale=0.5)
    images = noise(200, 16, 8)
    before, after = draws_for(images, plain), draws_for(images, changed)
    assert all(torch.equal(a, b) for a, b in zip(before[:4], after[:4], strict=True))
    assert (before.colours == 1000).all()
    grey = after.colours[:, 0] == 0
    assert 0.4 < grey.float().mean() < 0.6
    assert after.colours[~grey].min() >= 800
    assert after.colours.max() <= 1200
    assert after.colours[~grey].float().std(dim=0).min() > 80


def test_what_is_erased_keeps_the_mean_colour_whatever_happens_to_colours():
    settings = dataclasses.replace(PLAIN, erasing=1.0, greyscale=1.0)
    images = noise(4, 32, 16)
    drawn = draws_for(images, settings)
    made = augment_images(images, drawn, settings)
    level = normalise_images(torch.tensor(MEAN_COLOUR, dtype=torch.uint8).expand(1, 1, 1, 3))[
        0, :, 0, 0
    ]
    for one, (top, left, bottom, right) in zip(made, drawn.boxes.tolist(), strict=True):
        erased = one[:, top:bottom, left:right].flatten(1)
        torch.testing.assert_close(erased, level[:, None].expand_as(erased))


def test_mirrored_people_have_mirrored_textures():
    textures = noise(3, 4, 4)
    flipped = torch.tensor([0, 2])
    made = texture_targets(
        textures, flipped, mirror=TextureMirror.from_matrix(left_right_mirror(4), "cpu")
    )
    expected = (textures.float() / 127.5 - 1).permute(0, 3, 1, 2)
    torch.testing.assert_close(made.textures[1], expected[1])
    torch.testing.assert_close(made.textures[[0, 2]], expected[[0, 2]].flip(3))
    assert made.keep.all()


def test_a_mirror_may_average_texels():
    # 2x2 texels: the first becomes a quarter of itself and three quarters of the last; the
    # second and third change places; the last is taken from the first.
    matrix = np.array([[0.25, 0, 0, 0.75], [0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]])
    textures = noise(3, 2, 2)
    mirror = TextureMirror.from_matrix(csr_array(matrix), "cpu")
    a, b, c, d = textures.flatten(1, 2).float().unbind(1)
    expected = torch.stack([(a + 3 * d) / 4, c, b, a], dim=1)
    torch.testing.assert_close(mirror.whole(textures.flatten(1, 2)), expected)
    made = texture_targets(textures, torch.tensor([0, 1, 2]), mirror=mirror).textures
    shown = made.permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(shown, expected / 127.5 - 1, rtol=0, atol=1e-6)


def test_without_a_mirror_flipped_images_are_left_out():
    flipped = torch.tensor([0])
    made = texture_targets(noise(2, 4, 4), flipped, mirror=None)
    assert made.keep.tolist() == [False, True]


def test_texture_targets_span_minus_one_to_one():
    textures = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 2, 2, 3)
    made = texture_targets(textures, torch.tensor([], dtype=torch.int64), mirror=None).textures
    assert made.amin((1, 2, 3)).tolist() == made.amax((1, 2, 3)).tolist() == [-1, 1]


def test_texels_that_only_move_are_mirrored_as_averages_are():
    moved = TextureMirror.from_matrix(left_right_mirror(4), "cpu")
    textures = noise(3, 4, 4).flatten(1, 2)
    assert moved.is_permutation
    averaged = moved._replace(is_permutation=False)
    assert torch.equal(moved.whole(textures).float(), averaged.whole(textures))
    halves = csr_array(np.full((16, 16), 1 / 16, np.float32))
    assert not TextureMirror.from_matrix(halves, "cpu").is_permutation


def test_normalising_leaves_the_pixels_alone():
    images = noise()
    before = images.clone()
    normalise_images(images)
    assert torch.equal(images, before)


def test_room_gives_the_same_memory_for_the_same_shape():
    room = BufferPool()
    first = room.buffer("images", (2, 3))
    assert room.buffer("images", (2, 3)).data_ptr() == first.data_ptr()
    assert room.buffer("textures", (2, 3)).data_ptr() != first.data_ptr()
    assert room.buffer("images", (2, 3), dtype=torch.uint8).dtype == torch.uint8


def test_room_picks_rows_and_refuses_those_that_are_none():
    array = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    rows = np.array([3, 0, 3])
    picked = BufferPool().gather_rows("pixels", array, rows)
    np.testing.assert_array_equal(picked.numpy(), array[rows])
    with pytest.raises(IndexError, match=r"rows 0 \.\.\. 4 of an array of 4"):
        BufferPool().gather_rows("pixels", array, np.array([0, 4]))


def test_batches_written_into_one_room_are_those_of_fresh_memory():
    settings = get_recipe("demo")
    room = BufferPool()
    for seed in range(3):
        images = noise(4, 64, 32)
        drawn = draws_for(images, settings, seed)
        made = [augment_images(images, drawn, settings, pool=where) for where in (room, None)]
        assert torch.equal(*made)
        targets = [
            texture_targets(images[:, :32], drawn.flipped, mirror=None, pool=where)
            for where in (room, None)
        ]
        assert torch.equal(targets[0].textures, targets[1].textures)


def test_whole_batches_are_cropped_as_image_by_image():
    images, large = noise(5, 16, 8), noise(3, 18, 9)
    chosen, corners = torch.tensor([0, 2, 4]), torch.tensor([[0, 1], [2, 0], [1, 1]])
    whole = augmentation._crop_whole(images, large, chosen, corners)
    assert torch.equal(whole, augmentation._crop_by_image(images, large, chosen, corners))
    assert torch.equal(whole[2], large[1, 2:18, :8])
    assert torch.equal(whole[1], images[1])


def test_whole_batches_are_changed_as_image_by_image():
    images = noise()
    drawn = draws_for(images, dataclasses.replace(PLAIN, flip=0.5, erasing=0.5))
    whole, single = images.clone(), images.clone()
    augmentation._flip_whole(whole, drawn.flipped)
    augmentation._flip_by_image(single, drawn.flipped)
    assert torch.equal(whole, single)
    assert not torch.equal(whole, images)
    erased = augmentation._erase_whole(whole, drawn.boxes, MEAN_COLOUR)
    assert not torch.equal(erased, whole)
    single = augmentation._erase_by_image(single, drawn.boxes, MEAN_COLOUR)
    assert torch.equal(erased, single)


@pytest.mark.parametrize("averages", [True, False])
def test_whole_batches_of_textures_are_mirrored_as_image_by_image(averages):
    textures, flipped = noise(5, 4, 4), torch.tensor([1, 4])
    mirror = TextureMirror.from_matrix(left_right_mirror(4), "cpu")
    mirror = mirror._replace(is_permutation=not averages)
    made = [torch.zeros(5, 4, 4, 3) for _ in range(2)]
    augmentation._fill_whole(made[0], textures, flipped, mirror)
    augmentation._fill_by_image(made[1], textures, flipped, mirror)
    torch.testing.assert_close(*made, rtol=0, atol=1e-6)
    assert made[0].any()


def test_a_processor_normalises_as_torch_does():
    images = noise(3, 16, 8)
    made = normalise_images(images)
    torch.testing.assert_close(made, normalise_by_torch(images), rtol=0, atol=1e-6)
    strided = noise(3, 16, 16)[:, :, ::2]
    assert torch.equal(normalise_images(strided), normalise_images(strided.contiguous()))


# "meta" stands in for a GPU: it has no values, so nothing can be read from it, and its tensors do
# not mix with a processor's
@pytest.mark.parametrize("crop", ["none", "pad", "translate"])
def test_nothing_is_read_from_the_device(crop):
    settings = dataclasses.replace(PLAIN, flip=0.5, crop=crop, crop_pad=3, erasing=0.5)
    images = noise()
    drawn = draws_for(images, settings)
    there = drawn.unpacked(drawn.packed().to("meta"))
    made = augment_images(images.to("meta"), there, settings)
    assert (made.shape, made.device.type) == ((64, 3, 16, 8), "meta")
    for mirror in (None, TextureMirror.from_matrix(left_right_mirror(8), "meta")):
        targets = texture_targets(images[:, :8].to("meta"), there.flipped, mirror=mirror)
        assert {t.device.type for t in targets} == {"meta"}


def test_draws_come_back_from_their_vector():
    drawn = draws_for(noise(), dataclasses.replace(PLAIN, flip=0.5, crop="translate", erasing=0.5))
    back = drawn.unpacked(drawn.packed())
    assert all(torch.equal(a, b) for a, b in zip(drawn, back, strict=True))
    assert 0 < len(back.enlarged) < 64
