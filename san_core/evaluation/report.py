"""What an evaluation hands on: its figures as a plain dict, and a page to look at.

The dict (report.json) is for programs: fractions, never per cent, and nothing that tells when or
where it was made. The page (HTML) is for people: the figures beside those of references, the CMC
curves, and the worst, median and best queries with what was ranked first for each.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from san_core import page, pixels
from san_core.data.records import Labelled, summary
from san_core.evaluation.ranking import Ranking
from san_core.page import Section

FORMAT = "san-evaluation"
VERSION = 1
MODEL = "this model"
# Queries shown of each kind, and the (rows, columns) their thumbnails are stored at.
SHOWN = 6
THUMBNAIL = (160, 80)

_SCORES = {"rank1": "Rank-1", "mAP": "mAP", "rank5": "Rank-5", "rank10": "Rank-10", "mINP": "mINP"}
_DISTANCES = {"euclidean": "squared Euclidean distance", "cosine": "cosine distance"}

_RANKED_LEAD = (
    "The query is on the left and the nearest gallery images follow; "
    "images the protocol leaves out are not shown."
)

R = TypeVar("R", bound=Labelled)


def figures(
    ranking: Ranking,
    references: Mapping[str, Ranking] | None = None,
    *,
    query: Sequence[Labelled],
    gallery: Sequence[Labelled],
    metric: str,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of report.json: the same for the same input, on any machine, at any time.

    Args:
        ranking: the trained model's.
        references: rankings of the same queries and gallery by something else, by name, such as
            "untrained encoder" or "colour histogram".
        query: the queries' records, in the order they were ranked.
        gallery: the gallery's records, in the order they were ranked.
        metric: the distance the model was ranked by, "euclidean" or "cosine".
        provenance: where the features come from, as JSON; kept as it is.

    Returns:
        `rank1`, `rank5`, `rank10`, `mAP`, `mINP` as fractions of the judged queries, the same for
        each of `references`, `cmc` as a list from rank 1 on, and the counts: `num_query` and
        `num_gallery` (all), `num_skipped` (queries with no right answer left), `num_identities`
        (people among the queries), `num_cameras`, `num_distractors`, `num_junk` (in the gallery).

    Raises:
        ValueError: a ranking is not one of these records, a reference has the model's name, or
            the metric is unknown.
    """
    references = references or {}
    if MODEL in references:
        raise ValueError(f"a reference may not be called '{MODEL}'")
    for name, each in {MODEL: ranking, **references}.items():
        _check_ranking(name, each, query, gallery)
    if metric not in _DISTANCES:
        raise ValueError(f"no metric '{metric}'; there are {', '.join(_DISTANCES)}")
    asked, searched = summary(query), summary(gallery)
    cameras = {r.camid for r in (*query, *gallery) if r.camid is not None}
    return {
        "format": FORMAT,
        "version": VERSION,
        "protocol": ranking.protocol,
        "metric": metric,
        **ranking.scores(),
        "cmc": ranking.cmc.tolist(),
        "num_query": ranking.num_query,
        "num_gallery": ranking.num_gallery,
        "num_skipped": ranking.num_skipped,
        "num_identities": sum(subset.ids for subset in asked.values()),
        "num_cameras": len(cameras),
        "num_distractors": sum(subset.distractors for subset in searched.values()),
        "num_junk": sum(subset.junk for subset in searched.values()),
        "references": {name: each.scores() for name, each in references.items()},
        "provenance": dict(provenance or {}),
    }


def _check_ranking(
    name: str, ranking: Ranking, query: Sequence[Labelled], gallery: Sequence[Labelled]
) -> None:
    if (ranking.num_query, ranking.num_gallery) != (len(query), len(gallery)):
        raise ValueError(
            f"the ranking of {name} is one of {ranking.num_query} queries and "
            f"{ranking.num_gallery} gallery images, but there are {len(query)} and {len(gallery)}"
        )


def html(
    report: Mapping[str, Any],
    ranking: Ranking,
    references: Mapping[str, Ranking] | None = None,
    *,
    query: Sequence[R],
    gallery: Sequence[R],
    read: Callable[[R], bytes],
    title: str = "Person re-identification",
) -> str:
    """The page of an evaluation: one HTML document with everything in it.

    Args:
        report: what `figures` returned for the same rankings and records.
        ranking: the trained model's.
        references: as in `figures`.
        query: as in `figures`.
        gallery: as in `figures`.
        read: the bytes of a record's image file, such as `ImageSet.read`.
        title: the heading.
    """
    curves = {MODEL: ranking, **(references or {})}
    alt = "CMC curves. " + "; ".join(f"{k}: {v.cmc[0]:.1%} at rank 1" for k, v in curves.items())
    sections = [
        Section("Figures", _scores(report), protocol_in_words(report)),
        Section(
            "Cumulative matching characteristic",
            page.figure_svg(_cmc_figure(curves), alt=alt),
            "The share of queries with a right answer by each rank.",
        ),
        Section("Ranked galleries", _ranked_galleries(ranking, query, gallery, read), _RANKED_LEAD),
        Section("Data", _counts(report)),
    ]
    if report["provenance"]:
        sections.append(Section("Provenance", _provenance(report["provenance"])))
    return page.render(
        "evaluation/report.html.jinja",
        title=title,
        subtitle=_subtitle(report),
        sections=sections,
        top_k=ranking.top.shape[1],
    )


def protocol_in_words(report: Mapping[str, Any]) -> str:
    """A paragraph saying how the figures came about, from what `figures` returned."""
    left_out = (
        "Gallery images of the same person taken by the query's own camera are left out"
        if report["protocol"] == "market1501"
        else "Cameras are unknown, so no gallery image is left out for its camera"
    )
    junk = ", and so is junk" if report["protocol"] == "market1501" else ", only junk is"
    parts = [
        f"Each query is compared with every gallery image by {_DISTANCES[report['metric']]}.",
        left_out + (junk if report["num_junk"] else "") + ".",
        "Tied distances rank in gallery order.",
    ]
    if report["num_distractors"]:
        parts.insert(2, "Distractors stay in as wrong answers.")
    if report["num_skipped"]:
        parts.append(
            f"Of {report['num_query']:,} queries {report['num_skipped']:,} have no right answer "
            "left and are not counted."
        )
    return " ".join(parts)


def _subtitle(report: Mapping[str, Any]) -> str:
    return (
        f"{report['num_query']:,} queries of {report['num_identities']:,} people against "
        f"{report['num_gallery']:,} gallery images"
    )


def _scores(report: Mapping[str, Any]) -> Markup:
    scored = {MODEL: report, **report["references"]}
    rows = [
        [name, *(f"{100 * figures[key]:.1f}" for key in _SCORES)]
        for name, figures in scored.items()
    ]
    return page.table(["", *_SCORES.values()], rows, caption="Per cent.", strong=0)


def _counts(report: Mapping[str, Any]) -> Markup:
    names = {
        "num_query": "Queries",
        "num_skipped": "– without a right answer, not counted",
        "num_identities": "People among the queries",
        "num_gallery": "Gallery images",
        "num_distractors": "– distractors, nobody's right answer",
        "num_junk": "– junk, left out",
        "num_cameras": "Cameras",
    }
    rows = [(name, f"{report[key]:,}") for key, name in names.items() if report[key]]
    return page.table(["", "Number"], rows)


def _provenance(provenance: Mapping[str, Any]) -> Markup:
    rows = [
        (key, value if isinstance(value, str) else json.dumps(value, sort_keys=True))
        for key, value in provenance.items()
    ]
    return page.table(["", "Value"], rows, text=True)


def _cmc_figure(rankings: Mapping[str, Ranking]) -> Figure:
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = page.axes(figure)
    for colour, (name, ranking) in zip(page.cycle(len(rankings)), rankings.items(), strict=True):
        ranks = np.arange(1, len(ranking.cmc) + 1)
        width = 2.4 if name == MODEL else 1.6
        axes.plot(ranks, ranking.cmc, color=colour, linewidth=width, label=name)
    axes.set_xlim(1, max(len(ranking.cmc) for ranking in rankings.values()))
    axes.set_xticks([1, *range(5, int(axes.get_xlim()[1]) + 1, 5)])
    axes.set_ylim(0, 1.01)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("rank")
    axes.set_ylabel("queries matched")
    page.legend(axes, loc="lower right")
    return figure


class _Place(NamedTuple):
    """One of the nearest gallery images; `camera` is empty where unknown."""

    image: Markup
    right: bool
    camera: str


class _Ranked(NamedTuple):
    """A query and what was ranked first for it."""

    name: str
    image: Markup
    person: str
    camera: str
    precision: str
    first_rank: int
    places: list[_Place]


class _Group(NamedTuple):
    heading: str
    queries: list[_Ranked]


def _ranked_galleries(
    ranking: Ranking, query: Sequence[R], gallery: Sequence[R], read: Callable[[R], bytes]
) -> Markup:
    groups = [
        _Group(heading, [_ranked(ranking, i, query, gallery, read) for i in indices])
        for heading, indices in choose(ranking, shown=SHOWN).items()
        if indices
    ]
    return page.render(
        "evaluation/ranked.html.jinja", groups=groups, cameras=ranking.protocol != "camera-free"
    )


def choose(ranking: Ranking, *, shown: int) -> dict[str, list[int]]:
    """Indices of up to `shown` worst, median and best queries by average precision, no query twice.

    Equal ones are taken in query order. With few queries the worst come first, then the best.
    """
    judged = np.flatnonzero(ranking.first_rank)
    ordered = judged[np.argsort(ranking.average_precision[judged], kind="stable")].tolist()
    worst, rest = ordered[:shown], ordered[shown:]
    best, rest = rest[-shown:], rest[:-shown]
    start = max(0, (len(rest) - shown) // 2)
    return {
        "Worst queries": worst,
        "Median queries": rest[start : start + shown],
        "Best queries": best[::-1],
    }


def _ranked(
    ranking: Ranking, i: int, query: Sequence[R], gallery: Sequence[R], read: Callable[[R], bytes]
) -> _Ranked:
    record = query[i]
    places = [
        _place(gallery[g], rank, right=bool(right), read=read)
        for rank, (g, right) in enumerate(zip(ranking.top[i], ranking.right[i], strict=True), 1)
        if g >= 0
    ]
    return _Ranked(
        name=record.name,
        image=_thumbnail(record, read, alt=f"query {record.name}"),
        person=f"person {record.pid}",
        camera=_camera(record),
        precision=f"{100 * ranking.average_precision[i]:.1f}",
        first_rank=int(ranking.first_rank[i]),
        places=places,
    )


def _place(record: R, rank: int, *, right: bool, read: Callable[[R], bytes]) -> _Place:
    verdict = "right" if right else "wrong"
    alt = f"rank {rank}, {verdict}: {record.name}"
    return _Place(_thumbnail(record, read, alt=alt), right, _camera(record))


def _camera(record: Labelled) -> str:
    return "" if record.camid is None else f"cam {record.camid}"


def _thumbnail(record: R, read: Callable[[R], bytes], *, alt: str) -> Markup:
    image = pixels.decode(read(record), name=record.name)
    return page.image_tag(pixels.resize(image, THUMBNAIL), alt=alt)
