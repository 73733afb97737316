"""Retrieval metrics: R@k, MAP@R, R-precision, every gallery image ranked for every query."""

from itertools import pairwise

import numpy as np

from dmlcore.metrics.inputs import Pairs
from dmlcore.metrics.ranks import Ranks, build_ranks, retrieval_sums
from dmlcore.metrics.sweep import Sweep

BYTES_A_POSITIVE = 64  # sorting a slice of positives: values, rows, two permutations, ranks


def query_slices(pairs: Pairs, budget_bytes: int) -> list[tuple[int, int]]:
    """Runs of queries whose positives fit the budget together, at least one query each."""
    cost = np.cumsum(pairs.positives_of_row) * BYTES_A_POSITIVE
    edges = [0]
    while edges[-1] < len(cost):
        spent = int(cost[edges[-1] - 1]) if edges[-1] else 0
        fit = int(np.searchsorted(cost, spent + budget_bytes, side="right"))
        edges.append(max(fit, edges[-1] + 1))
    return list(pairwise(edges))


def whole_ranks(pairs: Pairs, ks: tuple[int, ...], budget_bytes: int) -> Ranks | None:
    """Ranks of all queries, to be filled by the walk that counts keys anyway; None where they do not fit."""
    slices = query_slices(pairs, budget_bytes)
    return build_ranks(pairs, *slices[0], max(ks), budget_bytes) if len(slices) == 1 else None


def retrieval_metrics(
    pairs: Pairs, sweep: Sweep, filled: Ranks | None, ks: tuple[int, ...], budget_bytes: int
) -> dict[str, float]:
    """R@k, MAP@R and R-precision, means over the queries that have a positive.

    recall_at_k: share of queries with a positive of rank <= k. map_at_r: (1/R) sum over the positives of rank <= R of
    (positives up to it) / rank. r_precision: (1/R) #{positives of rank <= R}. R = the query's positives.
    Reference: Musgrave et al., A Metric Learning Reality Check, 2020, section 3.2.
    """
    slices = [] if filled is not None else query_slices(pairs, budget_bytes)
    sums = np.zeros(len(ks) + 3) if filled is None else retrieval_sums(filled, ks)
    for first, last in slices:
        ranks = build_ranks(pairs, first, last, max(ks), budget_bytes)
        sweep.count_ranks(ranks)
        sums += retrieval_sums(ranks, ks)
    means = [float(value) for value in sums[:-1] / sums[-1]]
    names = [*(f"recall_at_{k}" for k in ks), "map_at_r", "r_precision"]
    left_out = len(pairs.row_class) - int(sums[-1])
    return dict(zip(names, means, strict=True)) | {
        "num_queries": int(sums[-1]),
        "num_queries_without_positive": left_out,
    }
