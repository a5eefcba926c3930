"""The page of a search: each query with its nearest pictures, one HTML document."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from san_core.images import pixels
from san_core.pages import page

# Rows of a thumbnail, and the most columns: pictures of people are upright, photographs may lie.
THUMBNAIL_ROWS, _MOST_COLUMNS = 160, 240


class FoundPicture(NamedTuple):
    """A picture of the gallery; `is_near` is None if there is no threshold."""

    name: str
    distance: float
    image: Markup
    is_near: bool | None


class SearchedQuery(NamedTuple):
    """A query and its nearest pictures, nearest first."""

    name: str
    image: Markup
    found: Sequence[FoundPicture]


def search_page(
    queries: Sequence[SearchedQuery],
    *,
    facts: Sequence[tuple[str, str]],
    threshold: str,
    left: int,
    top: int,
) -> str:
    """The whole document.

    Args:
        queries: those that are shown.
        facts: facts of the search, a name and a text each.
        threshold: the threshold and its origin, in words; empty if there is none.
        left: how many more queries there are.
        top: how many pictures were found for each query; those shown may be fewer.
    """
    return page.render_template(
        "search/search.html.jinja",
        title="Search",
        subtitle=f"{len(queries) + left} {'queries' if len(queries) + left > 1 else 'query'}",
        sections=[],
        queries=queries,
        facts=facts,
        threshold=threshold,
        left=left,
        further=top - max((len(query.found) for query in queries), default=top),
    )


def thumbnail(data: bytes, *, name: str, alt: str) -> Markup:
    """A small picture in the shape of an image file.

    Raises:
        ValueError: it is no image, naming it.
    """
    image = pixels.decode(data, name=name)
    height, width = image.shape[:2]
    scale = min(THUMBNAIL_ROWS / height, _MOST_COLUMNS / width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return page.image_tag(pixels.resize(image, size), alt=alt)
