"""Ranks of a query's positives by counting the negatives above each, and the retrieval metrics from them.

A positive that has R negatives and better positives above it can no longer enter any metric, so each query carries
a rising bar: negatives under its lowest positive still in play are turned away by one comparison.

Shapes: Q queries, P = sum of R over the queries.
"""

from dataclasses import dataclass

import torch


@dataclass
class Ranks:
    """Queries first..last-1: `values [P]` highest first per query, `start [Q + 1]`, `live [Q]` positives in play,
    `limit [Q]` = max(R, largest k), `bar [Q]` lowest positive in play, `above [2, P]`: negatives from a value up to the
    next better one, met as the row's query and as the column's."""

    first: int
    last: int
    values: torch.Tensor
    start: torch.Tensor
    live: torch.Tensor
    limit: torch.Tensor
    bar: torch.Tensor
    above: torch.Tensor

    @classmethod
    def of(cls, first: int, last: int, values: torch.Tensor, start: torch.Tensor, largest_k: int) -> "Ranks":
        """Ranks of nothing yet: no negative seen."""
        count = start.diff()
        bar = torch.full((last - first,), torch.inf, device=values.device)
        bar[count > 0] = values[start[1:][count > 0] - 1]
        above = torch.zeros(2, len(values), dtype=torch.int32, device=values.device)
        return cls(first, last, values, start, count.clone(), count.clamp(min=largest_k), bar, above)


def rank_of_positives(ranks: Ranks) -> torch.Tensor:
    """Rank [P] from 1, a negative at equal similarity counting as above; wrong, and beyond the limit, past `live`."""
    count = ranks.start.diff()
    running = torch.cat([ranks.start.new_zeros(1), ranks.above.sum(0).cumsum(0)])
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


def query_scores(ranks: Ranks, ks: tuple[int, ...]) -> torch.Tensor:
    """Recall at each k, average precision at R and R-precision of each query, [Q, ks + 2]; zeros without positive."""
    count = ranks.start.diff()
    query = torch.arange(len(count), device=count.device).repeat_interleave(count)
    place = torch.arange(len(query), device=count.device) - ranks.start[:-1].repeat_interleave(count)
    rank = torch.where(place < ranks.live[query], rank_of_positives(ranks).double(), torch.inf)
    relevant = (rank <= count[query]).double() / count[query]
    scores = torch.zeros(len(count), len(ks) + 2, dtype=torch.float64, device=count.device)
    best = rank[ranks.start[:-1].clamp(max=len(rank) - 1)]
    scores[:, : len(ks)] = (best[:, None] <= torch.tensor(ks, device=best.device)) & (count > 0)[:, None]
    scores[:, -2].index_add_(0, query, relevant * (place + 1) / rank)
    scores[:, -1].index_add_(0, query, relevant)
    return scores
