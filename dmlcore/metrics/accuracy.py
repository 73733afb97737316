"""Accuracy over all pairs: retrieval metrics by query, verification rates over pooled pairs.

Shapes: Q queries, F false-accept rates, M negative pairs, P positive pairs.
"""

from dataclasses import dataclass
from itertools import pairwise

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
from dmlcore.metrics.pairwise.ranks import Ranks
from dmlcore.metrics.pairwise.sweep import Sweep

BYTES_PER_POSITIVE = 16  # its similarity and two counts, and its share of what is stored for a query


def query_slices(pairs: Pairs, budget_bytes: int) -> list[tuple[int, int]]:
    """Divide the queries into runs whose positives fit the budget together, at least one query each."""
    cost = np.cumsum(pairs.positives_of_row) * BYTES_PER_POSITIVE
    edges = [0]
    while edges[-1] < len(cost):
        spent = int(cost[edges[-1] - 1]) if edges[-1] else 0
        fit = int(np.searchsorted(cost, spent + budget_bytes, side="right"))
        edges.append(max(fit, edges[-1] + 1))
    return list(pairwise(edges))


def ranks_of_all(pairs: Pairs, sweep: Sweep, ks: tuple[int, ...], budget_bytes: int) -> Ranks | None:
    """Make the ranks of all queries, to be filled by the pass that counts keys; None where they do not fit."""
    slices = query_slices(pairs, budget_bytes)
    return sweep.new_ranks(*slices[0], max(ks)) if len(slices) == 1 else None


def retrieval_metrics(
    pairs: Pairs, sweep: Sweep, filled: Ranks | None, ks: tuple[int, ...], budget_bytes: int
) -> dict[str, float]:
    """Compute R@k, MAP@R and R-precision, means over the queries that have a positive.

    recall_at_k: share of queries with a positive of rank <= k. map_at_r: (1/R) sum over the positives of rank <= R of
    (positives up to it) / rank. r_precision: (1/R) #{positives of rank <= R}. R = the query's positives.
    Reference: Musgrave et al., A Metric Learning Reality Check, 2020, section 3.2.
    """
    parts = [] if filled is None else [sweep.query_scores(filled, ks)]
    for first, last in [] if filled is not None else query_slices(pairs, budget_bytes):
        ranks = sweep.new_ranks(first, last, max(ks))
        sweep.count_ranks(ranks)
        parts.append(sweep.query_scores(ranks, ks))
    counted = np.concatenate(parts)[pairs.positives_of_row > 0]
    names = [*(f"recall_at_{k}" for k in ks), "map_at_r", "r_precision"]
    means: dict[str, float] = dict(zip(names, counted.mean(axis=0).tolist(), strict=True))
    left_out = len(pairs.row_class) - len(counted)
    return means | {"num_queries": len(counted), "num_queries_without_positive": left_out}


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
