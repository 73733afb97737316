"""The positive pairs, a few hundred rows at a time: they lie in a band along the diagonal of the sorted matrix.

Shapes: R a query's positives, P ordered positive pairs of a chunk.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.metrics.counts import Ints, Split
from dmlcore.metrics.inputs import ROW_MULTIPLE, Pairs
from dmlcore.metrics.pairwise.order_statistics import order_keys


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


def key_counts(pairs: Pairs, shift: int, bins: int, base: int, budget_bytes: int) -> Ints:
    """Positive pairs by `(key >> shift) - base`: [bins]."""
    counts = np.zeros(bins, dtype=np.int64)
    for chunk in positive_chunks(pairs, 0, len(pairs.row_class), budget_bytes):
        place = (order_keys(once(pairs, chunk).similarity).cpu().numpy() >> shift) - base
        counts += np.bincount(place[(place >= 0) & (place < bins)], minlength=bins)
    return counts


def positives_at(
    pairs: Pairs, cuts: NDArray[np.float32], splits: list[Split], budget_bytes: int
) -> tuple[Ints, NDArray[np.int32]]:
    """Positive pairs accepted at each cut: of whole classes [C, K], and with both ends in a half [S, 2, C, K]."""
    shape = (len(pairs.class_ids), len(cuts))
    whole, halves = np.zeros(shape, dtype=np.int64), np.zeros((len(splits), 2, *shape), dtype=np.int32)
    for chunk in positive_chunks(pairs, 0, len(pairs.row_class), budget_bytes):
        part = once(pairs, chunk)
        step = np.searchsorted(-cuts, -part.similarity.cpu().numpy())
        first = int(pairs.row_class[chunk.row[0]]) if len(chunk.row) else 0
        place = (pairs.row_class[part.row] - first) * (len(cuts) + 1) + step
        _add(whole, first, place)
        for (rows, cols), table in zip(splits, halves, strict=True):
            for half in range(2):
                _add(table[half], first, place[(rows[part.row] == half) & (cols[part.col] == half)])
    return whole.cumsum(axis=1), halves.cumsum(axis=-1, dtype=np.int32)


def _add(table: NDArray[np.signedinteger], first: int, place: Ints) -> None:
    steps = table.shape[1] + 1  # the last step: reached by no cut
    counts = np.bincount(place).astype(table.dtype)
    counts = np.pad(counts, (0, -len(counts) % steps)).reshape(-1, steps)
    table[first : first + len(counts)] += counts[:, :-1]
