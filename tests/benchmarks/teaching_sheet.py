"""The picture in the README: held-out people, their textures, and what is taken for them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from san_core.images.pixels import Pixels, resize

SHEET = Path(__file__).parents[1] / "results" / "teaching.png"
NAMES = {"true": "true", "san_pg": "SAN-PG", "nearest": "nearest colours", "mean": "mean"}
ROWS, BLOCKS = 4, 2  # examples below and beside each other
SHEET_IMAGE_SIZE, SHEET_TEXTURE_SIDE = (
    (128, 64),
    128,
)  # rows and columns of an image, side of a texture
GAP, HEADER = 4, 18  # pixels


def write_sheet(images: Pixels, textures: Mapping[str, Pixels], *, path: Path = SHEET) -> None:
    """Write images (N, H, W, 3) beside their textures (N, T, T, 3) of every kind in NAMES."""
    sheet = Image.new(
        "RGB", (BLOCKS * _block_width(), HEADER + ROWS * (SHEET_TEXTURE_SIDE + GAP)), "white"
    )
    for block in range(BLOCKS):
        left = block * _block_width()
        for name, column in zip(NAMES.values(), _column_lefts(left), strict=True):
            pen = ImageDraw.Draw(sheet)
            pen.text((column, 2), name, fill="black", font=ImageFont.load_default(12))
    chosen = np.linspace(0, len(images) - 1, ROWS * BLOCKS).astype(int)
    for place, number in enumerate(chosen):
        block, row = divmod(place, ROWS)
        left, top = block * _block_width(), HEADER + row * (SHEET_TEXTURE_SIDE + GAP)
        sheet.paste(Image.fromarray(resize(images[number], SHEET_IMAGE_SIZE)), (left, top))
        for name, column in zip(NAMES, _column_lefts(left), strict=True):
            large = Image.fromarray(textures[name][number]).resize(
                (SHEET_TEXTURE_SIDE, SHEET_TEXTURE_SIDE), Image.Resampling.NEAREST
            )
            sheet.paste(large, (column, top))
    sheet.save(path, optimize=True)


def _block_width() -> int:
    return SHEET_IMAGE_SIZE[1] + len(NAMES) * (SHEET_TEXTURE_SIDE + GAP) + 4 * GAP


def _column_lefts(left: int) -> Iterator[int]:
    """Where the textures of a block begin."""
    return (
        left + SHEET_IMAGE_SIZE[1] + GAP + i * (SHEET_TEXTURE_SIDE + GAP) for i in range(len(NAMES))
    )
