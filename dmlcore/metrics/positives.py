"""The positive pairs, a few hundred rows at a time: they lie in a band along the diagonal of the sorted matrix.

Shapes: R a query's positives, P ordered positive pairs of a chunk.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.metrics.inputs import ROW_MULTIPLE, Pairs
from dmlcore.metrics.keys import order_keys


@dataclass(frozen=True)
class PositiveChunk:
    """`similarity [P]` on the device, `row [P]` and `col [P]` on the host, row by row."""

    similarity: torch.Tensor
    row: NDArray[np.int64]
    col: NDArray[np.int64]


def positive_chunks(pairs: Pairs, first: int, last: int, budget_bytes: int) -> Iterator[PositiveChunk]:
    """Yield the positives of queries first..last-1; a class too large for the budget comes in slices of columns."""
    row = first
    while row < last:
        stop = min(last, row + ROW_MULTIPLE)
        yield from _band(pairs, row, stop, max(ROW_MULTIPLE, budget_bytes // (64 * ROW_MULTIPLE)))
        row = stop


def _band(pairs: Pairs, row: int, stop: int, width: int) -> Iterator[PositiveChunk]:
    left, right = int(pairs.own_start[row]), int(pairs.own_end[stop - 1])
    for start in range(left, right, width):
        yield _chunk(pairs, row, stop, start, min(right, start + width))


def _chunk(pairs: Pairs, row: int, stop: int, start: int, end: int) -> PositiveChunk:
    height, width = len(pairs.rows), len(pairs.cols)
    r0, c0 = min(row, height - ROW_MULTIPLE), min(start, width - ROW_MULTIPLE)
    c1 = max(end, c0 + ROW_MULTIPLE)
    block = pairs.rows[r0 : r0 + ROW_MULTIPLE] @ pairs.cols[c0:c1].T
    mine = pairs.row_class[row:stop, None] == pairs.col_class[None, start:end]
    if pairs.symmetric:
        mine &= np.arange(row, stop)[:, None] != np.arange(start, end)[None, :]
    r, c = np.nonzero(mine)
    at = torch.from_numpy(np.stack([r + row - r0, c + start - c0])).to(block.device)
    return PositiveChunk(block[at[0], at[1]], r + row, c + start)


def sorted_positives(pairs: Pairs, first: int, last: int, budget_bytes: int) -> torch.Tensor:
    """Each query's positive similarities, highest first, query after query: [sum of R], on the device."""
    chunks = list(positive_chunks(pairs, first, last, budget_bytes))
    values = torch.cat([chunk.similarity for chunk in chunks])
    rows = torch.from_numpy(np.concatenate([chunk.row for chunk in chunks])).to(values.device)
    falling = torch.argsort(values, descending=True, stable=True)
    return values[falling[torch.argsort(rows[falling], stable=True)]]


def once(pairs: Pairs, chunk: PositiveChunk) -> PositiveChunk:
    """Each unordered pair once."""
    if not pairs.symmetric:
        return chunk
    keep = chunk.row < chunk.col
    index = torch.from_numpy(np.flatnonzero(keep)).to(chunk.similarity.device)
    return PositiveChunk(chunk.similarity[index], chunk.row[keep], chunk.col[keep])


def key_counts(pairs: Pairs, shift: int, bins: int, bases: list[int], budget_bytes: int) -> NDArray[np.int64]:
    """Positive pairs by `(key >> shift) - base`, for each base: [bases, bins]."""
    counts = np.zeros((len(bases), bins), dtype=np.int64)
    for chunk in positive_chunks(pairs, 0, len(pairs.row_class), budget_bytes):
        keys = order_keys(once(pairs, chunk).similarity).cpu().numpy() >> shift
        for line, base in zip(counts, bases, strict=True):
            inside = keys[(keys >= base) & (keys < base + bins)] - base
            line += np.bincount(inside, minlength=bins)
    return counts
