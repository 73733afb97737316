"""Ranks of a query's positives by counting the negatives above each, and the retrieval metrics from them.

A positive that has R negatives and better positives above it can no longer enter any metric, so each query carries
a rising bar: negatives under its lowest positive still in play are turned away by one comparison.

Shapes: Q queries, P = sum of R over the queries.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.metrics.inputs import Pairs
from dmlcore.metrics.positives import sorted_positives


@dataclass
class Ranks:
    """Queries first..last-1: `values [P]` highest first per query, `start [Q + 1]`, `live [Q]` positives in play,
    `limit [Q]` = max(R, largest k), `bar [Q]` lowest positive in play, `above [P]`: negatives from a value up to the
    next better one."""

    first: int
    last: int
    values: torch.Tensor
    start: torch.Tensor
    live: torch.Tensor
    limit: torch.Tensor
    bar: torch.Tensor
    above: torch.Tensor


def build_ranks(pairs: Pairs, first: int, last: int, largest_k: int, budget_bytes: int) -> Ranks:
    """Ranks of nothing yet: no negative seen."""
    values = sorted_positives(pairs, first, last, budget_bytes)
    count = torch.from_numpy(pairs.positives_of_row[first:last]).to(values.device)
    start = torch.cat([count.new_zeros(1), count.cumsum(0)])
    bar = torch.full((last - first,), torch.inf, device=values.device)
    bar[count > 0] = values[start[1:][count > 0] - 1]
    above = torch.zeros(len(values), dtype=torch.int32, device=values.device)
    return Ranks(first, last, values, start, count.clone(), count.clamp(min=largest_k), bar, above)


def rank_of_positives(ranks: Ranks) -> torch.Tensor:
    """Rank [P] from 1, a negative at equal similarity counting as above; wrong, and beyond the limit, past `live`."""
    count = ranks.start.diff()
    running = torch.cat([ranks.above.new_zeros(1, dtype=torch.int64), ranks.above.cumsum(0)])
    seen = running[1:] - running[ranks.start[:-1]].repeat_interleave(count)
    place = torch.arange(len(seen), device=seen.device) - ranks.start[:-1].repeat_interleave(count)
    return place + 1 + seen


def raise_bars(ranks: Ranks) -> None:
    """Drop from play every positive whose rank so far is past the query's limit."""
    count = ranks.start.diff()
    query = torch.arange(len(count), device=count.device).repeat_interleave(count)
    out = rank_of_positives(ranks) > ranks.limit.repeat_interleave(count)
    place = torch.arange(len(out), device=count.device) - ranks.start[:-1].repeat_interleave(count)
    ranks.live.scatter_reduce_(0, query[out], place[out], "amin")
    last = ranks.start[:-1] + ranks.live - 1
    ranks.bar.copy_(torch.where(ranks.live > 0, ranks.values[last.clamp(min=0)], torch.inf))


def retrieval_sums(ranks: Ranks, ks: tuple[int, ...]) -> NDArray[np.float64]:
    """Sums over the queries with a positive of recall at each k, average precision, R-precision; then their number."""
    count = ranks.start.diff()
    rank = rank_of_positives(ranks).double()
    place = torch.arange(len(rank), device=rank.device) - ranks.start[:-1].repeat_interleave(count)
    size = count.repeat_interleave(count)
    rank = torch.where(place < ranks.live.repeat_interleave(count), rank, torch.inf)
    relevant = (rank <= size) / size
    best = rank[ranks.start[:-1][count > 0]]
    sums = [(best <= k).sum().item() for k in ks]
    sums += [(relevant * (place + 1) / rank).sum().item(), relevant.sum().item(), len(best)]
    return np.array(sums, dtype=np.float64)
