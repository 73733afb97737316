"""Ranks of a query's positives by counting the negatives above each, and the retrieval metrics from them.

A positive that has R negatives and better positives above it can no longer enter any metric, so each query has a rising
threshold, the lowest positive that still counts: one comparison is enough for a negative below it.

Shapes: Q queries, P = sum of R over the queries.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray


class RankArrays(NamedTuple):
    """The arrays of a Ranks for the kernels, sharing its memory."""

    first: int
    values: NDArray[np.float32]
    start: NDArray[np.int64]
    active: NDArray[np.int64]
    limit: NDArray[np.int64]
    threshold: NDArray[np.float32]
    above: NDArray[np.int32]


@dataclass
class Ranks:
    """Positives of the queries first..last-1 and the negatives counted above each.

    `values [P]`: similarities, highest first per query; `start [Q + 1]`: where each query's begin; `active [Q]`: how
    many still count; `limit [Q]`: max(R, largest k); `threshold [Q]`: the lowest active one; `above [2, P]`: negatives
    from a value up to the next better one, met with the query as a row and as a column.
    """

    first: int
    last: int
    values: torch.Tensor
    start: torch.Tensor
    active: torch.Tensor
    limit: torch.Tensor
    threshold: torch.Tensor
    above: torch.Tensor

    @classmethod
    def empty(
        cls, first: int, last: int, values: torch.Tensor, start: torch.Tensor, largest_k: int
    ) -> "Ranks":
        """Make the ranks before any negative was seen."""
        count = start.diff()
        threshold = torch.full((last - first,), torch.inf, device=values.device)
        threshold[count > 0] = values[start[1:][count > 0] - 1]
        above = torch.zeros(2, len(values), dtype=torch.int32, device=values.device)
        return cls(first, last, values, start, count.clone(), count.clamp(min=largest_k), threshold, above)


def rank_arrays(ranks: Ranks | None) -> RankArrays:
    """Return the arrays of `ranks`; dummies of the same types for None, since a kernel is compiled for types."""
    if ranks is None:
        ints, floats = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.float32)
        return RankArrays(0, floats, ints, ints, ints, floats, np.zeros((2, 1), dtype=np.int32))
    tensors = (ranks.values, ranks.start, ranks.active, ranks.limit, ranks.threshold, ranks.above)
    arrays: list[Any] = [tensor.numpy() for tensor in tensors]
    return RankArrays(ranks.first, *arrays)


def rank_of_positives(ranks: Ranks) -> torch.Tensor:
    """Return the rank [P] from 1, a negative at equal similarity counting as above.

    Past `active` ranks are too low, but beyond the limit all the same.
    """
    running = torch.cat([ranks.start.new_zeros(1), ranks.above.sum(0).cumsum(0)])
    query, place = _query_and_place(ranks)
    return place + 1 + running[1:] - running[ranks.start[:-1]][query]


def _query_and_place(ranks: Ranks) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the query [P] of each positive and its place [P], from 0, among the query's positives."""
    count = ranks.start.diff()
    query = torch.arange(len(count), device=count.device).repeat_interleave(count)
    return query, torch.arange(len(query), device=count.device) - ranks.start[:-1][query]


def update_thresholds(ranks: Ranks) -> None:
    """Drop every positive whose rank so far is past the query's limit."""
    query, place = _query_and_place(ranks)
    out = rank_of_positives(ranks) > ranks.limit[query]
    ranks.active.scatter_reduce_(0, query[out], place[out], "amin")
    last = ranks.start[:-1] + ranks.active - 1
    ranks.threshold.copy_(torch.where(ranks.active > 0, ranks.values[last.clamp(min=0)], torch.inf))


def query_scores(ranks: Ranks, ks: tuple[int, ...]) -> torch.Tensor:
    """Return recall at each k, average precision at R and R-precision of each query, [Q, ks + 2].

    A query without positive has zeros.
    """
    count = ranks.start.diff()
    query, place = _query_and_place(ranks)
    rank = torch.where(place < ranks.active[query], rank_of_positives(ranks).double(), torch.inf)
    size, relevant = count[query], (rank <= count[query]).double()
    scores = torch.zeros(len(count), len(ks) + 2, dtype=torch.float64, device=count.device)
    best = rank[ranks.start[:-1].clamp(max=len(rank) - 1)]
    scores[:, : len(ks)] = (best[:, None] <= torch.tensor(ks, device=best.device)) & (count > 0)[:, None]
    # In the order of the compiled one, so that both round alike.
    scores[:, -2].index_add_(0, query, relevant * ((place + 1) / rank / size))
    scores[:, -1].index_add_(0, query, relevant / size)
    return scores
