"""The picture beside the figures, tests/results/generator.jpg.

It shows people of 24 hues, their textures, and what is made of them.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from san_core.images.pixels import Pixels, encode_jpeg
from san_core.images.sheet import contact_sheet
from tests.benchmarks.generator.people import HUES, VIEWS, HeldOut

SHEET = Path(__file__).parents[2] / "results" / "generator.jpg"
SIDE = 96  # pixels of a texture
BLOCKS = 3  # people beside each other


def write_sheet(people: HeldOut, made: Pixels, oracle: Pixels, *, path: Path = SHEET) -> None:
    """For every hue, at lightnesses and from sides by turns: photo, true, generator's, oracle's."""
    cells = list(_cells(people, made, oracle))
    sheet = contact_sheet(cells, columns=4 * BLOCKS, cell=(SIDE, SIDE))
    path.write_bytes(encode_jpeg(sheet, quality=88))


def _cells(people: HeldOut, made: Pixels, oracle: Pixels) -> Iterator[Pixels]:
    for hue in range(HUES):
        person = hue + HUES * (hue % 4)
        row = person * VIEWS + hue % VIEWS
        yield _on_white(people.images[row])
        for texture in (people.textures[person], made[row], oracle[row]):
            yield _enlarged(texture)


def _on_white(image: Pixels) -> Pixels:
    """A picture (H, W, 3) in the middle of a white square."""
    rows, columns = image.shape[:2]
    square = np.full((rows, rows, 3), 255, np.uint8)
    left = (rows - columns) // 2
    square[:, left : left + columns] = image
    return square


def _enlarged(texture: Pixels) -> Pixels:
    image = Image.fromarray(texture)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.NEAREST))
