"""Which distance is near: taken from the evaluation of the model that is searched with."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from components.storage.transfer import local_source
from san_core.checked_json import read_json_file
from san_core.inference.network import Network

log = logging.getLogger(__name__)

REPORT_FILE = "report.json"
# The smallest of these false positive rates that so many wrong pairs support.
_RATES, _LEAST_PAIRS = (0.001, 0.01, 0.1), 10


class _Roc(TypedDict):
    """What a report says of its ROC curve; an older one tells no thresholds."""

    num_wrong: int
    tpr_at_fpr: dict[str, float]
    threshold_at_fpr: NotRequired[dict[str, float | None]]


class _Report(TypedDict):
    """What a report says of its distances, and much more."""

    metric: NotRequired[str]
    provenance: NotRequired[dict[str, Any] | None]
    roc: NotRequired[_Roc | None]


class Threshold(NamedTuple):
    """A distance, the shares of wrong and of right pairs within it, and where that was measured."""

    distance: float
    fpr: float
    tpr: float
    source: str

    def in_words(self) -> str:
        """What it means."""
        return (
            f"{self.distance:.4f}: {self.fpr:.1%} of the pictures of other people were nearer, and"
            f" {self.tpr:.1%} of those of the same person, in {self.source}"
        )


def find_threshold(
    network: Network, model: Path, report: str, *, mirrored: bool
) -> Threshold | None:
    """The threshold that an evaluation of this model supports; None where none is at hand.

    Args:
        network: the model.
        model: where it lies; reports beside it, and of the run it is of, are looked at.
        report: folder or URI of the report to take instead; empty for none.
        mirrored: whether features are averaged with those of the mirrored images.

    Raises:
        OSError: the report that is named is not there.
        ValueError: it is damaged, of another model, or tells no threshold.
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
        except (OSError, ValueError) as error:  # nobody named it, so it may be of anything
            log.warning("a report near the model is passed over: %s", error)
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
    """Why a report tells no threshold for a model; empty if it does."""
    made_of = content.get("provenance") or {}
    if made_of.get("model") != network.weights_sha256:
        return "is of another model"
    if content.get("metric") != network.recipe.metric:
        return (
            f"is of distances by {content.get('metric')}, the model's are {network.recipe.metric}"
        )
    if bool(made_of.get("mirrored")) != mirrored:
        return f"is of features with mirrored {str(not mirrored).lower()}"
    roc = content.get("roc")
    if roc is None or not roc.get("threshold_at_fpr"):
        return "tells no threshold; run evaluate again"
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
