"""From one picture to a whole texture, and one query with what a run of the demo ranked first."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from san_core.evaluation.feature_files import FeatureFiles
from san_core.evaluation.labels import labels_of
from san_core.evaluation.ranking import rank
from san_core.images.imageset import ImageSet
from san_core.images.pixels import Pixels, decode, resize
from san_core.inference.textures import predict_textures
from san_core.model.weights import load_network
from san_core.shipped.generator import SHIPPED_FOLDER
from tools.pictures.person import RenderedPerson
from tools.pictures.sheet import (
    WORDS_HEIGHT,
    Colour,
    Tile,
    draw_arrow,
    draw_sheet,
    enlarge,
    few_colours,
    font,
)

PERSON_SIZE, TEXTURE_SIDE = (256, 128), 256  # rows and columns of a person; pixels
RANKED_SIZE, PLACES = (160, 80), 9
RIGHT, WRONG, QUERY = (0, 140, 60), (205, 40, 40), (90, 90, 90)
GAP, ARROW = 16, 28
SIDES = (25, 205)  # degrees: obliquely from the front, and from behind


class _Ranked(NamedTuple):
    """A query and the gallery images nearest to it, with whether they show its person."""

    query: Pixels
    places: list[Pixels]
    right: list[bool]


def draw_overview(run: Path, *, query: int, person: int) -> Image.Image:
    """A rendered person, the texture from that picture, the person in it; below, a ranked row."""
    tiles = [*_texture_tiles(person), *_ranked_tiles(_ranked_row(run, query))]
    last = max(tiles, key=lambda tile: tile.top)
    rows = last.top + WORDS_HEIGHT + len(last.picture) + GAP
    columns = max(tile.left + tile.picture.shape[1] for tile in tiles) + GAP
    sheet = draw_sheet(tiles, (rows, columns))
    middle = GAP + WORDS_HEIGHT + PERSON_SIZE[0] // 2
    for tile in tiles[1:3]:
        draw_arrow(sheet, (tile.left - GAP // 2 - ARROW, middle), ARROW)
    return few_colours(sheet)


def _texture_tiles(number: int) -> list[Tile]:
    person = RenderedPerson(number)
    loaded = load_network(SHIPPED_FOLDER)
    picture = person.photograph(SIDES[0], PERSON_SIZE)
    size = (loaded.recipe.image_height, loaded.recipe.image_width)
    texture = predict_textures(loaded.model, resize(picture, size)[None], device="cpu")[0]
    shown = {
        "one image (rendered)": picture,
        "its texture by SAN-PG": enlarge(texture, (TEXTURE_SIDE,) * 2),
        "in that texture, from behind": person.render(texture, SIDES[1], PERSON_SIZE),
        "the true back": person.render(person.texture, SIDES[1], PERSON_SIZE),
    }
    return _side_by_side(shown, top=GAP, step=2 * GAP + ARROW)


def _side_by_side(shown: dict[str, Pixels], *, top: int, step: int) -> list[Tile]:
    tiles, left = [], GAP
    for words, picture in shown.items():
        tiles.append(Tile(words, picture, left, top))
        left += max(picture.shape[1], _width(words)) + step
    return tiles


def _width(words: str) -> int:
    return round(ImageDraw.Draw(Image.new("L", (1, 1))).textlength(words, font=font()))


def _ranked_row(run: Path, number: int) -> _Ranked:
    """Query `number` of a run's features and its nearest images, its own camera left out."""
    images = ImageSet.open(run / "prepare_reid" / "reid")
    files = FeatureFiles(run / "extract_features" / "features")
    records = files.records(images.records, ("query", "gallery"))
    rows = files.rows("features", len(records))
    is_query = np.array([record.split == "query" for record in records])
    queries = [record for record in records if record.split == "query"]
    gallery = [record for record in records if record.split == "gallery"]
    ranking = rank(
        rows[is_query],
        rows[~is_query],
        query=labels_of(queries),
        gallery=labels_of(gallery),
        metric=files.metric,
        top_k=PLACES,
    )
    nearest = [gallery[place] for place in ranking.top[number] if place >= 0]
    return _Ranked(
        decode(images.read(queries[number])),
        [decode(images.read(record)) for record in nearest],
        [bool(right) for right in ranking.right[number][: len(nearest)]],
    )


def _ranked_tiles(ranked: _Ranked) -> list[Tile]:
    top = GAP + WORDS_HEIGHT + PERSON_SIZE[0] + GAP
    step = RANKED_SIZE[1] + GAP // 2
    tiles = [_ranked_tile("query", ranked.query, (GAP, top), QUERY)]
    for place, picture in enumerate(ranked.places):
        colour = RIGHT if ranked.right[place] else WRONG
        left = GAP + step + GAP + place * step
        tiles.append(_ranked_tile(f"rank {place + 1}", picture, (left, top), colour))
    return tiles


def _ranked_tile(words: str, picture: Pixels, corner: tuple[int, int], frame: Colour) -> Tile:
    left, top = corner
    return Tile(words, resize(picture, RANKED_SIZE), left, top, frame)
