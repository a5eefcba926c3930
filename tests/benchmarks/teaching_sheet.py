"""The picture in the README: held-out people, their textures, and what is taken for them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from san_core.images.pixels import Pixels, resize

SHEET = Path(__file__).parents[1] / "results" / "teaching.png"
NAMES = {"true": "true", "san_pg": "SAN-PG", "nearest": "nearest colours", "mean": "mean"}
ROWS, BLOCKS = 4, 2  # examples below and beside each other
IMAGE, TEXTURE = (128, 64), 128  # rows and columns of an image, side of a texture
GAP, HEADER = 4, 18  # pixels


def write_sheet(images: Pixels, textures: Mapping[str, Pixels], *, path: Path = SHEET) -> None:
    """Write images (N, H, W, 3) beside their textures (N, T, T, 3) of every kind in NAMES."""
    sheet = Image.new("RGB", (BLOCKS * _block_width(), HEADER + ROWS * (TEXTURE + GAP)), "white")
    for block in range(BLOCKS):
        left = block * _block_width()
        for name, column in zip(NAMES.values(), _columns(left), strict=True):
            pen = ImageDraw.Draw(sheet)
            pen.text((column, 2), name, fill="black", font=ImageFont.load_default(12))
    chosen = np.linspace(0, len(images) - 1, ROWS * BLOCKS).astype(int)
    for place, number in enumerate(chosen):
        block, row = divmod(place, ROWS)
        left, top = block * _block_width(), HEADER + row * (TEXTURE + GAP)
        sheet.paste(Image.fromarray(resize(images[number], IMAGE)), (left, top))
        for name, column in zip(NAMES, _columns(left), strict=True):
            large = Image.fromarray(textures[name][number]).resize(
                (TEXTURE, TEXTURE), Image.Resampling.NEAREST
            )
            sheet.paste(large, (column, top))
    sheet.save(path, optimize=True)


def _block_width() -> int:
    return IMAGE[1] + len(NAMES) * (TEXTURE + GAP) + 4 * GAP


def _columns(left: int) -> Iterator[int]:
    """Where the textures of a block begin."""
    return (left + IMAGE[1] + GAP + i * (TEXTURE + GAP) for i in range(len(NAMES)))
