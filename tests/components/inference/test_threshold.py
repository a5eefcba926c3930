"""Thresholds out of reports that are whole, edited or damaged."""

import json
from types import SimpleNamespace

import pytest

from components.inference.threshold import find_threshold

NETWORK = SimpleNamespace(weights_sha256="m", recipe=SimpleNamespace(metric="cosine"))
ROC = {
    "num_wrong": 10**6,
    "tpr_at_fpr": {"0.001": 0.5, "0.01": 0.75, "0.1": 1},
    "threshold_at_fpr": {"0.001": 0.125, "0.01": 0.25, "0.1": 0.5},
}


@pytest.fixture
def threshold_by(tmp_path):
    """The threshold by a report with some ROC curve, near the model or named."""

    def find(roc, *, named):
        folder = tmp_path / "evaluate" / "report"
        folder.mkdir(parents=True)
        content = {"metric": "cosine", "provenance": {"model": "m"}, "roc": roc}
        (folder / "report.json").write_text(json.dumps(content))
        report = str(folder) if named else ""
        return find_threshold(NETWORK, tmp_path / "train_san" / "model", report, mirrored=False)

    return find


@pytest.mark.parametrize("named", [True, False])
def test_the_smallest_rate_of_a_report_counts(threshold_by, named):
    roc = ROC | {"threshold_at_fpr": {"0.01": 0.25, "0.1": None}}  # without that of 0.1 %
    found = threshold_by(roc, named=named)
    assert found is not None
    assert found[:3] == (0.25, 0.01, 0.75)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_wrong": "many"}, r"roc\.num_wrong is 'many'; it must be a whole number"),
        ({"tpr_at_fpr": None}, r"roc\.tpr_at_fpr is None; it must be an object"),
        ({"threshold_at_fpr": {"0.001": "x"}}, r"roc\.threshold_at_fpr\.0\.001 is 'x'"),
    ],
)
def test_a_damaged_report_is_refused_where_it_is_named_alone(
    threshold_by, tmp_path, caplog, changed, message
):
    assert threshold_by(ROC | changed, named=False) is None
    assert f"a report near the model is ignored: {tmp_path}" in caplog.text
    with pytest.raises(ValueError, match=message):
        find_threshold(NETWORK, tmp_path, str(tmp_path / "evaluate" / "report"), mirrored=False)
