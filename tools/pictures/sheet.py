"""A white sheet with pictures on it, each under a line of words."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from san_core.images.pixels import Pixels

WORDS_HEIGHT = 20  # pixels of a line of words
INK = (40, 40, 40)
_FONT_SIZE = 13
Colour = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Tile:
    """A picture (H, W, 3) at its place, `left` and `top` being those of its words."""

    words: str
    picture: Pixels
    left: int
    top: int
    frame: Colour | None = None


def draw_sheet(tiles: list[Tile], size: tuple[int, int]) -> Image.Image:
    """The tiles on a sheet of `size` = (rows, columns)."""
    rows, columns = size
    sheet = Image.new("RGB", (columns, rows), "white")
    pen = ImageDraw.Draw(sheet)
    for tile in tiles:
        top = tile.top + WORDS_HEIGHT
        pen.text((tile.left, tile.top + 2), tile.words, fill=INK, font=font())
        sheet.paste(Image.fromarray(tile.picture), (tile.left, top))
        if tile.frame is not None:
            rows, columns = tile.picture.shape[:2]
            box = (tile.left, top, tile.left + columns - 1, top + rows - 1)
            pen.rectangle(box, outline=tile.frame, width=4)
    return sheet


def draw_arrow(sheet: Image.Image, start: tuple[int, int], length: int) -> None:
    """An arrow to the right."""
    left, middle = start
    tip = left + length
    pen = ImageDraw.Draw(sheet)
    pen.line((left, middle, tip - 6, middle), fill=INK, width=2)
    pen.polygon(((tip, middle), (tip - 9, middle - 6), (tip - 9, middle + 6)), fill=INK)


def enlarge(picture: Pixels, size: tuple[int, int]) -> Pixels:
    """A picture at a larger `size` = (rows, columns), its pixels kept as squares."""
    rows, columns = size
    large = Image.fromarray(picture).resize((columns, rows), Image.Resampling.NEAREST)
    return np.asarray(large)


def few_colours(sheet: Image.Image) -> Image.Image:
    """The sheet in 256 colours of its own, which keeps its file small."""
    return sheet.quantize(256, method=Image.Quantize.MAXCOVERAGE)


@cache
def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of all words: the one that comes with Pillow."""
    return ImageFont.load_default(_FONT_SIZE)
