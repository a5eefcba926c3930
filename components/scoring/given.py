"""The input of scoring: features of extract_features, other features, or given distances."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.process.machine import core_count
from components.scoring.plan import SCORED_SPLITS, ScoringPlan
from components.storage.staging import image_set_digest
from san_core.evaluation.feature_files import FeatureFiles
from san_core.evaluation.given_files import GivenDistances, PlainFeatures, plain_file
from san_core.evaluation.kernels.distance import Distances
from san_core.evaluation.kernels.rows import METRICS, select_rows
from san_core.evaluation.labels import labels_of
from san_core.evaluation.protocols.given_distances import DistanceScorer, MeasuredImages
from san_core.evaluation.protocols.scoring import EmbeddedImages, Scorer
from san_core.images.shard import Record

log = logging.getLogger(__name__)

AUTO = "auto"
GIVEN = "given"  # the metric of given distances
AnyScorer = Scorer | DistanceScorer


class EmbeddedSet:
    """Features of the images of a data set, and those of the untrained encoder, if any."""

    def __init__(
        self,
        records: Sequence[Record],
        features: NDArray[np.float32],
        untrained: NDArray[np.float32] | None,
        *,
        metric: str,
        provenance: dict[str, Any],
    ) -> None:
        self.records, self.metric, self.provenance = records, metric, provenance
        self._features, self._untrained = features, untrained

    def scorer(self, plan: ScoringPlan) -> Scorer:
        """The scorer of the features."""
        return embedded_scorer(plan, self._features, self.metric)

    def untrained_scorer(self, plan: ScoringPlan) -> Scorer | None:
        """The scorer of the untrained encoder's features, if there are any."""
        if self._untrained is None:
            return None
        return embedded_scorer(plan, self._untrained, self.metric)


class MeasuredSet:
    """Distances between the queries and the gallery of a data set."""

    metric = GIVEN

    def __init__(
        self, records: Sequence[Record], matrix: Distances, *, provenance: dict[str, Any]
    ) -> None:
        self.records, self.provenance, self._matrix = records, provenance, matrix
        self._row = _places(record for record in records if record.split == "query")
        self._column = _places(record for record in records if record.split == "gallery")

    def scorer(self, plan: ScoringPlan) -> DistanceScorer:
        """The scorer of the distances."""
        images = MeasuredImages(
            self._matrix,
            rows=np.array([self._row[record.name] for record in plan.query], np.int64),
            columns=np.array([self._column[record.name] for record in plan.gallery], np.int64),
            query=labels_of(plan.query),
            gallery=labels_of(plan.gallery),
        )
        return DistanceScorer(images, threads=core_count())

    def untrained_scorer(self, plan: ScoringPlan) -> None:
        """None, as an untrained encoder is no reference for given distances."""


def read_given(
    features: Path | None,
    distances: Path | None,
    *,
    dataset: Path,
    among: Sequence[Record],
    metric: str,
    references: bool,
) -> EmbeddedSet | MeasuredSet:
    """The input of scoring, checked against the data set.

    Args:
        features: the features given to `evaluate`, or None.
        distances: the distances given to `evaluate`, or None.
        dataset: the image set.
        among: its images.
        metric: as in `evaluate`.
        references: whether to compare an untrained encoder.

    Raises:
        ValueError: both or none are given, or they are not of this data set.
        FileNotFoundError: a file is missing.
    """
    if metric not in (AUTO, *METRICS):
        raise ValueError(f"no metric {metric!r}; there are {', '.join((AUTO, *METRICS))}")
    if (features is None) == (distances is None):
        what = "none of them" if features is None else "both"
        raise ValueError(f"give one of --features and --distances; {what} were given")
    if distances is not None:
        if metric != AUTO:
            raise ValueError(f"metric {metric} has no effect on distances, which are measured")
        return _read_distances(distances, among)
    assert features is not None
    if plain := plain_file(features, "features.npy"):
        return _read_plain(plain, among, metric)
    return _read_extracted(features, dataset, among, metric=metric, references=references)


def _read_distances(place: Path, among: Sequence[Record]) -> MeasuredSet:
    file = plain_file(place, "distances.npy")
    if file is None:
        raise FileNotFoundError(f"{place} is neither a .npy file nor a folder with distances.npy")
    given = GivenDistances(file)
    records = given.records(among)
    if not given.has_table:
        log.warning(
            "%s has no table beside it, so its rows are the queries and its columns the gallery"
            " images in the order of the data set (imageset ls --split query)",
            file,
        )
    count = [sum(record.split == split for record in records) for split in ("query", "gallery")]
    return MeasuredSet(records, given.matrix(*count), provenance=given.provenance)


def _read_plain(file: Path, among: Sequence[Record], metric: str) -> EmbeddedSet:
    given = PlainFeatures(file)
    records = given.records(among, ("query", "gallery"))
    if metric == AUTO:
        metric = "cosine"
        log.info("%s records no metric, so cosine is used (or give --metric euclidean)", file)
    rows = given.rows(len(records))
    return EmbeddedSet(records, rows, None, metric=metric, provenance=given.provenance)


def _read_extracted(
    place: Path, dataset: Path, among: Sequence[Record], *, metric: str, references: bool
) -> EmbeddedSet:
    """The output of extract_features."""
    embedded = FeatureFiles(place)
    if not embedded.is_summed:
        log.warning("%s records no sha256 of its files, so damage cannot be detected", place)
    if embedded.part is not None:
        workers = embedded.part["workers"]
        raise ValueError(
            f"{place} holds the features of one of {workers} workers; seal_features joins them"
        )
    if embedded.provenance["dataset"] != image_set_digest(dataset):
        raise ValueError(f"{place} holds features of another data set than {dataset}")
    records = embedded.records(among, SCORED_SPLITS)
    count = len(records)
    return EmbeddedSet(
        records,
        embedded.rows("features", count),
        embedded.rows("untrained", count) if references else None,
        metric=embedded.metric if metric == AUTO else metric,
        provenance=embedded.provenance,
    )


def embedded_scorer(plan: ScoringPlan, matrix: NDArray[np.float32], metric: str) -> Scorer:
    """The scorer of a plan's images by the rows of a matrix, which are read when needed."""
    images = EmbeddedImages(
        query_features=select_rows(matrix, plan.query_rows),
        gallery_features=select_rows(matrix, plan.gallery_rows),
        pooled_features=select_rows(matrix, plan.pooled_rows),
        query=labels_of(plan.query),
        gallery=labels_of(plan.gallery),
        pooled=labels_of(plan.pooled),
        metric=metric,
    )
    return Scorer(images, threads=core_count())


def _places(records: Iterable[Record]) -> dict[str, int]:
    return {record.name: place for place, record in enumerate(records)}
