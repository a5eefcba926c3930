"""The UV atlas with its charts named, beside a rendered person who wears it."""

import numpy as np
from PIL import Image, ImageDraw

from san_core.images.pixels import Pixels
from san_core.synthesis.person.atlas import ATLAS_NAME, chart_rectangle
from san_core.synthesis.person.body import current_body
from tools.pictures.person import RenderedPerson
from tools.pictures.sheet import INK, WORDS_HEIGHT, Tile, draw_sheet, enlarge, few_colours, font

SIDE = 512  # pixels of a texture
GAP = 16
PERSON_SIZE = (SIDE, SIDE // 2)  # rows and columns


def draw_atlas() -> Image.Image:
    """The true texture of a rendered person, every chart framed and named, and the person."""
    person = RenderedPerson(3)
    sheet = draw_sheet(
        [
            Tile(f"UV texture in the atlas {ATLAS_NAME}", _named_charts(person.texture), GAP, GAP),
            Tile("front", person.render(person.texture, 25, PERSON_SIZE), SIDE + 2 * GAP, GAP),
            Tile(
                "back",
                person.render(person.texture, 205, PERSON_SIZE),
                SIDE + PERSON_SIZE[1] + 3 * GAP,
                GAP,
            ),
        ],
        (SIDE + WORDS_HEIGHT + 2 * GAP, SIDE + 2 * PERSON_SIZE[1] + 4 * GAP),
    )
    return few_colours(sheet)


def _named_charts(texture: Pixels) -> Pixels:
    """A texture at SIDE with a frame and a name for every chart."""
    scale = SIDE // len(texture)
    picture = Image.fromarray(enlarge(texture, (SIDE, SIDE)))
    pen = ImageDraw.Draw(picture)
    for name in current_body().charts:
        chart = chart_rectangle(name)
        left, top = chart.left * scale, chart.top * scale
        pen.rectangle(
            (left, top, chart.right * scale - 1, chart.bottom * scale - 1), outline="white"
        )
        box = pen.textbbox((left + 5, top + 3), name, font=font())
        pen.rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), fill="white")
        pen.text((left + 5, top + 3), name, fill=INK, font=font())
    return np.asarray(picture)
