"""Score embeddings: CMC, mAP and a report."""

import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from components.outputs import finished, write_file, write_metrics
from components.step import Input, Output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from san_core.evaluation.ranking import Ranking
    from san_core.imageset import ImageSet
    from san_core.shard import Record

log = logging.getLogger(__name__)

SHOWN = ("rank1", "rank5", "rank10", "mAP", "mINP")


def evaluate(
    features: Annotated[Path, Input("Dataset")],
    dataset: Annotated[Path, Input("Dataset")],
    report: Annotated[Path, Output("Dataset")],
    html: Annotated[Path, Output("HTML")],
    metrics: Annotated[Path, Output("Metrics")],
    references: bool = False,
) -> None:
    """Score query embeddings against the gallery (CMC, mAP, mINP) and write a report.

    Args:
        features: embeddings of the query and gallery images, made by extract_features
        dataset: the person images, for the pictures in the report
        report: report.json: protocol, counts and every score, as fractions
        html: page with scores, the CMC curve and ranked pictures
        metrics: rank-1, rank-5, rank-10, mAP and mINP, as fractions, and the mAP of the references
        references: whether to score an untrained encoder and a colour histogram beside the model
    """
    from components.staging import identity, open_set
    from san_core.evaluation import report as reports
    from san_core.evaluation.ranking import labels_of, rank

    provenance = _provenance(features)
    metric = provenance.pop("metric")
    if provenance["dataset"] != identity(dataset):
        raise ValueError(f"{features} holds the features of another data set than {dataset}")
    with open_set(dataset) as images:
        records = _records(features, images)
        asked, query = _part(records, "query")
        searched, gallery = _part(records, "gallery")

        def ranked(rows: "NDArray[np.float32]", *, metric: str) -> "Ranking":
            return rank(
                rows[asked],
                rows[searched],
                query=labels_of(query),
                gallery=labels_of(gallery),
                metric=metric,
            )

        ranking = ranked(_load(features / "features.npy", len(records)), metric=metric)
        others = {}
        if references:
            untrained = _load(features / "untrained.npy", len(records))
            others["untrained encoder"] = ranked(untrained, metric=metric)
            others["colour histogram"] = ranked(_histograms(images, records), metric="euclidean")
        content = reports.figures(
            ranking,
            others,
            query=query,
            gallery=gallery,
            metric=metric,
            provenance=provenance,
        )
        document = reports.html(
            content, ranking, others, query=query, gallery=gallery, read=images.read
        )
    with finished(report) as folder:
        write_file(folder / "report.json", json.dumps(content, indent=2) + "\n")
    write_file(html, document)
    references_scored = {
        f"mAP_of_{name.replace(' ', '_')}": scores["mAP"]
        for name, scores in content["references"].items()
    }
    write_metrics(metrics, {**{name: content[name] for name in SHOWN}, **references_scored})
    for name, scores in {"this model": content, **content["references"]}.items():
        log.info("%s: %s", name, "  ".join(f"{key} {scores[key]:.1%}" for key in SHOWN))


def _part(records: "Sequence[Record]", split: str) -> "tuple[list[int], list[Record]]":
    """The rows of a split, and their records."""
    rows = [row for row, record in enumerate(records) if record.split == split]
    return rows, [records[row] for row in rows]


def _histograms(images: "ImageSet", records: "Sequence[Record]") -> "NDArray[np.float32]":
    """The reference that learns nothing: colours, stripe by stripe."""
    from san_core.evaluation.histogram import features
    from san_core.pixels import decode

    return features(decode(images.read(record), name=record.name) for record in records)


def _provenance(features: Path) -> dict[str, Any]:
    """What features.json says the features were made from."""
    file = features / "features.json"
    if not file.is_file():
        raise FileNotFoundError(f"{features} holds no features: features.json is missing")
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: it is not a JSON object")
    if missing := {"dataset", "metric"} - content.keys():
        raise ValueError(f"{file} is damaged: it has no {min(missing)}")
    return content


def _records(features: Path, images: "ImageSet") -> "list[Record]":
    """The image of every row, by index.csv."""
    known = {record.name: record for record in images.records}
    try:
        lines = (features / "index.csv").read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{features}/index.csv is damaged: {error}") from error
    names = [row.get("name") or "" for row in csv.DictReader(lines)]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{features}/index.csv names {unknown[0]}, which is not in the data set")
    return [known[name] for name in names]


def _load(file: Path, rows: int) -> "NDArray[np.float32]":
    """A matrix of features, one row an image.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is not float32, or has another number of rows.
    """
    import numpy as np

    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; extract_features makes it")
    try:
        matrix = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if matrix.dtype != np.float32 or matrix.ndim != 2 or len(matrix) != rows:
        raise ValueError(
            f"{file} is {matrix.dtype} {matrix.shape}; expected float32 with {rows} rows"
        )
    loaded: NDArray[np.float32] = matrix
    return loaded
