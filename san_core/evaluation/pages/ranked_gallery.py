"""The worst, median and best queries, and what was ranked first for each, to look at."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from markupsafe import Markup

from san_core.data.records import LabelledImage, camera_name, facts_of, person_name
from san_core.evaluation.ranking import Ranking
from san_core.images import pixels
from san_core.pages import page

# Queries shown of each kind, and the (rows, columns) their thumbnails are stored at.
QUERIES_PER_GROUP = 6
THUMBNAIL_SIZE = (160, 80)

R = TypeVar("R", bound=LabelledImage)


class _RankedImage(NamedTuple):
    """One of the nearest gallery images; `camera` is empty where unknown, `facts` without any."""

    image: Markup
    right: bool
    camera: str
    facts: str


class _RankedQuery(NamedTuple):
    """A query and what was ranked first for it."""

    name: str
    image: Markup
    person: str
    camera: str
    facts: str
    precision: str
    first_rank: int
    places: list[_RankedImage]


class _Group(NamedTuple):
    heading: str
    queries: list[_RankedQuery]


def ranked_galleries(
    ranking: Ranking, query: Sequence[R], gallery: Sequence[R], read: Callable[[R], bytes]
) -> Markup:
    """The chosen queries with their top, each image framed by whether it is right.

    Args:
        ranking: with its top.
        query: the queries' records, in the order they were ranked.
        gallery: the gallery's records, in the order they were ranked.
        read: the bytes of a record's image file.

    Raises:
        ValueError: an image cannot be decoded.
    """
    groups = [
        _Group(heading, [_ranked_query(ranking, i, query, gallery, read) for i in indices])
        for heading, indices in choose_queries(ranking, shown=QUERIES_PER_GROUP).items()
        if indices
    ]
    return page.render_template(
        "evaluation/pages/ranked.html.jinja",
        groups=groups,
        numbered=ranking.protocol != "camera-free"
        and all(r.camid is not None and "camera" not in r.fields for r in query),
    )


def choose_queries(ranking: Ranking, *, shown: int) -> dict[str, list[int]]:
    """Indices of up to `shown` worst, median and best queries by average precision, no query twice.

    Equal ones are taken in query order. With few queries the worst come first, then the best.
    """
    judged = np.flatnonzero(ranking.first_rank)
    ordered = judged[np.argsort(ranking.average_precision[judged], kind="stable")].tolist()
    worst, rest = ordered[:shown], ordered[shown:]
    best = sorted(rest, key=lambda i: (-ranking.average_precision[i], i))[:shown]
    rest = [i for i in rest if i not in best]
    start = max(0, (len(rest) - shown) // 2)
    return {
        "Worst queries": worst,
        "Median queries": rest[start : start + shown],
        "Best queries": best,
    }


def _ranked_query(
    ranking: Ranking, i: int, query: Sequence[R], gallery: Sequence[R], read: Callable[[R], bytes]
) -> _RankedQuery:
    record = query[i]
    places = [
        _ranked_image(gallery[g], rank, right=bool(right), read=read)
        for rank, (g, right) in enumerate(zip(ranking.top[i], ranking.right[i], strict=True), 1)
        if g >= 0
    ]
    return _RankedQuery(
        name=record.name,
        image=_thumbnail(record, read, alt=f"query {record.name}"),
        person=f"person {person_name(record)}",
        camera=_camera_label(record),
        facts=_facts_label(record),
        precision=f"{100 * ranking.average_precision[i]:.1f}",
        first_rank=int(ranking.first_rank[i]),
        places=places,
    )


def _ranked_image(record: R, rank: int, *, right: bool, read: Callable[[R], bytes]) -> _RankedImage:
    verdict = "right" if right else "wrong"
    alt = f"rank {rank}, {verdict}: {record.name}"
    picture = _thumbnail(record, read, alt=alt)
    return _RankedImage(picture, right, _camera_label(record), _facts_label(record))


def _camera_label(record: LabelledImage) -> str:
    return "" if record.camid is None else f"cam {camera_name(record)}"


def _facts_label(record: LabelledImage) -> str:
    return ", ".join(f"{name} {told}" for name, told in facts_of(record).items())


def _thumbnail(record: R, read: Callable[[R], bytes], *, alt: str) -> Markup:
    image = pixels.decode(read(record), name=record.name)
    return page.image_tag(pixels.resize(image, THUMBNAIL_SIZE), alt=alt)
