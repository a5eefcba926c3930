"""The images and protocols to score, checked before anything is computed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.evaluation.labels import labels_of
from san_core.evaluation.protocol import check_protocol_applies
from san_core.evaluation.protocols import scoring
from san_core.evaluation.protocols.multi_query import check_cameras_known
from san_core.images.imageset import ImageSet
from san_core.images.shard import Record

SCORED_SPLITS = ("query", "gallery", "multi")


class Target(NamedTuple):
    """A data set that is tested on; the names of its images begin with `prefix`.

    `name` is empty if there is no other, `protocol` if prepare_reid wrote none.
    """

    name: str
    prefix: str
    protocol: str


class ScoringPlan(NamedTuple):
    """The images and protocols to score.

    `query_rows`, `gallery_rows` and `pooled_rows` are the rows of the features, (Q,), (G,) and
    (M,) int64, of queries, gallery, and the images that multi-query pools. `headline` is the first
    protocol. `shown` is the corresponding protocol that ranks the whole gallery. `warnings` are for
    the report.
    """

    records: Sequence[Record]
    query_rows: NDArray[np.int64]
    gallery_rows: NDArray[np.int64]
    pooled_rows: NDArray[np.int64]
    protocols: list[str]
    headline: str
    shown: str
    warnings: list[str]

    @property
    def query(self) -> list[Record]:
        """The queries."""
        return [self.records[row] for row in self.query_rows]

    @property
    def gallery(self) -> list[Record]:
        """The gallery images."""
        return [self.records[row] for row in self.gallery_rows]

    def shown_only(self) -> "ScoringPlan":
        """The same plan with only its own images in `records`, and rows that index them."""
        own = np.unique(np.concatenate([self.query_rows, self.gallery_rows, self.pooled_rows]))
        return self._replace(
            records=[self.records[row] for row in own],
            query_rows=np.searchsorted(own, self.query_rows),
            gallery_rows=np.searchsorted(own, self.gallery_rows),
            pooled_rows=np.searchsorted(own, self.pooled_rows),
        )

    @property
    def pooled(self) -> list[Record]:
        """The images that multi-query pools."""
        return [self.records[row] for row in self.pooled_rows]


def targets_of(images: ImageSet) -> list[Target]:
    """The data sets to test on in an image set, in the requested order."""
    provenance = images.manifest["provenance"]
    parts: list[dict[str, Any]] = provenance.get("parts") or []
    tested = [part for part in parts if "query" in part["counts"]]
    if len(tested) < 2:
        return [Target("", "", str(provenance.get("protocol", "")))]
    names = [str(part["name"]) for part in tested]
    return [
        Target(
            name if names.count(name) == 1 else part["prefix"].rstrip("/"),
            part["prefix"],
            part["protocol"],
        )
        for name, part in zip(names, tested, strict=True)
    ]


def plan_scoring(records: Sequence[Record], protocol: str, *, of: Target) -> ScoringPlan:
    """The plan for one data set.

    Args:
        records: the image of each row of features.
        protocol: as in `evaluate`.
        of: the data set.

    Raises:
        ValueError: a protocol is unknown, or cannot be applied to these images.
    """

    def rows_of_splits(*splits: str) -> NDArray[np.int64]:
        return np.array(
            [
                row
                for row, record in enumerate(records)
                if record.split in splits and record.name.startswith(of.prefix)
            ],
            np.int64,
        )

    asked, searched = rows_of_splits("query"), rows_of_splits("gallery")
    query, gallery = (labels_of(records[row] for row in rows) for rows in (asked, searched))
    names = scoring.parse_protocols(protocol, query, own=of.protocol)
    named = [scoring.parse_protocol(name, query) for name in names]
    for each in named:
        check_protocol_applies(each.follow, query, gallery)
    warnings = []
    if any(each.word == scoring.MULTI_QUERY for each in named):
        check_cameras_known(query)
        if not len(rows_of_splits("multi")):
            warnings.append(
                f"{scoring.MULTI_QUERY}: the data set has no images of split multi, so only queries"
                " of the same identity by the same camera are pooled"
            )
    pooled = rows_of_splits("query", "multi")
    shown = scoring.ranked_gallery_protocol(names[0], query)
    return ScoringPlan(records, asked, searched, pooled, names, names[0], shown, warnings)
