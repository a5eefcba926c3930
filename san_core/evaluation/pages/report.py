"""What an evaluation hands on: its figures as a plain dict, and a page to look at.

The dict (report.json) is for programs: fractions, never per cent, and nothing that tells when or
where it was made. The page (HTML) is for people: the figures beside those of references, those of
other protocols, the CMC and ROC curves, a table by pair of cameras, and the worst, median and best
queries with what was ranked first for each.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from san_core.data.records import LabelledImage, camera_name, count_splits
from san_core.data.trained_on import seen_in_words
from san_core.evaluation.pages import curves
from san_core.evaluation.pages.camera_pairs import CameraPair
from san_core.evaluation.pages.query_heights import HeightThird
from san_core.evaluation.pages.ranked_gallery import ranked_galleries
from san_core.evaluation.protocol import PROTOCOLS
from san_core.evaluation.protocols.scoring import (
    DRAWS,
    MULTI_QUERY,
    SAMPLED_SHOT,
    SINGLE_SHOT,
    ProtocolScores,
)
from san_core.evaluation.ranking import Ranking
from san_core.evaluation.roc import USUAL_FPR, Roc
from san_core.pages import page
from san_core.pages.page import Section

FORMAT = "san-evaluation"
VERSION = 1
MODEL = "this model"
RANKED_SHOWN = 10  # gallery images beside a query

_SCORES = {"rank1": "Rank-1", "mAP": "mAP", "rank5": "Rank-5", "rank10": "Rank-10", "mINP": "mINP"}
# Where the figures are those of the drawn gallery, so is the mAP.
_HEADLINE_MAP_OF_SHOT = "mAP_of_draw"
_MAPS_OF_SHOT = {"mAP of the draw": "mAP_of_draw", "mAP of the gallery": "mAP_of_gallery"}
_DISTANCES = {
    "euclidean": "squared Euclidean distance",
    "cosine": "cosine distance",
    "given": "the distance that was given",
}

_OWN_CAMERA = "Gallery images of the same person taken by the query's own camera are left out"
_LEFT_OUT = {  # without junk, with junk
    "market1501": (f"{_OWN_CAMERA}.", f"{_OWN_CAMERA}, and so is junk."),
    "sysu-mm01": (
        f"{_OWN_CAMERA}, and all images by the other camera of the query's room.",
        f"{_OWN_CAMERA}, and so are junk and all images by the other camera of the query's room.",
    ),
    "camera-free": (
        "Cameras are not looked at, so no gallery image is left out for its camera.",
        "Cameras are not looked at, so no gallery image is left out for its camera, only junk is.",
    ),
}

_BY_CAMERA = (
    "; by sysu-mm01, of one image per person and camera, where people rank by the nearest of theirs"
)

_ROC_LEAD = (
    "All pairs of a query that has a right answer and a gallery image that the protocol leaves: "
    "the share of right ones within a distance, against the share of wrong ones within it."
)
_HEIGHTS_LEAD = "The same queries in thirds, by how many rows of pixels their images have."
_PAIRS_LEAD = (
    "mAP, and rank-1 under it, in per cent: queries by the camera of the row, in the gallery "
    "images by the camera of the column alone."
)
_MOST_PAIRS_SHOWN = 100
_RANKED_LEAD = (
    "The query is on the left and the nearest gallery images follow; "
    "images the protocol leaves out are not shown."
)

R = TypeVar("R", bound=LabelledImage)


def report_content(
    ranking: Ranking,
    references: Mapping[str, Ranking] | None = None,
    *,
    query: Sequence[LabelledImage],
    gallery: Sequence[LabelledImage],
    metric: str,
    headline: Mapping[str, ProtocolScores] | None = None,
    scored: Sequence[ProtocolScores] = (),
    pairs: Sequence[CameraPair] = (),
    heights: Sequence[HeightThird] = (),
    provenance: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of report.json: the same for the same input, on any machine, at any time.

    The exceptions follow the rounding of float32, which is the processor's: the false positive
    rates of `roc` (see there), and the figures of a gallery shot and re-ranked ones, which may
    differ in the sixth digit where distances are nearly tied.

    Args:
        ranking: the trained model's, of the whole gallery image by image.
        references: rankings of the same queries and gallery by something else, by name, such as
            "untrained encoder" or "colour histogram".
        query: the queries' records, in the order they were ranked.
        gallery: the gallery's records, in the order they were ranked.
        metric: the distance the model was ranked by, "euclidean" or "cosine", or "given".
        headline: the figures of the protocol asked for first, by name as `references` and
            `MODEL`, where they are not those of the rankings: of a gallery shot or multi-query.
        scored: the model under further protocols, or re-ranked.
        pairs: the model by pair of cameras; of more than 100 the worst by mAP are kept.
        heights: the model by thirds of the queries' heights.
        provenance: where the features come from, as JSON; kept as it is.
        warnings: what people should know before they believe the figures; kept as it is.

    Returns:
        `protocol`, the one that was asked for first, and `leaves_out_as`, the one whose rule for
        the gallery it follows; its `rank1`, `rank5`, `rank10`, `mAP`, `mINP` as fractions of the
        judged queries (of a gallery shot no mINP, and `mAP` is `mAP_of_draw`), the same for
        each of `references`, `cmc` as a list from rank 1 on, and the counts: `num_query` and
        `num_gallery` (all), `num_skipped` (queries with no right answer left), `num_identities`
        (people among the queries), `num_cameras`, `num_distractors`, `num_junk` (in the gallery).
        `cameras` has the names of the cameras that have one, by number. `protocols` has the scores
        and counts of `scored`, with `leaves_out_as`; `camera_pairs` has the figures of `pairs` and
        `num_camera_pairs` the number of all, `query_heights` those of `heights`; `roc`, if the
        ranking has one, the true positive rates at the usual false positive rates.

    Raises:
        ValueError: a ranking is not one of these records, a reference has the model's name, or
            the metric is unknown.
    """
    references, headline = references or {}, headline or {}
    if MODEL in references:
        raise ValueError(f"a reference may not be called '{MODEL}'")
    for name, each in {MODEL: ranking, **references}.items():
        _check_ranking(name, each, query, gallery)
    if metric not in _DISTANCES:
        raise ValueError(f"no metric '{metric}'; there are {', '.join(_DISTANCES)}")
    asked, searched = count_splits(query), count_splits(gallery)
    cameras = {r.camid for r in (*query, *gallery) if r.camid is not None}
    first = headline.get(MODEL) or _plain_scores(ranking)
    return {
        "format": FORMAT,
        "version": VERSION,
        "protocol": first.protocol,
        "leaves_out_as": ranking.protocol,
        "metric": metric,
        **_headline_scores(first),
        "cmc": first.cmc.tolist(),
        "num_query": first.ranking.num_query,
        "num_gallery": first.ranking.num_gallery,
        "num_skipped": first.ranking.num_skipped,
        "num_identities": sum(subset.ids for subset in asked.values()),
        "num_cameras": len(cameras),
        "num_distractors": sum(subset.distractors for subset in searched.values()),
        "num_junk": sum(subset.junk for subset in searched.values()),
        "references": {
            name: _headline_scores(headline.get(name) or _plain_scores(each))
            for name, each in references.items()
        },
        "protocols": [_protocol_figures(each) for each in scored],
        "roc": _roc_rates(ranking.roc) if ranking.roc else None,
        "camera_pairs": [pair._asdict() for pair in _worst_pairs(pairs)],
        "num_camera_pairs": len(pairs),
        "query_heights": [third._asdict() for third in heights],
        "cameras": _camera_names([*query, *gallery]),
        "provenance": dict(provenance or {}),
        "warnings": list(warnings),
    }


def _camera_names(records: Iterable[LabelledImage]) -> dict[str, str]:
    """How the data set calls its cameras, by their numbers, where it gives names to them."""
    named = {r.camid: camera_name(r) for r in records if r.camid is not None}
    return {str(n): name for n, name in sorted(named.items()) if name != str(n)}


def _plain_scores(ranking: Ranking) -> ProtocolScores:
    """The figures of a ranking of the whole gallery, image by image."""
    return ProtocolScores(ranking.protocol, False, ranking.scores(), ranking.cmc, ranking)


def _headline_scores(scored: ProtocolScores) -> dict[str, float]:
    """The scores of a protocol, `mAP` among them whatever it is of."""
    if "mAP" in scored.scores:
        return scored.scores
    return {**scored.scores, "mAP": scored.scores[_HEADLINE_MAP_OF_SHOT]}


def _worst_pairs(pairs: Sequence[CameraPair]) -> list[CameraPair]:
    """The pairs in their order, without the best ones where they are many."""
    worst = sorted(pairs, key=lambda pair: (pair.mAP, pair))[:_MOST_PAIRS_SHOWN]
    return sorted(worst)


def _protocol_figures(scored: ProtocolScores) -> dict[str, Any]:
    ranking = scored.ranking
    return {
        "protocol": scored.protocol,
        "leaves_out_as": ranking.protocol,
        "reranked": scored.reranked,
        **scored.scores,
        "num_query": ranking.num_query,
        "num_gallery": ranking.num_gallery,
        "num_skipped": ranking.num_skipped,
    }


def _roc_rates(roc: Roc) -> dict[str, Any]:
    return {
        "tpr_at_fpr": {f"{fpr:g}": roc.tpr_at(fpr) for fpr in USUAL_FPR},
        "num_right": roc.num_right,
        "num_wrong": roc.num_wrong,
    }


def _check_ranking(
    name: str, ranking: Ranking, query: Sequence[LabelledImage], gallery: Sequence[LabelledImage]
) -> None:
    if (ranking.num_query, ranking.num_gallery) != (len(query), len(gallery)):
        raise ValueError(
            f"the ranking of {name} is one of {ranking.num_query} queries and "
            f"{ranking.num_gallery} gallery images, but there are {len(query)} and {len(gallery)}"
        )


def join_contents(contents: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The content of report.json where several data sets were tested on: the first is the headline.

    Args:
        contents: what `report_content` returned for each, by name; a single one has the name "".

    Returns:
        The content of the first, with `target`, its name, and `further_targets`, the contents of
        the others by name; a single one is left as it is.
    """
    (name, first), *others = contents.items()
    if not others:
        return first
    return {**first, "target": name, "further_targets": dict(others)}


def report_page(
    report: Mapping[str, Any],
    sections: Mapping[str, Sequence[Section]],
    *,
    top_k: int = RANKED_SHOWN,
) -> str:
    """The page of an evaluation: one HTML document with everything in it.

    Args:
        report: what `join_contents` returned.
        sections: what `report_sections` returned for each data set, by name; the headline's first.
        top_k: how many images of ranked galleries are shown beside a query.
    """
    shown = [
        section._replace(heading=f"{name}: {section.heading}" if number else section.heading)
        for number, (name, each) in enumerate(sections.items())
        for section in each
    ]
    if "further_targets" in report:
        shown.insert(0, _targets_section(report))
    return page.render_template(
        "evaluation/pages/report.html.jinja",
        title="Person re-identification",
        subtitle=_subtitle(report),
        sections=shown,
        top_k=top_k,
    )


def _targets_section(report: Mapping[str, Any]) -> Section:
    """The figures of every data set that was tested on, the headline's first."""
    rows = [
        [
            page.with_note(name, each["protocol"]),
            *(f"{100 * each[key]:.1f}" if key in each else "–" for key in _SCORES),
            f"{each['num_query']:,}",
            f"{each['num_gallery']:,}",
        ]
        for name, each in {report["target"]: report, **report["further_targets"]}.items()
    ]
    header = ["", *_SCORES.values(), "Queries", "Gallery"]
    lead = (
        f"Each by itself, with people and cameras of its own; below, {report['target']} is first."
    )
    return Section("Data sets", page.table(header, rows, caption="Per cent.", strong=0), lead)


def report_sections(
    report: Mapping[str, Any],
    ranking: Ranking,
    references: Mapping[str, Ranking] | None = None,
    *,
    query: Sequence[R],
    gallery: Sequence[R],
    read: Callable[[R], bytes],
    headline: Mapping[str, ProtocolScores] | None = None,
) -> list[Section]:
    """What the page says of one data set that was tested on.

    Args:
        report: what `report_content` returned for the same rankings and records.
        ranking: the trained model's.
        references: as in `report_content`.
        query: as in `report_content`.
        gallery: as in `report_content`.
        read: the bytes of a record's image file, such as `ImageSet.read`.
        headline: as in `report_content`.
    """
    rankings = {MODEL: ranking, **(references or {})}
    cmcs = {name: each.cmc for name, each in rankings.items()}
    cmcs |= {name: each.cmc for name, each in (headline or {}).items()}
    sections = [
        Section("Warnings", page.bullet_list(report["warnings"])),
        Section("Figures", _scores_table(report), protocol_in_words(report)),
        Section("Other protocols", _protocols_table(report), _protocols_in_words(report)),
        _cmc_section(cmcs),
        _roc_section(rankings),
        _heights_section(report),
        _camera_pairs_section(report),
        Section("Ranked galleries", ranked_galleries(ranking, query, gallery, read), _RANKED_LEAD),
        Section("Data", _counts_table(report)),
        Section("Provenance", _provenance_table(report["provenance"])),
    ]
    return [section for section in sections if section.body]


def protocol_in_words(report: Mapping[str, Any]) -> str:
    """A paragraph saying how the figures came about, from what `report_content` returned."""
    junk = report["num_junk"]
    left_out = _LEFT_OUT[report["leaves_out_as"]][bool(junk)]
    parts = [
        f"The figures are those of {report['protocol']}.",
        *_kinds_in_words([report]),
        f"Each query is compared with every gallery image by {_DISTANCES[report['metric']]}.",
        left_out,
        "Tied distances rank in gallery order.",
    ]
    if report["num_distractors"]:
        parts.insert(-1, "Distractors stay in as wrong answers.")
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


def _scores_table(report: Mapping[str, Any]) -> Markup:
    scored = {MODEL: report, **report["references"]}
    seen = report["provenance"].get("seen_in_training")
    notes = {MODEL: seen_in_words(seen) if seen else ""}
    rows = [
        [
            page.with_note(name, notes.get(name, "")),
            *(f"{100 * figures[key]:.1f}" if key in figures else "–" for key in _SCORES),
        ]
        for name, figures in scored.items()
    ]
    return page.table(["", *_SCORES.values()], rows, caption="Per cent.", strong=0)


def _protocols_in_words(report: Mapping[str, Any]) -> str:
    """What the rows of the table of other protocols are."""
    parts = ["The same features under other rules.", *_kinds_in_words(report["protocols"])]
    if any(each["reranked"] for each in report["protocols"]):
        parts.append("Re-ranked: by distances mixed with those of k-reciprocal neighbours.")
    return " ".join(parts)


def _kinds_in_words(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the protocols are that do not simply rank the gallery for each query."""
    parts = []
    words = {each["protocol"].partition(":")[0] for each in protocols}
    if MULTI_QUERY in words:
        parts.append("Multi-query asks by the mean of a person's images by one camera.")
    if SINGLE_SHOT in words:
        parts.append(
            "A single gallery shot is the expectation over all draws of one image per person."
        )
    if SAMPLED_SHOT in words:
        parts.append(
            f"A sampled gallery shot is the mean over {DRAWS} draws from a fixed seed, of one "
            "image per person" + (_BY_CAMERA if _draws_by_camera(protocols) else "") + "."
        )
    if words & {SINGLE_SHOT, SAMPLED_SHOT}:
        parts.append(
            "Its mAP is that of the drawn gallery or, as some papers have it, of the whole."
        )
    return parts


def _draws_by_camera(protocols: Sequence[Mapping[str, Any]]) -> bool:
    return any(
        each["protocol"].startswith(SAMPLED_SHOT)
        and PROTOCOLS[each["leaves_out_as"]].shot_by_camera
        for each in protocols
    )


def _protocols_table(report: Mapping[str, Any]) -> Markup:
    """The table of other protocols; empty without any."""
    rows = []
    for each in report["protocols"]:
        name = each["protocol"] + (", re-ranked" if each["reranked"] else "")
        for which, key in ({"": "mAP"} if "mAP" in each else _MAPS_OF_SHOT).items():
            figures = {**each, "mAP": each[key]}
            cells = [f"{100 * figures[k]:.1f}" if k in figures else "–" for k in _SCORES]
            judged = each["num_query"] - each["num_skipped"]
            notes = filter(None, (which, _leaves_out_in_words(each)))
            rows.append([page.with_note(name, "; ".join(notes)), *cells, f"{judged:,}"])
    if not rows:
        return Markup()
    header = ["", *_SCORES.values(), "Queries"]
    return page.table(header, rows, caption="Per cent.")


def _leaves_out_in_words(scored: Mapping[str, Any]) -> str:
    """Whose rule for the gallery a protocol follows, where its own name does not say so."""
    rule = scored["leaves_out_as"]
    is_told = rule in scored["protocol"].split(":")
    return "" if is_told else f"leaves out as {rule}"


def _cmc_section(cmcs: Mapping[str, NDArray[np.float64]]) -> Section:
    firsts = "; ".join(f"{name}: {cmc[0]:.1%} at rank 1" for name, cmc in cmcs.items())
    return Section(
        "Cumulative matching characteristic",
        page.figure_tag(curves.cmc_figure(cmcs), alt=f"CMC curves. {firsts}"),
        "The share of queries with a right answer by each rank.",
    )


def _roc_section(rankings: Mapping[str, Ranking]) -> Section:
    """Curves and rates; without a body if no ranking has a curve."""
    rocs = {name: each.roc for name, each in rankings.items() if each.roc}
    if not rocs:
        return Section("", Markup())
    rates = "; ".join(f"{name}: TPR {each.tpr_at(1e-3):.1%}" for name, each in rocs.items())
    rows = [[name, *(f"{100 * r.tpr_at(f):.1f}" for f in USUAL_FPR)] for name, r in rocs.items()]
    header = ["", *(f"TPR at {fpr:g}" for fpr in USUAL_FPR)]
    figure = page.figure_tag(
        curves.roc_figure(rocs), alt=f"ROC curves. At a false positive rate of 0.001, {rates}"
    )
    table = page.table(header, rows, caption="Per cent, at false positive rates.", strong=0)
    return Section("Receiver operating characteristic", figure + table, _ROC_LEAD)


def _heights_section(report: Mapping[str, Any]) -> Section:
    """Scores by the height of queries; without a body where all are as high."""
    rows = [
        (
            f"{third['lowest']}–{third['highest']}",
            *(f"{100 * third[key]:.1f}" for key in ("rank1", "mAP")),
            f"{third['num_query']:,}",
        )
        for third in report["query_heights"]
    ]
    if not rows:
        return Section("", Markup())
    table = page.table(["Rows", "Rank-1", "mAP", "Queries"], rows, caption="Per cent.")
    return Section("Heights of queries", table, _HEIGHTS_LEAD)


def _camera_pairs_section(report: Mapping[str, Any]) -> Section:
    """A table of all pairs, or a list of the worst; without a body if there are none."""
    shown, number = report["camera_pairs"], report["num_camera_pairs"]
    if not shown:
        return Section("", Markup())
    cameras = {pair[role] for pair in shown for role in ("query_camera", "gallery_camera")}
    called = {n: report["cameras"].get(str(n), f"cam {n}") for n in cameras}
    if len(shown) == number:
        return Section("Pairs of cameras", _camera_pairs_table(shown, called), _PAIRS_LEAD)
    worst = sorted(shown, key=lambda pair: (pair["mAP"], *pair.values()))
    rows = [
        (
            f"{called[pair['query_camera']]} in {called[pair['gallery_camera']]}",
            *(f"{100 * pair[key]:.1f}" for key in ("rank1", "mAP")),
            f"{pair['num_query']:,}",
        )
        for pair in worst
    ]
    return Section(
        "Pairs of cameras",
        page.table(["", "Rank-1", "mAP", "Queries"], rows, caption="Per cent."),
        f"The {len(shown)} worst of {number:,} pairs, by mAP: queries by one camera, in the "
        "gallery images by the other alone.",
    )


def _camera_pairs_table(shown: Sequence[Mapping[str, Any]], called: Mapping[int, str]) -> Markup:
    pairs = {(p["query_camera"], p["gallery_camera"]): p for p in shown}
    columns = sorted({gallery for _, gallery in pairs})
    rows = [
        [called[asking], *(_pair_cell(pairs.get((asking, camera))) for camera in columns)]
        for asking in sorted({query for query, _ in pairs})
    ]
    return page.table(["", *(called[camera] for camera in columns)], rows)


def _pair_cell(pair: Mapping[str, Any] | None) -> str:
    if pair is None:
        return "–"
    return page.with_note(f"{100 * pair['mAP']:.1f}", f"{100 * pair['rank1']:.1f}")


def _counts_table(report: Mapping[str, Any]) -> Markup:
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


def _provenance_table(provenance: Mapping[str, Any]) -> Markup:
    """The table of what the features come from; empty if nothing is known."""
    if not provenance:
        return Markup()
    rows = [
        (key, value if isinstance(value, str) else json.dumps(value, sort_keys=True))
        for key, value in provenance.items()
    ]
    return page.table(["", "Value"], rows, text=True)
