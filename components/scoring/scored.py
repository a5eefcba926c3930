"""The scores of one data set: of the model, and of references."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from components.scoring.given import AnyScorer, EmbeddedSet, MeasuredSet, embedded_scorer
from components.scoring.plan import ScoringPlan, Target
from san_core.evaluation.histogram import histogram_features
from san_core.evaluation.kernels.rows import FeatureError, is_without_direction
from san_core.evaluation.pages import report as reports
from san_core.evaluation.pages import report_page
from san_core.evaluation.pages.camera_pairs import CameraPair, score_camera_pairs
from san_core.evaluation.pages.query_heights import HeightThird, score_heights
from san_core.evaluation.protocol import PROTOCOLS
from san_core.evaluation.protocols.given_distances import DistanceScorer
from san_core.evaluation.protocols.scoring import ProtocolScores
from san_core.evaluation.ranked_lists import RANKS_LISTED, ListedTarget, RankedLists
from san_core.evaluation.ranking import Ranking
from san_core.images.imageset import ImageSet
from san_core.images.pixels import decode, image_size
from san_core.images.shard import Record
from san_core.pages.page import Section


class ScoredTarget(NamedTuple):
    """A data set that was tested on, its plan and its scores.

    `content` is that of report.json; `others` and `headline` are as in `report_content`.
    """

    target: Target
    plan: ScoringPlan
    content: dict[str, Any]
    lists: RankedLists
    others: Mapping[str, Ranking]
    headline: Mapping[str, ProtocolScores]

    @property
    def listed(self) -> ListedTarget:
        """Its ranked lists, with their records."""
        return ListedTarget(self.lists, self.plan.query, self.plan.gallery)

    def sections(self, images: ImageSet) -> list[Section]:
        """The sections of its page."""
        return report_page.report_sections(
            self.content,
            self.lists,
            self.others,
            query=self.plan.query,
            gallery=self.plan.gallery,
            read=images.read,
            headline=self.headline,
        )


def score_target(
    given: EmbeddedSet | MeasuredSet,
    images: ImageSet,
    target: Target,
    plan: ScoringPlan,
    *,
    references: bool,
    rerank: bool,
    warnings: Sequence[str],
) -> ScoredTarget:
    """Score features or distances of a data set.

    Args:
        given: features or distances.
        images: the image set.
        target: the data set, perhaps one of several in it.
        plan: of its images and protocols.
        references: whether to score an untrained encoder and a colour histogram too.
        rerank: whether to score re-ranked distances too.
        warnings: warnings about the data set.

    Raises:
        ValueError: the features or the images cannot be scored.
    """
    model = given.scorer(plan)
    compared: dict[str, AnyScorer] = {reports.MODEL: model}
    if references:
        compared |= _reference_scorers(given, images, plan)
    others = {name: _shown_ranking(each, plan) for name, each in compared.items()}
    ranking = others.pop(reports.MODEL)
    headline = {}
    if plan.headline != plan.shown:
        headline = {name: each.score(plan.headline) for name, each in compared.items()}
    content = reports.report_content(
        ranking,
        others,
        query=plan.query,
        gallery=plan.gallery,
        metric=given.metric,
        data_set=target.name or str(images.manifest["provenance"].get("dataset", "")),
        headline=headline,
        scored=_other_scores(model, plan, rerank=rerank),
        pairs=_camera_pair_table(model, plan),
        heights=_height_thirds(ranking, images, plan.query),
        provenance=given.provenance,
        warnings=[*warnings, *plan.warnings, *_zeros_warning(model), *_ranking_warnings(ranking)],
    )
    lists = RankedLists(
        ranking, model.measure, query=model.images.query, gallery=model.images.gallery
    )
    return ScoredTarget(target, plan, content, lists, others, headline)


def _reference_scorers(
    given: EmbeddedSet | MeasuredSet, images: ImageSet, plan: ScoringPlan
) -> dict[str, AnyScorer]:
    """The references: an untrained encoder if there is one, and a colour histogram."""
    found: dict[str, AnyScorer] = {}
    if untrained := given.untrained_scorer(plan):
        found["untrained encoder"] = untrained
    shown = plan.shown_only()
    colours = histogram_features(
        decode(images.read(record), name=record.name) for record in shown.records
    )
    found["colour histogram"] = embedded_scorer(shown, colours, "euclidean")
    return found


def _zeros_warning(scorer: AnyScorer) -> list[str]:
    """A warning with the number of features that are all zeros; empty if there are none."""
    if isinstance(scorer, DistanceScorer):
        return []
    sides = (scorer.images.query_features, scorer.images.gallery_features)
    zeros = sum(int(is_without_direction(rows.squared_norms()).sum()) for rows in sides)
    if not zeros:
        return []
    return [
        f"{zeros:,} of {sum(map(len, sides)):,} features are all zeros: they cannot distinguish"
        " people, and tie in gallery order"
    ]


def _ranking_warnings(ranking: Ranking) -> list[str]:
    """Warnings about the scores of a ranking."""
    lines = []
    if ranking.num_skipped:
        lines.append(
            f"{ranking.num_skipped:,} of {ranking.num_query:,} queries have no correct match in the"
            " gallery and are not scored"
        )
    if ranking.roc is None:
        lines.append(
            "no query has a wrong match left in the gallery: every score is perfect, whatever the"
            " model"
        )
    elif len(ranking.roc.fpr) == 1:
        lines.append(
            "all distances are equal to 1 part in 1,024: the model distinguishes nobody, and tied"
            " images rank in gallery order"
        )
    return lines


def _shown_ranking(scorer: AnyScorer, plan: ScoringPlan) -> Ranking:
    """The ranking whose pictures and ROC curve are shown."""
    try:
        return scorer.score(plan.shown, top_k=RANKS_LISTED, with_roc=True).ranking
    except FeatureError as error:
        shown = {"query": plan.query, "gallery": plan.gallery}[error.role][error.place]
        raise ValueError(f"{error}; its image is {shown.name}") from error


def _other_scores(scorer: AnyScorer, plan: ScoringPlan, *, rerank: bool) -> list[ProtocolScores]:
    """Every protocol but the headline's and, if requested, all of them re-ranked."""
    asked = [(name, False) for name in plan.protocols if name != plan.headline]
    if rerank:
        asked += [(name, True) for name in plan.protocols]
    return [scorer.score(name, reranked=again) for name, again in asked]


def _height_thirds(
    ranking: Ranking, images: ImageSet, query: Sequence[Record]
) -> list[HeightThird]:
    """The scores of queries of low, medium and large height, by the rows of their images."""
    sizes = (image_size(images.read(record), name=record.name) for record in query)
    return score_heights(ranking, [rows for rows, _ in sizes])


def _camera_pair_table(scorer: AnyScorer, plan: ScoringPlan) -> list[CameraPair]:
    """The table by camera, if cameras are known."""
    query, gallery = scorer.images.query, scorer.images.gallery
    if query.camids is None:
        return []
    protocol = PROTOCOLS[plan.shown]
    return score_camera_pairs(
        lambda there: scorer.rank_among(there, protocol), query=query, gallery=gallery
    )
