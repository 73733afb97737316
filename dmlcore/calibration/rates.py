"""FAR and FRR of one threshold on one split: pooled, and class by class.

Shapes: C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmlcore.calibration.counts import Floats, Ints, count_accepted
from dmlcore.calibration.intervals import Rate, accept_rate, reject_rate
from dmlcore.metrics.inputs import Pairs


@dataclass(frozen=True)
class SplitRates:
    """All counts of a split; arrays are [C] in the order of `labels`, which ascends."""

    labels: NDArray[np.generic]
    images: Ints
    positive_pairs: Ints
    rejected: Ints
    negative_pairs: Ints
    accepted: Ints
    far: Rate
    frr: Rate
    query_gallery: bool = False
    """The pairs are those of a query and a gallery image; else those of every image and every other."""

    @property
    def class_far(self) -> Floats:
        """Accepted share of the pairs with exactly one end in the class."""
        return self.accepted / self.negative_pairs

    @property
    def class_frr(self) -> Floats:
        """Rejected share of the class's own pairs; NaN for a class without one."""
        return np.where(self.positive_pairs > 0, self.rejected / np.maximum(self.positive_pairs, 1), np.nan)


def measure_rates(pairs: Pairs, similarity: float) -> SplitRates:
    """Apply a threshold to all pairs.

    Args:
        pairs: of `dmlcore.metrics.inputs.build_pairs`.
        similarity: of the `Threshold`.
    """
    found = count_accepted(pairs, similarity)
    return SplitRates(
        pairs.class_ids,
        pairs.row_count if pairs.symmetric else pairs.row_count + pairs.col_count,
        pairs.positive_pairs,
        pairs.positive_pairs - found.positive,
        pairs.negative_pairs,
        found.negative,
        accept_rate(pairs, found),
        reject_rate(pairs, found),
        not pairs.symmetric,
    )
