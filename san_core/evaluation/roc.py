"""Receiver operating characteristic of pairs of query and gallery image: same person or not.

All pairs that the protocol keeps for queries with a right answer are pooled. At a threshold, the
true positive rate (TPR) is the share of right answers whose distance is within it, the false
positive rate (FPR) that of wrong answers. Thresholds are float32 distances cut to 10 bits of
mantissa (1 part in 1,024), so counting needs no sort and little memory.

With given distances every count is exact. With features, right answers are placed by their distance
in float64, wrong ones by the float32 matrix product that ranking uses only as a bound. Each wrong
answer is counted once, but near a threshold rounding may put it on either side. So, unlike ranks,
the false positive rate depends slightly on the order of summation: on tiles, threads and machine.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# The false positive rates at which verification papers report the TPR.
USUAL_FPR = (1e-4, 1e-3, 1e-2, 1e-1)
# The smallest false positive rate drawn.
LEAST_FPR = 1e-5

_BINS = 1 << 19  # of float32, cut to sign, exponent and 10 bits of mantissa
_CUT_BITS = 13


class Roc(NamedTuple):
    """Rates at rising thresholds, both (N,) float64, rising from above 0 to 1.

    `threshold` has the thresholds, (N,) float64: the greatest distance within each, squared for
    Euclidean distances. Thresholds are finite even if distances are not.
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    threshold: NDArray[np.float64]
    num_right: int
    num_wrong: int

    def tpr_at(self, fpr: float) -> float:
        """The TPR at the largest threshold whose FPR is not above `fpr`; 0 if there is none.

        Raises:
            ValueError: `fpr` is not between 0 and 1.
        """
        within = self._number_within(fpr)
        return float(self.tpr[within - 1]) if within else 0.0

    def threshold_at(self, fpr: float) -> float | None:
        """The largest threshold whose FPR is not above `fpr`; None if there is none.

        Raises:
            ValueError: `fpr` is not between 0 and 1.
        """
        within = self._number_within(fpr)
        return float(self.threshold[within - 1]) if within else None

    def _number_within(self, fpr: float) -> int:
        """How many thresholds have an FPR that is not above `fpr`."""
        if not 0 <= fpr <= 1:
            raise ValueError(f"a false positive rate is between 0 and 1, not {fpr}")
        return int(np.searchsorted(self.fpr, fpr, side="right"))

    def thin_out(self, most: int) -> "Roc":
        """The curve at `most` of its thresholds or fewer, the last included, for a drawing.

        One half is evenly spaced in the TPR, the other in the logarithm of the FPR.
        """
        rising = np.searchsorted(self.tpr, np.linspace(0, 1, most // 2))
        within = np.geomspace(LEAST_FPR, 1, most - most // 2)
        before = np.searchsorted(self.fpr, within, side="right") - 1
        kept = np.unique(np.maximum([*rising, *before], 0))
        return self._replace(fpr=self.fpr[kept], tpr=self.tpr[kept], threshold=self.threshold[kept])


def roc_from_bins(right: NDArray[np.int64], wrong: NDArray[np.int64]) -> Roc:
    """The curve of numbers of right and wrong answers in bins of rising distance.

    Raises:
        ValueError: there are no right or no wrong answers.
    """
    filled = np.flatnonzero((right != 0) | (wrong != 0))
    rights, wrongs = np.cumsum(right[filled]), np.cumsum(wrong[filled])
    num_right, num_wrong = (int(sums[-1]) if len(sums) else 0 for sums in (rights, wrongs))
    if not num_right or not num_wrong:
        raise ValueError(
            f"{num_right} right and {num_wrong} wrong answers: a ROC curve needs some of each"
        )
    return Roc(
        fpr=wrongs / num_wrong,
        tpr=rights / num_right,
        threshold=_greatest_in_bins(filled),
        num_right=num_right,
        num_wrong=num_wrong,
    )


def _greatest_in_bins(bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """The greatest distance in each bin; the greatest float if a bin has no end."""
    ordered = ((bins - _BINS // 2) << _CUT_BITS) | ((1 << _CUT_BITS) - 1)
    bits = ordered.astype(np.int32)
    bits ^= (bits >> 31) & 0x7FFFFFFF  # back from the order of numbers to sign and magnitude
    edges = bits.view(np.float32)
    greatest = np.copysign(np.finfo(np.float32).max, edges)
    return np.where(np.isfinite(edges), edges, greatest).astype(np.float64)
