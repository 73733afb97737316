"""Operating points over all pairs: the distance at a false-accept rate, and the equal error rate.

Shapes: F false-accept rates, M negative pairs, P positive pairs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics.inputs import Pairs
from dmlcore.metrics.keys import (
    HIGH_BINS,
    LOW_BINS,
    LOW_BITS,
    equal_error_bin,
    from_the_top,
    key_to_float,
    share_count,
)
from dmlcore.metrics.positives import key_counts
from dmlcore.metrics.sweep import Sweep

GLOBAL_FAR = 0.01  # the operating point of Evaluation.frr and .far
REPORTED_FARS = (0.1, 0.01, 0.001, 0.0001)

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class OperatingPoints:
    """`similarity`: of the ceil(f M)-th nearest negative pair, for each rate f; `equal_error_rate` in 0..1."""

    similarity: dict[float, float]
    equal_error_rate: float


def operating_points(
    pairs: Pairs, sweep: Sweep, negatives: Counts, rates: set[float], budget_bytes: int
) -> OperatingPoints:
    """Resolve each rate's distance, and the crossing of FAR and FRR, from `negatives`: pairs by upper key.

    The distance at FAR f is the ceil(f M)-th smallest of the M negative distances: an order statistic, never
    interpolated. Equal error rate: (FAR + FRR) / 2 at the smallest distance where FAR >= FRR, FAR = share of the
    negative pairs with distance <= d, FRR = share of the positive pairs with distance > d.
    """
    total = int(pairs.positive_pairs.sum()), pairs.total_negatives
    ranks = {rate: share_count(rate, total[1]) for rate in sorted(rates)}
    places = {rate: from_the_top(negatives, rank) for rate, rank in ranks.items()}
    positives = key_counts(pairs, LOW_BITS, HIGH_BINS, [0], budget_bytes)[0]
    crossing = equal_error_bin(positives, negatives, (0, 0), total)
    bases = sorted({place for place, _ in places.values()} | {max(crossing, sweep.lowest_bin)})
    low = dict(zip(bases, sweep.count_low_keys(bases), strict=True))
    similarity = {}
    for rate, (place, above) in places.items():
        key, _ = from_the_top(low[place], ranks[rate] - above)
        similarity[rate] = key_to_float((place << LOW_BITS) + key)
    over = int(positives[crossing + 1 :].sum()), int(negatives[crossing + 1 :].sum())
    if crossing < sweep.lowest_bin:
        inside = int(positives[crossing]), int(negatives[crossing])
        return OperatingPoints(similarity, _interpolated(over, inside, total))
    near = key_counts(pairs, 0, LOW_BINS, [crossing << LOW_BITS], budget_bytes)[0]
    return OperatingPoints(similarity, _exact(near, low[crossing], over, total))


def _exact(positives: Counts, negatives: Counts, above: tuple[int, int], total: tuple[int, int]) -> float:
    at = equal_error_bin(positives, negatives, above, total)
    false_accept = (above[1] + int(negatives[at:].sum())) / total[1]
    false_reject = 1.0 - (above[0] + int(positives[at:].sum())) / total[0]
    return (false_accept + false_reject) / 2.0


def _interpolated(above: tuple[int, int], inside: tuple[int, int], total: tuple[int, int]) -> float:
    """Where both rates, straight lines across one bin (a 2^-11 part of its similarity), cross."""
    far, frr = above[1] / total[1], 1.0 - above[0] / total[0]
    slope = inside[1] / total[1] + inside[0] / total[0]
    return far + (frr - far) / slope * inside[1] / total[1]
