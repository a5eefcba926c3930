"""Contact sheets: many pictures in one, each with its label below."""

from collections.abc import Iterable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from san_core.images.pixels import Pixels, decode, encode_png, resize

GAP = 2  # pixels between cells
_FONT_SIZE, _LINE = 10, 12  # pixels: of a label's letters, and of its lines
_INK = "#1f2933"


def contact_sheet(
    images: Iterable[Pixels],
    *,
    columns: int,
    cell: tuple[int, int],
    labels: Sequence[str] = (),
) -> Pixels:
    """Images laid out row by row in cells of `cell` = (rows, columns) pixels, on a white ground.

    They are read one by one; memory holds one full-size image.

    Args:
        images: RGB, of any size.
        columns: how many are beside each other.
        cell: rows and columns of a picture.
        labels: of each image, with newlines between lines; without labels no room is left for them.

    Returns:
        One image; its height follows the number of images.

    Raises:
        ValueError: there are labels, but not one for each image.
    """
    h, w = cell
    under = max((1 + label.count("\n") for label in labels), default=0) * _LINE
    shrunk = [resize(image, cell) for image in images]
    if labels and len(labels) != len(shrunk):
        raise ValueError(f"a contact sheet of {len(shrunk)} images has {len(labels)} labels")
    n_rows = max(1, -(-len(shrunk) // columns))
    size = n_rows * (h + under + GAP) + GAP, columns * (w + GAP) + GAP
    sheet = np.full((*size, 3), 255, np.uint8)
    corners = [
        (GAP + (i // columns) * (h + under + GAP), GAP + (i % columns) * (w + GAP))
        for i in range(len(shrunk))
    ]
    for image, (y, x) in zip(shrunk, corners, strict=True):
        sheet[y : y + h, x : x + w] = image
    return _write_labels(sheet, labels, [(x, y + h) for y, x in corners], w) if labels else sheet


def beside(images: Sequence[Pixels]) -> Pixels:
    """Images of one height beside each other, with gaps as between cells."""
    gap = np.full((images[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for image in images for part in (gap, image)]
    return np.hstack(parts[1:])


def preview_name(number: int) -> str:
    """Where the contact sheet of a shard lies."""
    return f"preview/{number:05d}.png"


def preview_indices(count: int, *, most: int = 60) -> range:
    """Which of `count` images a contact sheet shows: at most `most`, evenly picked."""
    return range(0, count, max(1, -(-count // most)))


def preview_sheet(
    images: Iterable[bytes], *, labels: Sequence[str], cell: tuple[int, int]
) -> bytes:
    """A contact sheet (PNG) of encoded images, each in a cell of `cell` = (rows, columns).

    Large JPEGs are decoded at a fraction of their size, which saves most of the memory.
    """
    shown = map(partial(decode, at_least=cell), images)
    return encode_png(contact_sheet(shown, columns=15, cell=cell, labels=labels))


def _write_labels(
    sheet: Pixels, labels: Sequence[str], corners: Sequence[tuple[int, int]], width: int
) -> Pixels:
    written = Image.fromarray(sheet)
    pen = ImageDraw.Draw(written)
    for label, (x, y) in zip(labels, corners, strict=True):
        for number, line in enumerate(label.split("\n")):
            text = _shortened(line, width)
            pen.text((x, y + number * _LINE), text, fill=_INK, font=_font())
    return np.asarray(written)


def _shortened(line: str, width: int) -> str:
    """A line cut to fit; the middle is left out, because ends tell file names apart."""
    for kept in range(len(line), 0, -1):
        head = kept // 3
        text = line if kept == len(line) else f"{line[:head]}…{line[len(line) - kept + head :]}"
        if _font().getlength(text) <= width:
            return text
    return ""


@cache
def _font() -> ImageFont.FreeTypeFont:
    """A font with letters of many languages, the same on every machine."""
    import matplotlib

    place = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(place, _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
