"""A distance threshold for matches, from the evaluation of the model."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from components.storage.transfer import local_source
from san_core.checked_json import read_json_file
from san_core.inference.network import Network

log = logging.getLogger(__name__)

REPORT_FILE = "report.json"
# False positive rates; the smallest that the number of wrong pairs supports is used.
_RATES, _LEAST_PAIRS = (0.001, 0.01, 0.1), 10


class _Roc(TypedDict):
    """The ROC curve of a report; an older report has no thresholds."""

    num_wrong: int
    tpr_at_fpr: dict[str, float]
    threshold_at_fpr: NotRequired[dict[str, float | None]]


class _Report(TypedDict):
    """The fields of a report that are used here."""

    metric: NotRequired[str]
    provenance: NotRequired[dict[str, Any] | None]
    roc: NotRequired[_Roc | None]


class Threshold(NamedTuple):
    """A distance, the shares of wrong and of right pairs within it, and the source of these."""

    distance: float
    fpr: float
    tpr: float
    source: str

    def in_words(self) -> str:
        """Its meaning, in words."""
        return (
            f"{self.distance:.4f}: {self.fpr:.1%} of the pictures of other people were nearer, and"
            f" {self.tpr:.1%} of those of the same person, in {self.source}"
        )


def find_threshold(
    network: Network, model: Path, report: str, *, mirrored: bool
) -> Threshold | None:
    """The threshold from an evaluation of this model; None if no report is found.

    Args:
        network: the model.
        model: its place; reports beside it and of its run are tried.
        report: folder or URI of the report to use instead; empty for none.
        mirrored: whether features are averaged with those of the mirrored images.

    Raises:
        OSError: the given report does not exist.
        ValueError: it is damaged, of another model, or has no threshold.
    """
    if report:
        with local_source(report) as place:
            file = place / REPORT_FILE if place.is_dir() else place
            content = read_json_file(file, _Report)
        if why := _why_not(content, network, mirrored=mirrored):
            raise ValueError(f"--report {report} {why}")
        return _threshold_of(content, report)
    for file in _reports_near(model):
        try:
            content = read_json_file(file, _Report)
        except (OSError, ValueError) as error:  # nobody named it, so it may be of something else
            log.warning("a report near the model is ignored: %s", error)
            continue
        if not _why_not(content, network, mirrored=mirrored):
            return _threshold_of(content, str(file.parent))
    return None


def _reports_near(model: Path) -> Iterator[Path]:
    """Reports where evaluate writes them: beside a model, or in the run that trained it."""
    for folder in list(model.absolute().parents)[:3]:
        for place in (folder / "report", folder / "evaluate" / "report"):
            if (place / REPORT_FILE).is_file():
                yield place / REPORT_FILE


def _why_not(content: _Report, network: Network, *, mirrored: bool) -> str:
    """The reason why a report has no threshold for a model; empty if it has one."""
    made_of = content.get("provenance") or {}
    if made_of.get("model") != network.weights_sha256:
        return "is of another model"
    if content.get("metric") != network.recipe.metric:
        return (
            f"is of {content.get('metric')} distances, and the model's are {network.recipe.metric}"
        )
    if bool(made_of.get("mirrored")) != mirrored:
        return f"is of features with mirrored {str(not mirrored).lower()}"
    roc = content.get("roc")
    if roc is None or not roc.get("threshold_at_fpr"):
        return "has no threshold; run evaluate again"
    return ""


def _threshold_of(content: _Report, source: str) -> Threshold | None:
    roc = content.get("roc")
    assert roc is not None  # as `_why_not` has seen
    for rate in _RATES:
        distance = roc.get("threshold_at_fpr", {}).get(f"{rate:g}")
        tpr = roc["tpr_at_fpr"].get(f"{rate:g}")
        if distance is None or tpr is None:
            continue
        if rate * roc["num_wrong"] >= _LEAST_PAIRS:
            return Threshold(distance, rate, tpr, source)
    return None
