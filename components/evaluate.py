"""Score embeddings: CMC, mAP and a report."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from components.command.step import Input, Output
from components.storage.outputs import atomic_folder, write_file, write_metrics, write_roc

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from san_core.evaluation.pages.camera_pairs import CameraPair
    from san_core.evaluation.pages.query_heights import HeightThird
    from san_core.evaluation.protocols.scoring import EmbeddedImages, ProtocolScores
    from san_core.evaluation.ranking import Ranking
    from san_core.evaluation.roc import Roc
    from san_core.images.imageset import ImageSet
    from san_core.images.shard import Record

log = logging.getLogger(__name__)

SCORED_SPLITS = ("query", "gallery", "multi")
SHOWN_METRICS = ("rank1", "rank5", "rank10", "mAP", "mINP")
RANKED_SHOWN = 10
_SEEN = ("people", "images")
ROC_POINTS = 100


def evaluate(
    features: Annotated[Path, Input("Dataset")],
    dataset: Annotated[Path, Input("Dataset")],
    report: Annotated[Path, Output("Dataset")],
    report_page: Annotated[Path, Output("HTML")],
    scores: Annotated[Path, Output("Metrics")],
    roc: Annotated[Path, Output("ClassificationMetrics")],
    references: bool = False,
    protocol: str = "auto",
    rerank: bool = False,
) -> None:
    """Score query embeddings against the gallery (CMC, mAP, mINP) and write a report.

    Args:
        features: embeddings of the query and gallery images, made by extract_features
        dataset: the person images, for the pictures in the report
        report: report.json: protocol, counts and every score, as fractions
        report_page: page with scores, CMC and ROC curves, tables by cameras and by the height of
            queries, and ranked pictures
        scores: rank-1, rank-5, rank-10, mAP and mINP of the model by the first protocol, as
            fractions; num_skipped, the queries without a right answer, which are not counted;
            num_people_trained_on and num_images_trained_on, where the model was trained on those it
            is tested on; rank-1 and mAP by each further protocol
        roc: the verification ROC at up to 100 thresholds of similarity (the cosine, or minus the
            squared Euclidean distance)
        references: whether to score an untrained encoder and a colour histogram too, for the report
        protocol: one or more of market1501, camera-free, sysu-mm01, multi-query,
            single-gallery-shot (exact) and sampled-gallery-shot, in one word with commas; auto is
            the data set's own (market1501, or camera-free where no camera is known, but
            single-gallery-shot for cuhk03:classic); the last three leave out what market1501 or
            camera-free does unless another follows a colon (sampled-gallery-shot:sysu-mm01)
        rerank: whether to score re-ranked distances (k-reciprocal encoding) too
    """
    from components.storage.staging import image_set_digest, open_image_set, shards_of_splits
    from san_core.evaluation.feature_files import FeatureFiles
    from san_core.evaluation.pages import report as reports

    embedded = FeatureFiles(features)
    if not embedded.is_summed:
        log.warning("%s tells no sha256 of its files: damage would not be noticed", features)
    provenance, metric = embedded.provenance, embedded.metric
    if provenance["dataset"] != image_set_digest(dataset):
        raise ValueError(f"{features} holds the features of another data set than {dataset}")
    with open_image_set(dataset, shards=shards_of_splits(dataset, SCORED_SPLITS)) as images:
        records = embedded.records(images.records, SCORED_SPLITS)
        test = _plan_scoring(records, protocol, own=_protocol_of_dataset(images))
        model = _select_embedded(test, embedded.rows("features", len(records)), metric)
        compared = {reports.MODEL: model}
        if references:
            untrained = embedded.rows("untrained", len(records))
            compared["untrained encoder"] = _select_embedded(test, untrained, metric)
            colours = _histogram_features(images, test.records)
            compared["colour histogram"] = _select_embedded(test, colours, "euclidean")
        others = {name: _shown_ranking(each, test) for name, each in compared.items()}
        ranking = others.pop(reports.MODEL)
        warnings = [
            *_warnings_of_seen(provenance),
            *_warnings_of_dataset(images),
            *test.warnings,
            *_ranking_warnings(ranking),
        ]
        headline = {}
        if test.headline != test.shown:
            headline = {name: _headline_scores(each, test) for name, each in compared.items()}
        content = reports.report_content(
            ranking,
            others,
            query=test.query,
            gallery=test.gallery,
            metric=metric,
            headline=headline,
            scored=_other_scores(model, test, rerank=rerank),
            pairs=_camera_pair_table(model, test.shown),
            heights=_height_thirds(ranking, images, test.query),
            provenance=provenance,
            warnings=warnings,
        )
        document = reports.report_page(
            content,
            ranking,
            others,
            query=test.query,
            gallery=test.gallery,
            read=images.read,
            headline=headline,
        )
    with atomic_folder(report) as folder:
        write_file(folder / "report.json", json.dumps(content, indent=2) + "\n")
    write_file(report_page, document)
    shown = _shown_scores(content)
    write_metrics(scores, shown)
    _write_roc(roc, ranking.roc, metric)
    for line in warnings:
        log.warning("%s", line)
    for name, scored in {reports.MODEL: content, **content["references"]}.items():
        figures = "  ".join(f"{key} {scored[key]:.1%}" for key in SHOWN_METRICS if key in scored)
        log.info("%s, %s: %s", name, content["protocol"], figures)
    for name, value in shown.items():
        if name not in SHOWN_METRICS and not name.startswith("num_"):
            log.info("%s %.1f%%", name, 100 * value)


class _ScoringPlan(NamedTuple):
    """The images that are scored, and by which protocols.

    `query_rows`, `gallery_rows` and `pooled_rows` are the rows of the features, (Q,), (G,) and
    (M,) int64, of queries, gallery, and all that multi-query pools. `headline` is the first of the
    protocols, `shown` the one that ranks the whole gallery as it does; `warnings` is what people
    should know of it.
    """

    records: "Sequence[Record]"
    query_rows: "NDArray[np.int64]"
    gallery_rows: "NDArray[np.int64]"
    pooled_rows: "NDArray[np.int64]"
    protocols: list[str]
    headline: str
    shown: str
    warnings: list[str]

    @property
    def query(self) -> "list[Record]":
        return [self.records[row] for row in self.query_rows]

    @property
    def gallery(self) -> "list[Record]":
        return [self.records[row] for row in self.gallery_rows]


def _select_embedded(
    test: _ScoringPlan, matrix: "NDArray[np.float32]", metric: str
) -> "EmbeddedImages":
    """The images by the rows of a matrix, which are read when they are needed."""
    from san_core.evaluation.kernels.rows import select_rows
    from san_core.evaluation.labels import labels_of
    from san_core.evaluation.protocols.scoring import EmbeddedImages

    return EmbeddedImages(
        query_features=select_rows(matrix, test.query_rows),
        gallery_features=select_rows(matrix, test.gallery_rows),
        pooled_features=select_rows(matrix, test.pooled_rows),
        query=labels_of(test.query),
        gallery=labels_of(test.gallery),
        pooled=labels_of(test.records[row] for row in test.pooled_rows),
        metric=metric,
    )


def _plan_scoring(records: "Sequence[Record]", protocol: str, *, own: str) -> _ScoringPlan:
    """What is scored, checked before anything is computed."""
    import numpy as np

    from san_core.evaluation.labels import labels_of
    from san_core.evaluation.protocol import check_protocol_applies
    from san_core.evaluation.protocols import scoring
    from san_core.evaluation.protocols.multi_query import check_cameras_known

    def rows_of_splits(*splits: str) -> "NDArray[np.int64]":
        return np.array([i for i, r in enumerate(records) if r.split in splits], np.int64)

    asked, searched = rows_of_splits("query"), rows_of_splits("gallery")
    query, gallery = (labels_of(records[row] for row in rows) for rows in (asked, searched))
    names = scoring.parse_protocols(protocol, query, own=own)
    named = [scoring.parse_protocol(name, query) for name in names]
    for each in named:
        check_protocol_applies(each.follow, query, gallery)
    warnings = []
    if any(each.word == scoring.MULTI_QUERY for each in named):
        check_cameras_known(query)
        if not len(rows_of_splits("multi")):
            warnings.append(
                f"{scoring.MULTI_QUERY}: the data set has no images of split multi, so only queries"
                " of the same person by the same camera are pooled"
            )
    pooled = rows_of_splits("query", "multi")
    shown = scoring.ranked_gallery_protocol(names[0], query)
    return _ScoringPlan(records, asked, searched, pooled, names, names[0], shown, warnings)


def _ranking_warnings(ranking: "Ranking") -> list[str]:
    """What people should know before they believe the scores of a ranking."""
    lines = []
    if ranking.num_skipped:
        lines.append(
            f"{ranking.num_skipped:,} of {ranking.num_query:,} queries have no right answer in the"
            " gallery and are not counted"
        )
    if ranking.roc is None:
        lines.append(
            "no query has a wrong answer left in the gallery: every figure is perfect, whatever the"
            " model"
        )
    elif len(ranking.roc.fpr) == 1:
        lines.append(
            "all distances are equal to 1 part in 1,024: the model tells nobody apart, and tied"
            " images rank in gallery order"
        )
    return lines


def _headline_scores(images: "EmbeddedImages", test: _ScoringPlan) -> "ProtocolScores":
    """The figures of the first protocol."""
    from components.process.machine import core_count
    from san_core.evaluation.protocols.scoring import Scorer

    return Scorer(images, threads=core_count()).score(test.headline)


def _shown_ranking(images: "EmbeddedImages", test: _ScoringPlan) -> "Ranking":
    """The ranking whose pictures and ROC curve are shown."""
    from components.process.machine import core_count
    from san_core.evaluation.kernels.rows import FeatureError
    from san_core.evaluation.protocols.scoring import Scorer

    scorer = Scorer(images, threads=core_count())
    try:
        return scorer.score(test.shown, top_k=RANKED_SHOWN, with_roc=True).ranking
    except FeatureError as error:
        shown = {"query": test.query, "gallery": test.gallery}[error.role][error.place]
        raise ValueError(f"{error}; it is that of {shown.name}") from error


def _other_scores(
    images: "EmbeddedImages", test: _ScoringPlan, *, rerank: bool
) -> "list[ProtocolScores]":
    """Every protocol but the headline's, and if wanted all of them re-ranked."""
    from components.process.machine import core_count
    from san_core.evaluation.protocols.scoring import Scorer

    scorer = Scorer(images, threads=core_count())
    asked = [(name, False) for name in test.protocols if name != test.headline]
    if rerank:
        asked += [(name, True) for name in test.protocols]
    return [scorer.score(name, reranked=again) for name, again in asked]


def _camera_pair_table(images: "EmbeddedImages", protocol: str) -> "list[CameraPair]":
    """The table by cameras, where they are known."""
    from components.process.machine import core_count
    from san_core.evaluation.pages.camera_pairs import score_camera_pairs
    from san_core.evaluation.protocol import PROTOCOLS

    if images.query.camids is None:
        return []
    return score_camera_pairs(
        images.query_features,
        images.gallery_features,
        query=images.query,
        gallery=images.gallery,
        metric=images.metric,
        protocol=PROTOCOLS[protocol],
        threads=core_count(),
    )


def _height_thirds(
    ranking: "Ranking", images: "ImageSet", query: "Sequence[Record]"
) -> "list[HeightThird]":
    """The scores of low, middling and high queries, by the rows of their images."""
    from san_core.evaluation.pages.query_heights import score_heights
    from san_core.images.pixels import image_size

    sizes = (image_size(images.read(record), name=record.name) for record in query)
    return score_heights(ranking, [rows for rows, _ in sizes])


def _shown_scores(content: Mapping[str, Any]) -> dict[str, float]:
    """The model's scores that KFP lists and compares, and how many queries are not in them.

    Keys are words without blanks or hyphens.
    """
    kept = (*SHOWN_METRICS, "num_skipped")
    shown = {name: content[name] for name in kept if name in content}
    seen = content["provenance"].get("seen_in_training", {})
    shown |= {f"num_{what}_trained_on": seen[what] for what in _SEEN if seen.get(what)}
    for each in content["protocols"]:
        suffix = each["protocol"] + ("_reranked" if each["reranked"] else "")
        for score in ("rank1", "mAP", "mAP_of_draw", "mAP_of_gallery"):
            if score in each:
                shown[f"{score}_{suffix}"] = each[score]
    return {re.sub("[ :-]", "_", name): value for name, value in shown.items()}


def _write_roc(path: Path, curve: "Roc | None", metric: str) -> None:
    """Write the curve over falling similarity, from the corner where nothing is a match yet."""
    if curve is None:
        write_roc(path, confidence=(), fpr=(), tpr=())
        return
    drawn = curve.thin_out(ROC_POINTS - 1)
    similarity = 1 - drawn.threshold if metric == "cosine" else -drawn.threshold
    write_roc(
        path,
        confidence=[similarity[0] + 1, *similarity],  # more similar than any pair
        fpr=[0, *drawn.fpr],
        tpr=[0, *drawn.tpr],
    )


def _histogram_features(images: "ImageSet", records: "Sequence[Record]") -> "NDArray[np.float32]":
    """The reference that learns nothing: colours, stripe by stripe."""
    from san_core.evaluation.histogram import histogram_features
    from san_core.images.pixels import decode

    return histogram_features(decode(images.read(record), name=record.name) for record in records)


def _protocol_of_dataset(images: "ImageSet") -> str:
    """The protocol that the data set is scored by, as prepare_reid wrote it; empty if none is."""
    return str(images.manifest["provenance"].get("protocol", ""))


def _warnings_of_seen(provenance: Mapping[str, Any]) -> list[str]:
    """That the model was trained on what it is tested on, as extract_features found."""
    from san_core.data.trained_on import seen_in_words

    told = seen_in_words(provenance["seen_in_training"]) if "seen_in_training" in provenance else ""
    return [f"the model was {told}: its figures are too good"] if told else []


def _warnings_of_dataset(images: "ImageSet") -> list[str]:
    """What prepare_reid warned of."""
    told = images.manifest["provenance"].get("warnings", [])
    return [str(line) for line in told] if isinstance(told, list) else []
