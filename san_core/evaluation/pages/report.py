"""The figures of an evaluation as a plain dict, report.json, which is for programs.

It has fractions, never per cent, and no time or place. `report_page` makes a page from it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from san_core.data.records import LabelledImage, camera_name, count_splits
from san_core.evaluation.pages.camera_pairs import CameraPair
from san_core.evaluation.pages.query_heights import HeightThird
from san_core.evaluation.pages.wording import DISTANCES
from san_core.evaluation.protocols.scoring import ProtocolScores
from san_core.evaluation.ranking import Ranking
from san_core.evaluation.roc import USUAL_FPR, Roc

FORMAT = "san-evaluation"
VERSION = 1
MODEL = "this model"
# With figures of the drawn gallery goes the mAP of the drawn gallery.
_HEADLINE_MAP_OF_SHOT = "mAP_of_draw"
_MOST_PAIRS_SHOWN = 100


def report_content(
    ranking: Ranking,
    references: Mapping[str, Ranking] | None = None,
    *,
    query: Sequence[LabelledImage],
    gallery: Sequence[LabelledImage],
    metric: str,
    data_set: str = "",
    headline: Mapping[str, ProtocolScores] | None = None,
    scored: Sequence[ProtocolScores] = (),
    pairs: Sequence[CameraPair] = (),
    heights: Sequence[HeightThird] = (),
    provenance: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of report.json: the same for the same input, on any machine, at any time.

    The exceptions depend on the processor's float32 rounding: the false positive rates of `roc`
    (see there), and the figures of a gallery shot and of re-ranking, which may differ in the sixth
    digit if distances are nearly tied.

    Args:
        ranking: of the trained model, over the whole gallery image by image.
        references: rankings of the same queries and gallery by other features, by name, such as
            "untrained encoder" or "colour histogram".
        query: the queries' records, in the order they were ranked.
        gallery: the gallery's records, in the order they were ranked.
        metric: the distance the model was ranked by, "euclidean" or "cosine", or "given".
        data_set: the name of what was scored; empty where it has none.
        headline: the figures of the first protocol, by the names of `references` and `MODEL`, if
            they are not those of the rankings (for a gallery shot or multi-query).
        scored: the model's scores under further protocols, or re-ranked.
        pairs: the model's scores by pair of cameras; of more than 100 the worst by mAP are kept.
        heights: the model's scores by thirds of the queries' heights.
        provenance: the origin of the features, as JSON; stored unchanged.
        warnings: warnings about the figures; stored unchanged.

    Returns:
        `protocol`, the first protocol asked for, and `leaves_out_as`, the protocol whose rule for
        the gallery it uses; its `rank1`, `rank5`, `rank10`, `mAP`, `mINP` as fractions of the
        judged queries (of a gallery shot no mINP, and `mAP` is `mAP_of_draw`), the same for each of
        `references`, `cmc` as a list from rank 1 on, and the counts: `num_query` and `num_gallery`
        (all), `num_skipped` (queries with no right answer left), `num_identities` (people among the
        queries), `num_cameras`, `num_distractors`, `num_junk` (in the gallery). `cameras` has the
        names of the cameras that have one, by number. `protocols` has the scores and counts of
        `scored`, with `leaves_out_as`; `camera_pairs` has the figures of `pairs` and
        `num_camera_pairs` the number of all, `query_heights` those of `heights`; `roc`, if the
        ranking has one, the true positive rates at the usual false positive rates, and the distance
        thresholds of these.

    Raises:
        ValueError: a ranking does not match the records, a reference has the model's name, or the
            metric is unknown.
    """
    references, headline = references or {}, headline or {}
    if MODEL in references:
        raise ValueError(f"a reference may not be called '{MODEL}'")
    for name, each in {MODEL: ranking, **references}.items():
        _check_ranking(name, each, query, gallery)
    if metric not in DISTANCES:
        raise ValueError(f"no metric '{metric}'; there are {', '.join(DISTANCES)}")
    asked, searched = count_splits(query), count_splits(gallery)
    cameras = {r.camid for r in (*query, *gallery) if r.camid is not None}
    first = headline.get(MODEL) or _plain_scores(ranking)
    return {
        "format": FORMAT,
        "version": VERSION,
        "data_set": data_set,
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
    """The data set's names of cameras by their numbers, if it has names."""
    named = {r.camid: camera_name(r) for r in records if r.camid is not None}
    return {str(n): name for n, name in sorted(named.items()) if name != str(n)}


def _plain_scores(ranking: Ranking) -> ProtocolScores:
    """The figures of a ranking of the whole gallery, image by image."""
    return ProtocolScores(ranking.protocol, False, ranking.scores(), ranking.cmc, ranking)


def _headline_scores(scored: ProtocolScores) -> dict[str, float]:
    """The scores of a protocol, always with a key `mAP`."""
    if "mAP" in scored.scores:
        return scored.scores
    return {**scored.scores, "mAP": scored.scores[_HEADLINE_MAP_OF_SHOT]}


def _worst_pairs(pairs: Sequence[CameraPair]) -> list[CameraPair]:
    """The pairs in order, without the best ones if there are too many."""
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
        "threshold_at_fpr": {f"{fpr:g}": roc.threshold_at(fpr) for fpr in USUAL_FPR},
        "num_right": roc.num_right,
        "num_wrong": roc.num_wrong,
    }


def _check_ranking(
    name: str, ranking: Ranking, query: Sequence[LabelledImage], gallery: Sequence[LabelledImage]
) -> None:
    if (ranking.num_query, ranking.num_gallery) != (len(query), len(gallery)):
        raise ValueError(
            f"the ranking of {name} covers {ranking.num_query} queries and "
            f"{ranking.num_gallery} gallery images, but there are {len(query)} and {len(gallery)}"
        )


def join_contents(contents: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The content of report.json for several test sets; the first is the headline.

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
