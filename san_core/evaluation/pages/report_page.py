"""The page of an evaluation, for people: what was scored, the figures, and pictures first.

Then follow other protocols, the CMC and ROC curves, tables by the height of queries and by pairs of
cameras, and the provenance.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from san_core.data.records import LabelledImage
from san_core.data.trained_on import seen_in_words
from san_core.evaluation.pages import curves, wording
from san_core.evaluation.pages.ranked_gallery import RANKED_SHOWN, ranked_galleries
from san_core.evaluation.pages.report import MODEL
from san_core.evaluation.protocols.scoring import ProtocolScores
from san_core.evaluation.ranked_lists import RankedLists
from san_core.evaluation.ranking import Ranking
from san_core.evaluation.roc import USUAL_FPR
from san_core.pages import page
from san_core.pages.page import Section

_SCORES = {"rank1": "Rank-1", "mAP": "mAP", "rank5": "Rank-5", "rank10": "Rank-10", "mINP": "mINP"}
_MAPS_OF_SHOT = {"mAP of the draw": "mAP_of_draw", "mAP of the gallery": "mAP_of_gallery"}
_ROC_LEAD = (
    "Pairs of a query with a correct match and a gallery image that the protocol keeps. For every "
    "threshold of the distance: the share of same-person pairs within it (true positive rate) "
    "against the share of other pairs within it (false positive rate)."
)
_HEIGHTS_LEAD = "The same queries in thirds, by the height of their images."
_PAIRS_LEAD = (
    "mAP, and rank-1 under it, in per cent. Rows are cameras of queries. Columns are cameras of "
    "gallery images: only these are ranked."
)
_RANKED_LEAD = (
    "The query is on the left. The nearest gallery images follow, each with its distance. If none "
    "of them is a correct match, the first correct match follows them, with its rank. Images that "
    "the protocol leaves out are not shown."
)

R = TypeVar("R", bound=LabelledImage)


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
        top_k: the number of gallery images shown beside a query.
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
    """The scores of every test set, the headline's first."""
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
        "Each is scored by itself, with its own people and cameras. The sections below start "
        f"with {report['target']}."
    )
    return Section("Data sets", page.table(header, rows, caption="Per cent.", strong=0), lead)


def report_sections(
    report: Mapping[str, Any],
    lists: RankedLists,
    references: Mapping[str, Ranking] | None = None,
    *,
    query: Sequence[R],
    gallery: Sequence[R],
    read: Callable[[R], bytes],
    headline: Mapping[str, ProtocolScores] | None = None,
) -> list[Section]:
    """The sections of the page for one test set.

    Args:
        report: what `report_content` returned for the same rankings and records.
        lists: of the trained model, from the ranking of `report`.
        references: as in `report_content`.
        query: as in `report_content`.
        gallery: as in `report_content`.
        read: the bytes of a record's image file, such as `ImageSet.read`.
        headline: as in `report_content`.
    """
    rankings = {MODEL: lists.ranking, **(references or {})}
    cmcs = {name: each.cmc for name, each in rankings.items()}
    cmcs |= {name: each.cmc for name, each in (headline or {}).items()}
    sections = [
        Section("Warnings", page.bullet_list(report["warnings"])),
        Section("What was scored", _scored_table(report)),
        Section("Scores", _figures(report), wording.protocol_in_words(report)),
        Section("Ranked lists", ranked_galleries(lists, query, gallery, read), _RANKED_LEAD),
        Section("Other protocols", _protocols_table(report), wording.protocols_in_words(report)),
        _cmc_section(cmcs),
        _roc_section(rankings),
        _heights_section(report),
        _camera_pairs_section(report),
        Section("Data", _counts_table(report)),
        Section("Provenance", _provenance_table(report["provenance"])),
    ]
    return [section for section in sections if section.body]


def _subtitle(report: Mapping[str, Any]) -> str:
    return f"{report['data_set']}: {_counts(report)}" if report["data_set"] else _counts(report)


def _counts(report: Mapping[str, Any]) -> str:
    return (
        f"{report['num_query']:,} queries of {report['num_identities']:,} people against "
        f"{report['num_gallery']:,} gallery images"
    )


def _scored_table(report: Mapping[str, Any]) -> Markup:
    """The data set, the model and its training; unknown rows are left out."""
    known = report["provenance"]
    seen, cameras = known.get("seen_in_training"), report["num_cameras"]
    rows = {
        "Data set": report["data_set"],
        "Images": _counts(report) + (f", by {cameras} cameras" if cameras > 1 else ""),
        "Recipe": " with ".join(filter(None, (known.get("recipe"), known.get("overrides")))),
        "Seed": "" if known.get("seed") is None else str(known["seed"]),
        "File": known.get("file", ""),
        "Flip test": "features are averaged with those of the mirrored images"
        if known.get("mirrored")
        else "",
        "Seen in training": ""
        if seen is None
        else seen_in_words(seen) or "none of these identities",
    }
    return page.table(["", ""], [row for row in rows.items() if row[1]], text=True)


def _figures(report: Mapping[str, Any]) -> Markup:
    meanings = (f"{name}: {meaning}." for name, meaning in wording.MEANINGS.items())
    return _scores_table(report) + page.bullet_list(meanings)


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


def _protocols_table(report: Mapping[str, Any]) -> Markup:
    """The table of other protocols; empty without any."""
    rows = []
    for each in report["protocols"]:
        name = each["protocol"] + (", re-ranked" if each["reranked"] else "")
        for which, key in ({"": "mAP"} if "mAP" in each else _MAPS_OF_SHOT).items():
            figures = {**each, "mAP": each[key]}
            cells = [f"{100 * figures[k]:.1f}" if k in figures else "–" for k in _SCORES]
            judged = each["num_query"] - each["num_skipped"]
            notes = filter(None, (which, wording.leaves_out_in_words(each)))
            rows.append([page.with_note(name, "; ".join(notes)), *cells, f"{judged:,}"])
    if not rows:
        return Markup()
    header = ["", *_SCORES.values(), "Queries"]
    return page.table(header, rows, caption="Per cent.")


def _cmc_section(cmcs: Mapping[str, NDArray[np.float64]]) -> Section:
    firsts = "; ".join(f"{name}: {cmc[0]:.1%} at rank 1" for name, cmc in cmcs.items())
    return Section(
        "Cumulative matching characteristic",
        page.figure_tag(curves.cmc_figure(cmcs), alt=f"CMC curves. {firsts}"),
        "The share of queries with a correct match among the first k gallery images, over k.",
    )


def _roc_section(rankings: Mapping[str, Ranking]) -> Section:
    """Curves and rates; empty if no ranking has a curve."""
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
    """Scores by the height of queries; empty if all have one height."""
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
    table = page.table(["Height in pixels", "Rank-1", "mAP", "Queries"], rows, caption="Per cent.")
    return Section("Heights of queries", table, _HEIGHTS_LEAD)


def _camera_pairs_section(report: Mapping[str, Any]) -> Section:
    """A table of all pairs, or a list of the worst; empty if there are none."""
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
        f"The {len(shown)} worst of {number:,} pairs, by mAP: queries of the first camera, ranked "
        "among gallery images of the second camera only.",
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
        "num_skipped": "– without a correct match, not scored",
        "num_identities": "Identities of the queries",
        "num_gallery": "Gallery images",
        "num_distractors": "– distractors, always wrong",
        "num_junk": "– junk, left out",
        "num_cameras": "Cameras",
    }
    rows = [(name, f"{report[key]:,}") for key, name in names.items() if report[key]]
    return page.table(["", "Number"], rows)


def _provenance_table(provenance: Mapping[str, Any]) -> Markup:
    """The table of the features' origin; empty if nothing is known."""
    if not provenance:
        return Markup()
    rows = [
        (key, value if isinstance(value, str) else json.dumps(value, sort_keys=True))
        for key, value in provenance.items()
    ]
    return page.table(["", "Value"], rows, text=True)
