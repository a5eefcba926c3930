"""The validation score of a network in training: how well it finds people it does not train on.

Legend: N images, H W rows and columns.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from san_core.data.batches.identities import check_scorable, validation_queries
from san_core.evaluation.confidence import Interval, mean_interval
from san_core.evaluation.labels import Labels, check_labels
from san_core.evaluation.ranking import rank
from san_core.images.pixels import Pixels
from san_core.inference.features import embed
from san_core.model.san import SAN
from san_core.recipe import Recipe
from san_core.training.finiteness import TrainingFailedError

# What rounding may make of equal features, as a share of the largest number in them.
_ROUNDING = 1e-5


class MapEvaluator:
    """For `fit`'s `evaluate`: the mAP of validation images ranked against each other.

    The first image of every person and camera is a query, and all images are the gallery. For a
    query, its own image and all images of its person by its own camera are left out, as in
    `evaluation.ranking`; without known cameras only its own image. The distance is that of the
    triplet loss.

    Attributes:
        num_queries: the number of queries; people seen by one camera have none.
        num_people: the number of their identities.
        interval: the confidence interval of the last score; None before the first.
    """

    def __init__(
        self,
        images: Pixels,
        labels: Labels,
        recipe: Recipe,
        *,
        device: torch.device | str,
        on_zeros: Callable[[int], None] | None = None,
    ) -> None:
        """An evaluator of some images.

        Args:
            images: (N, H, W, 3) RGB, of people who are not trained on; may be a memory map.
            labels: of the images; people from 1.
            recipe: of the network; decides the distance, and whether mirrored images count too.
            device: where to embed.
            on_zeros: called with the number of features that are all zeros, if any; they tie with
                everything.

        Raises:
            ValueError: there is not one label per image, no query has a right answer by the
                protocol, or none has a wrong one.
        """
        if len(labels.pids) != len(images):
            raise ValueError(f"{len(labels.pids)} validation labels for {len(images)} images")
        check_scorable(labels.pids, labels.camids)
        check_labels(labels, labels)
        self._images, self._device, self._on_zeros = images, device, on_zeros
        self._metric, self._mirrored = recipe.metric, recipe.mirrored
        self._rows = validation_queries(labels.pids, labels.camids)
        # An image that alone has its camera is what a query of it leaves out.
        alone = labels._replace(camids=np.arange(len(images)))
        self._gallery = alone if labels.camids is None else labels
        self._query = self._gallery.take(self._rows)
        self.num_queries = len(self._rows)
        self.num_people = len(np.unique(self._query.pids))
        self.interval: Interval | None = None

    def __call__(self, model: SAN) -> float:
        """The mAP of a network.

        Raises:
            TrainingFailedError: a feature is not finite, or all of them are equal.
        """
        try:
            found = embed(model, self._images, mirrored=self._mirrored, device=self._device)
        except ValueError as error:  # the only possible error is a feature that is not finite
            raise TrainingFailedError(str(error)) from error
        _check_differing(found)
        if self._on_zeros and (zeros := int((~found.any(axis=1)).sum())):
            self._on_zeros(zeros)
        ranking = rank(
            found[self._rows],
            found,
            query=self._query,
            gallery=self._gallery,
            metric=self._metric,
            top_k=0,
        )
        self.interval = mean_interval(ranking.average_precision, self._query.pids)
        return ranking.mAP


def _check_differing(found: NDArray[np.float32]) -> None:
    """Raise TrainingFailedError if features (N, D) are equal, but for the rounding of batches."""
    spread, size = np.ptp(found, axis=0).max(), np.abs(found).max()
    if spread <= _ROUNDING * size:
        what = "zeros" if not size else "the same"
        raise TrainingFailedError(
            f"all {len(found):,} features of the validation images are {what}: the network no "
            "longer tells people apart; a lower lr, a longer warm-up or triplet_ramp_epochs may "
            "help"
        )
