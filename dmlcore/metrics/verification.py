"""Operating points over all pairs: the distance at a false-accept rate, and the equal error rate.

Shapes: F false-accept rates, M negative pairs, P positive pairs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics.inputs import Ints, Pairs
from dmlcore.metrics.pairwise.order_statistics import (
    LOW_BINS,
    LOW_BITS,
    bin_of_rank,
    equal_error_bin,
    key_to_float,
    share_count,
)
from dmlcore.metrics.pairwise.sweep import Sweep


@dataclass(frozen=True)
class OperatingPoints:
    """`similarity`: of the ceil(f M)-th nearest negative pair, for each rate f; `equal_error_rate` in 0..1."""

    similarity: dict[float, float]
    equal_error_rate: float


def operating_points(
    pairs: Pairs, sweep: Sweep, positives: Ints, negatives: Ints, rates: set[float]
) -> OperatingPoints:
    """Resolve each rate's distance, and the crossing of FAR and FRR, from both kinds of pairs by upper key.

    The distance at FAR f is the ceil(f M)-th smallest of the M negative distances: an order statistic, never
    interpolated. Equal error rate: (FAR + FRR) / 2 at the smallest distance where FAR >= FRR, FAR = share of the
    negative pairs with distance <= d, FRR = share of the positive pairs with distance > d. Where the sweep kept no
    pair as far down as the crossing, negatives are spread evenly over one upper key: within 1e-5 or so of the rate.
    """
    total = int(pairs.positive_pairs.sum()), pairs.total_negatives
    ranks = {rate: share_count(rate, total[1]) for rate in sorted(rates)}
    places = {rate: bin_of_rank(negatives, rank) for rate, rank in ranks.items()}
    crossing = equal_error_bin(positives, negatives, (0, 0), total)
    bases = sorted({place for place, _ in places.values()} | {max(crossing, sweep.lowest_bin)})
    low = dict(zip(bases, sweep.count_low_keys(bases), strict=True))
    similarity = {}
    for rate, (place, above) in places.items():
        key, _ = bin_of_rank(low[place], ranks[rate] - above)
        similarity[rate] = key_to_float((place << LOW_BITS) + key)
    over = int(positives[crossing + 1 :].sum()), int(negatives[crossing + 1 :].sum())
    near = sweep.positive_keys(0, crossing << LOW_BITS, LOW_BINS)
    if crossing >= sweep.lowest_bin:
        inside = low[crossing].astype(np.float64)
    else:
        inside = np.full(LOW_BINS, negatives[crossing] / LOW_BINS)
    return OperatingPoints(similarity, _error_rate(near, inside, over, total))


def _error_rate(
    positives: Ints, negatives: NDArray[np.float64], above: tuple[int, int], total: tuple[int, int]
) -> float:
    at = equal_error_bin(positives, negatives, above, total)
    false_accept = (above[1] + float(negatives[at:].sum())) / total[1]
    false_reject = 1.0 - (above[0] + int(positives[at:].sum())) / total[0]
    return (false_accept + false_reject) / 2.0
