"""Retrieval metrics: R@k, MAP@R, R-precision, every gallery image ranked for every query.

Apart from verification.py, since MAP@R chooses the epoch: an edit there leaves trained weights valid.
"""

from itertools import pairwise

import numpy as np

from dmlcore.metrics.inputs import Pairs
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
