"""Score embeddings: CMC, mAP and a report."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from components.command.step import Input, Output
from components.storage.outputs import atomic_folder, write_file, write_metrics, write_roc

if TYPE_CHECKING:
    from san_core.evaluation.roc import Roc
    from san_core.images.imageset import ImageSet

log = logging.getLogger(__name__)

SHOWN_METRICS = ("rank1", "rank5", "rank10", "mAP", "mINP")
_SEEN = ("people", "images")
ROC_POINTS = 100


def evaluate(
    dataset: Annotated[Path, Input("Dataset")],
    report: Annotated[Path, Output("Dataset")],
    report_page: Annotated[Path, Output("HTML")],
    scores: Annotated[Path, Output("Metrics")],
    roc: Annotated[Path, Output("ClassificationMetrics")],
    features: Annotated[Path | None, Input("Dataset")] = None,
    distances: Annotated[Path | None, Input("Dataset")] = None,
    references: bool = False,
    protocol: str = "auto",
    metric: str = "auto",
    rerank: bool = False,
) -> None:
    """Score query embeddings against the gallery (CMC, mAP, mINP) and write a report.

    If prepare_reid was given several targets, each is scored separately. The first gives the
    headline scores.

    Args:
        dataset: the person images, for the pictures in the report
        report: report.json: protocol, counts and every score, as fractions; ranked.csv: for every
            query, the 20 nearest gallery images and the first correct match, with distances;
            queries.csv: one line per query, with its average precision
        report_page: page with what was scored, the scores, ranked pictures, CMC and ROC curves, and
            tables by camera and by the height of queries
        scores: rank-1, rank-5, rank-10, mAP and mINP of the model by the first protocol, as
            fractions; num_skipped: queries without a correct match, which are not scored;
            num_people_trained_on and num_images_trained_on, if the model was trained on people or
            images that it is tested on; rank-1 and mAP by each further protocol and on each further
            target
        roc: verification ROC at up to 100 thresholds of similarity (the cosine, or minus the
            squared Euclidean distance)
        features: embeddings of the query and gallery images, made by extract_features; or your own
            .npy file (N, D), beside a table (the same name with .csv, or index.csv) whose column
            name gives the image of each row
        distances: instead of features, a .npy file (queries, gallery images) of distances, where
            smaller is nearer; a table as for features lists the queries in row order and the
            gallery images in column order; without a table, both are in the order of the data set
        references: whether to score an untrained encoder and a colour histogram too, for comparison
        protocol: one or more of market1501, camera-free, sysu-mm01, multi-query,
            single-gallery-shot (exact) and sampled-gallery-shot, separated by commas without
            spaces. auto is the data set's own protocol: single-gallery-shot for cuhk03:classic,
            camera-free if no camera is known, else market1501. The last three leave out the same
            gallery images as market1501 or camera-free, unless another protocol follows a colon
            (sampled-gallery-shot:sysu-mm01)
        metric: cosine or euclidean; auto is the metric of the features, or cosine for a .npy file
        rerank: whether to score re-ranked distances (k-reciprocal encoding) too
    """
    from components.scoring.given import read_given
    from components.scoring.plan import SCORED_SPLITS, plan_scoring, targets_of
    from components.scoring.scored import score_target
    from components.storage.staging import (
        open_image_records,
        open_image_set,
        shards_of_splits,
    )
    from san_core.evaluation.pages import report as reports
    from san_core.evaluation.pages.report_page import report_page as page_of
    from san_core.evaluation.ranked_lists import write_ranked_lists

    with open_image_records(dataset) as index:
        given = read_given(
            features,
            distances,
            dataset=dataset,
            among=index.records,
            metric=metric,
            references=references,
        )
        plans = {one: plan_scoring(given.records, protocol, of=one) for one in targets_of(index)}
    with open_image_set(dataset, shards=shards_of_splits(dataset, SCORED_SPLITS)) as images:
        warnings = [*_warnings_of_seen(given.provenance), *_warnings_of_dataset(images)]
        scored = [
            score_target(
                given,
                images,
                target,
                plan,
                references=references,
                rerank=rerank,
                warnings=() if number else warnings,
            )
            for number, (target, plan) in enumerate(plans.items())
        ]
        contents = {each.target.name: each.content for each in scored}
        first, content = scored[0], reports.join_contents(contents)
        document = page_of(content, {each.target.name: each.sections(images) for each in scored})
    with atomic_folder(report) as folder:
        write_ranked_lists(folder, [each.listed for each in scored])
        write_file(folder / "report.json", json.dumps(content, indent=2) + "\n")
    write_file(report_page, document)
    shown = _shown_scores(content)
    write_metrics(scores, shown)
    _write_roc(roc, first.lists.ranking.roc, given.metric)
    _log_scores(contents)
    for name, value in shown.items():
        if name not in SHOWN_METRICS and not name.startswith("num_"):
            log.info("%s %.1f%%", name, 100 * value)


def _log_scores(contents: Mapping[str, Mapping[str, Any]]) -> None:
    """Log the scores and the warnings of each data set that was tested on."""
    from san_core.evaluation.pages.report import MODEL

    for target, content in contents.items():
        of_target = f"{target}: " if target else ""
        for line in content["warnings"]:
            log.warning("%s%s", of_target, line)
        for name, scored in {MODEL: content, **content["references"]}.items():
            figures = "  ".join(
                f"{key} {scored[key]:.1%}" for key in SHOWN_METRICS if key in scored
            )
            log.info("%s%s, %s: %s", of_target, name, content["protocol"], figures)


def _shown_scores(content: Mapping[str, Any]) -> dict[str, float]:
    """The model's scores that KFP lists and compares, and the number of queries left out.

    Keys are words of letters, digits and underscores.
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
    for target, of_target in content.get("further_targets", {}).items():
        shown |= {f"{score}_{target}": of_target[score] for score in ("rank1", "mAP")}
    return {re.sub(r"\W", "_", name): value for name, value in shown.items()}


def _write_roc(path: Path, curve: "Roc | None", metric: str) -> None:
    """Write the curve over falling similarity, from the corner where no pair is a match."""
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


def _warnings_of_seen(provenance: Mapping[str, Any]) -> list[str]:
    """The warning of extract_features that the model was trained on what it is tested on."""
    from san_core.data.trained_on import seen_in_words

    told = seen_in_words(provenance["seen_in_training"]) if "seen_in_training" in provenance else ""
    return [f"the model was {told}: its scores are too high"] if told else []


def _warnings_of_dataset(images: "ImageSet") -> list[str]:
    """The warnings of prepare_reid."""
    told = images.manifest["provenance"].get("warnings", [])
    return [str(line) for line in told] if isinstance(told, list) else []
