"""The words of a report: how figures were computed, and what each of them means."""

from collections.abc import Mapping, Sequence
from typing import Any

from san_core.evaluation.protocol import PROTOCOLS
from san_core.evaluation.protocols.scoring import DRAWS, MULTI_QUERY, SAMPLED_SHOT, SINGLE_SHOT

DISTANCES = {
    "euclidean": "squared Euclidean distance",
    "cosine": "cosine distance",
    "given": "the given distance",
}
_OWN_CAMERA = "Gallery images of the same person taken by the query's own camera are left out"
_LEFT_OUT = {  # without junk, with junk
    "market1501": (f"{_OWN_CAMERA}.", f"{_OWN_CAMERA}, and so is junk."),
    "sysu-mm01": (
        f"{_OWN_CAMERA}, and all images by the other camera of the query's room.",
        f"{_OWN_CAMERA}, and so are junk and all images by the other camera of the query's room.",
    ),
    "camera-free": (
        "Cameras are ignored: no gallery image is left out for its camera.",
        "Cameras are ignored: no gallery image is left out for its camera, only junk is.",
    ),
}

_BY_CAMERA = (
    "; for sysu-mm01 of one image per person and camera, and a person ranks by the nearest image"
)

# What each figure means, in a line, by its names on the page.
MEANINGS = {
    "Rank-1, 5, 10": "the share of queries with a correct match among the nearest 1, 5 or 10 "
    "gallery images",
    "mAP": "mean average precision: for each query, the mean of the precision at the rank of each "
    "correct match; then the mean over queries. 100 if no wrong image ranks above a correct match",
    "mINP": "mean inverse negative penalty: for each query, the number of correct matches over the "
    "rank of the last one; then the mean over queries",
}


def protocol_in_words(report: Mapping[str, Any]) -> str:
    """A paragraph on how the figures were computed, from the result of `report_content`."""
    junk = report["num_junk"]
    left_out = _LEFT_OUT[report["leaves_out_as"]][bool(junk)]
    parts = [
        f"The protocol is {report['protocol']}.",
        *_kinds_in_words([report]),
        f"Each query is compared with every gallery image by {DISTANCES[report['metric']]}.",
        left_out,
        "Tied distances rank in gallery order.",
    ]
    if report["num_distractors"]:
        parts.insert(-1, "Distractors stay in the gallery and are always wrong.")
    if report["num_skipped"]:
        parts.append(
            f"Of {report['num_query']:,} queries {report['num_skipped']:,} have no correct match "
            "left and are not scored."
        )
    return " ".join(parts)


def protocols_in_words(report: Mapping[str, Any]) -> str:
    """A paragraph that explains the table of other protocols."""
    parts = ["The same features under other protocols.", *_kinds_in_words(report["protocols"])]
    if any(each["reranked"] for each in report["protocols"]):
        parts.append(
            "Re-ranked: the distance is combined with the Jaccard distance of k-reciprocal "
            "neighbours (Zhong et al. 2017)."
        )
    return " ".join(parts)


def _kinds_in_words(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences that explain the protocols that do not simply rank the gallery for each query."""
    parts = []
    words = {each["protocol"].partition(":")[0] for each in protocols}
    if MULTI_QUERY in words:
        parts.append(
            "Multi-query: the query is the mean feature of a person's images by one camera."
        )
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
            "Its mAP is over the drawn gallery (mAP of the draw) or, as in some papers, over the "
            "whole gallery (mAP of the gallery)."
        )
    return parts


def _draws_by_camera(protocols: Sequence[Mapping[str, Any]]) -> bool:
    return any(
        each["protocol"].startswith(SAMPLED_SHOT)
        and PROTOCOLS[each["leaves_out_as"]].shot_by_camera
        for each in protocols
    )


def leaves_out_in_words(scored: Mapping[str, Any]) -> str:
    """The protocol whose gallery rule is used, if the name does not say it."""
    rule = scored["leaves_out_as"]
    is_told = rule in scored["protocol"].split(":")
    return "" if is_told else f"leaves out the same gallery images as {rule}"
