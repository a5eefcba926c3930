"""Which sizes of images and textures fit a recipe's network, without building it.

It needs no torch, because it is also checked when a training is submitted elsewhere.
"""

from typing import NamedTuple

from san_core.recipe import Arch, Recipe

HEAD_KERNEL = 7  # rows and columns of the decoder's last convolution


class _Encoder(NamedTuple):
    channels: int  # of f_e1
    stride: int  # of f_e1


_ENCODERS: dict[Arch, _Encoder] = {
    "resnet10_quarter": _Encoder(16, 2),
    "resnet18": _Encoder(64, 4),
    "resnet34": _Encoder(64, 4),
    "resnet50": _Encoder(256, 4),
    "resnet101": _Encoder(256, 4),
    "resnet152": _Encoder(256, 4),
    "resnext50_32x4d": _Encoder(256, 4),
    "resnext101_32x8d": _Encoder(256, 4),
    "wide_resnet50_2": _Encoder(256, 4),
    "wide_resnet101_2": _Encoder(256, 4),
    "resnet18_ibn_a": _Encoder(64, 4),
    "resnet50_ibn_a": _Encoder(256, 4),
    "resnet101_ibn_a": _Encoder(256, 4),
    "convnext_tiny": _Encoder(96, 4),
    "convnext_small": _Encoder(96, 4),
    "convnext_base": _Encoder(128, 4),
    "swin_t": _Encoder(96, 4),
    "swin_s": _Encoder(96, 4),
    "swin_b": _Encoder(128, 4),
    "swin_v2_t": _Encoder(96, 4),
    "swin_v2_s": _Encoder(96, 4),
    "swin_v2_b": _Encoder(128, 4),
}


def check_sizes(recipe: Recipe) -> None:
    """Raise ValueError unless images and textures of the recipe's sizes fit its network."""
    check_image_size(recipe)
    if recipe.needs_decoder:
        decoder_doublings(recipe)


def encoder_channels(recipe: Recipe) -> tuple[int, int, int, int]:
    """Channels of f_e1 ... f_e4, each twice the one before."""
    first = _ENCODERS[recipe.arch].channels
    return (first, first * 2, first * 4, first * 8)


def encoder_strides(recipe: Recipe) -> tuple[int, int, int, int]:
    """Pixels of the image per cell of f_e1 ... f_e4."""
    first = _ENCODERS[recipe.arch].stride
    return (first, first * 2, first * 4, first * 4 * recipe.last_stride)


def check_image_size(recipe: Recipe) -> None:
    """Raise ValueError if the image size is no multiple of the encoder's last stride."""
    stride = encoder_strides(recipe)[3]
    height, width = recipe.image_size
    if height % stride or width % stride:
        raise ValueError(
            f"images of {height}x{width} do not divide by {stride}, the stride of {recipe.arch}: "
            "choose image_height and image_width as multiples of it"
        )


def decoder_doublings(recipe: Recipe) -> int:
    """The number of doublings from the rows of f_e4 to those of the texture.

    Raises:
        ValueError: no number of doublings fits, or the last map is too small for the head's
            padding.
    """
    stride = encoder_strides(recipe)[3]
    rows, columns = recipe.image_height // stride, recipe.image_width // stride
    n = 0
    while rows << n < recipe.decoded_size:
        n += 1
    if n == 0 or rows << n != recipe.decoded_size:
        name = "copy_queries" if recipe.texture_from == "copy" else "texture_size"
        raise ValueError(
            f"{name} {recipe.decoded_size} cannot be reached from the {rows} rows of f_e4 "
            f"(image_height {recipe.image_height}): choose {rows} times a power of two, "
            f"for instance {', '.join(str(rows << i) for i in range(1, 5))}"
        )
    _check_head(rows << n, columns << n)
    return n


def _check_head(rows: int, columns: int) -> None:
    """Reflection padding mirrors inner rows and columns, so it needs enough of them."""
    least = HEAD_KERNEL // 2 + 1
    if min(rows, columns) < least:
        raise ValueError(
            f"the decoder's last map has {rows}x{columns} rows and columns, too few for its "
            f"{HEAD_KERNEL}x{HEAD_KERNEL} head: choose texture_size and the image's size so that "
            f"both are at least {least}"
        )
