"""Queries with their nearest gallery images: a sample over all, and the worst."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from markupsafe import Markup

from san_core.data.records import LabelledImage, camera_label, facts_of, person_label
from san_core.evaluation.ranked_lists import RankedImage, RankedLists
from san_core.evaluation.ranking import Ranking
from san_core.images import pixels
from san_core.pages import page

RANKED_SHOWN = 10  # gallery images beside a query
# Queries shown of each kind, and the (rows, columns) their thumbnails are stored at.
QUERIES_PER_GROUP = 6
THUMBNAIL_SIZE = (160, 80)

R = TypeVar("R", bound=LabelledImage)

_LEADS = {
    "Representative queries": "Evenly spaced from the best to the worst, by average precision.",
    "Worst queries": "Of the lowest average precision; ranked.csv of the report has all queries.",
}


class _ShownImage(NamedTuple):
    """A gallery image; `camera` is empty if unknown, `rank` is empty if its position shows it."""

    image: Markup
    is_right: bool
    distance: str
    person: str
    camera: str
    facts: str
    rank: str


class _ShownQuery(NamedTuple):
    """A query and its nearest gallery images."""

    name: str
    image: Markup
    person: str
    camera: str
    facts: str
    precision: str
    first_rank: int
    found: list[_ShownImage]


class _Group(NamedTuple):
    heading: str
    lead: str
    queries: list[_ShownQuery]


def ranked_galleries(
    lists: RankedLists, query: Sequence[R], gallery: Sequence[R], read: Callable[[R], bytes]
) -> Markup:
    """The chosen queries with their nearest images; a frame shows whether each is right.

    Args:
        lists: of a ranking.
        query: the queries' records, in the order they were ranked.
        gallery: the gallery's records, in the order they were ranked.
        read: the bytes of a record's image file.

    Raises:
        ValueError: an image cannot be decoded.
    """
    groups = [
        _Group(heading, _LEADS[heading], [_shown_query(lists, i, query, gallery, read) for i in at])
        for heading, at in choose_queries(lists.ranking, shown=QUERIES_PER_GROUP).items()
        if at
    ]
    return page.render_template(
        "evaluation/pages/ranked.html.jinja",
        groups=groups,
        numbered=lists.ranking.protocol != "camera-free"
        and all(r.camid is not None and "camera" not in r.fields for r in query),
    )


def choose_queries(ranking: Ranking, *, shown: int) -> dict[str, list[int]]:
    """Indices of up to `shown` queries sampled over all, best first, and of the worst.

    By average precision; ties are in query order, and no query occurs twice.
    """
    judged = np.flatnonzero(ranking.first_rank)
    ordered = judged[np.argsort(-ranking.average_precision[judged], kind="stable")].tolist()
    n = min(shown, len(ordered))
    standing = [ordered[(2 * k + 1) * len(ordered) // (2 * n)] for k in range(n)]
    worst = sorted(set(ordered) - set(standing), key=lambda i: (ranking.average_precision[i], i))
    return {"Representative queries": standing, "Worst queries": worst[:shown]}


def _shown_query(
    lists: RankedLists, i: int, query: Sequence[R], gallery: Sequence[R], read: Callable[[R], bytes]
) -> _ShownQuery:
    record, ranking = query[i], lists.ranking
    return _ShownQuery(
        name=record.name,
        image=_thumbnail(record, read, alt=f"query {record.name}"),
        person=person_label(record),
        camera=camera_label(record),
        facts=_facts_label(record),
        precision=f"{100 * ranking.average_precision[i]:.1f}",
        first_rank=int(ranking.first_rank[i]),
        found=[
            _shown_image(each, gallery[each.place], read)
            for each in lists.of_query(i, count=RANKED_SHOWN)
        ],
    )


def _shown_image(found: RankedImage, record: R, read: Callable[[R], bytes]) -> _ShownImage:
    verdict = "right" if found.is_right else "wrong"
    return _ShownImage(
        image=_thumbnail(record, read, alt=f"rank {found.rank}, {verdict}: {record.name}"),
        is_right=found.is_right,
        distance=f"{found.distance:.3f}" if found.distance < 100 else f"{found.distance:,.0f}",
        person=person_label(record),
        camera=camera_label(record),
        facts=_facts_label(record),
        rank=f"{found.rank:,}" if found.rank > RANKED_SHOWN else "",
    )


def _facts_label(record: LabelledImage) -> str:
    return ", ".join(f"{name} {told}" for name, told in facts_of(record).items())


def _thumbnail(record: R, read: Callable[[R], bytes], *, alt: str) -> Markup:
    image = pixels.decode(read(record), name=record.name)
    return page.image_tag(pixels.resize(image, THUMBNAIL_SIZE), alt=alt)
