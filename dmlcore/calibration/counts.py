"""Accepted pairs at one threshold, class by class.

Shapes: N images, C classes; of a strip, whole classes that follow one another: k classes.

The accepted pairs between each two classes are a table A [C, C]. Where every image is compared with every other, it is
a triangle, of which a strip at a time is in memory. Where queries are compared with a gallery (query's class, gallery
image's class), all of it is: 8 C^2 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.metrics.inputs import Pairs
from dmlcore.metrics.pairwise.tiles import Tile, multiply_tile, one_thread

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
ROWS, COLUMNS = 512, 8192  # 16 MiB of similarities at a time


@dataclass(frozen=True)
class Accepted:
    """`positive [C]`: of the class's own pairs; `negative [C]`: of the pairs with exactly one end in the class.

    Over the pairs of classes i < j: a_ij of their m_ij pairs are accepted, `square_sum` = sum of a_ij^2, `cross_sum` =
    sum of a_ij m_ij.
    """

    positive: Ints
    negative: Ints
    square_sum: float
    cross_sum: float


def count_accepted(pairs: Pairs, similarity: float) -> Accepted:
    """Count the pairs of at least `similarity`, a float32: unordered ones, or those of a query and a gallery image."""
    count = _count_strip if pairs.symmetric else _table
    threads = torch.get_num_threads()
    # A strip a thread, each product on its own thread: as in metrics.pairwise, no barrier to wait at.
    with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        parts: list[Any] = list(
            pool.map(lambda strip: count(pairs, strip[0], strip[1], similarity), _strips(pairs))
        )
    return _sum(parts) if pairs.symmetric else _from_table(np.concatenate(parts), pairs)


def _sum(parts: list[Accepted]) -> Accepted:
    return Accepted(
        np.sum([part.positive for part in parts], axis=0),
        np.sum([part.negative for part in parts], axis=0),
        sum(part.square_sum for part in parts),
        sum(part.cross_sum for part in parts),
    )


def _from_table(table: Ints, pairs: Pairs) -> Accepted:
    """Read the counts off A [C, C] of queries and gallery: a_ij = A_ij + A_ji, m_ij = q_i g_j + q_j g_i."""
    positive = table.diagonal().copy()
    both = table + table.T
    np.fill_diagonal(both, 0)
    accepted = both.astype(np.float64)
    queries, gallery = (counts.astype(np.float64) for counts in (pairs.row_count, pairs.col_count))
    cross = float(queries @ (accepted @ gallery))
    return Accepted(positive, both.sum(axis=1), float(np.vdot(accepted, accepted)) / 2.0, cross)


def _strips(pairs: Pairs) -> Iterator[tuple[int, int]]:
    """Yield runs of classes first..last-1 of at least 512 images, the last run of fewer."""
    ends, first = np.cumsum(pairs.row_count), 0
    while first < len(ends):
        before = int(ends[first - 1]) if first else 0
        last = min(int(np.searchsorted(ends, before + ROWS)) + 1, len(ends))
        yield first, last
        first = last


def _count_strip(pairs: Pairs, first: int, last: int, similarity: float) -> Accepted:
    """Count the pairs whose lower class is one of first..last-1."""
    table = _table(pairs, first, last, similarity)
    own = np.arange(last - first), np.arange(first, last)
    positive, negative = np.zeros(table.shape[1], np.int64), np.zeros(table.shape[1], np.int64)
    positive[first:last] = table[own]
    table[own] = 0
    negative[first:last] = table.sum(axis=1)
    negative += table.sum(axis=0)
    accepted, images = table.astype(np.float64), pairs.row_count.astype(np.float64)
    cross = float(images[first:last] @ (accepted @ images))
    return Accepted(positive, negative, float(np.vdot(accepted, accepted)), cross)


def _table(pairs: Pairs, first: int, last: int, similarity: float) -> Ints:
    """Count rows first..last-1 of A, [k, C], positive pairs on its diagonal; of its triangle where `symmetric`."""
    table = np.zeros((last - first, len(pairs.row_count)), dtype=np.int64)
    start = int(pairs.row_count[:first].sum())
    end = start + int(pairs.row_count[first:last].sum())
    for row in range(start, end, ROWS):
        stop = min(row + ROWS, end)
        classes, at = np.unique(pairs.row_class[row:stop], return_index=True)
        for col in range(row if pairs.symmetric else 0, len(pairs.col_class), COLUMNS):
            tile = Tile(row, stop, col, min(col + COLUMNS, len(pairs.col_class)))
            others, by_class = _by_column_class(pairs, tile, similarity)
            table[np.ix_(classes - first, others)] += np.add.reduceat(by_class, at, axis=0)
    return table


def _by_column_class(pairs: Pairs, tile: Tile, similarity: float) -> tuple[Ints, NDArray[np.int32]]:
    """Return the m classes of the tile's columns, and each row's accepted pairs with them, [rows, m]."""
    row, stop, col, end = tile
    block, bounds = multiply_tile(pairs, tile)
    top, left = row - bounds.block_row, col - bounds.block_col
    reached = block[top : top + stop - row, left : left + end - col] >= similarity
    accepted = reached.cpu().numpy()
    if pairs.symmetric and col < stop:  # each pair once, and no image with itself
        accepted &= np.arange(col, end)[None, :] > np.arange(row, stop)[:, None]
    others, at = np.unique(pairs.col_class[col:end], return_index=True)
    return others, np.add.reduceat(accepted, at, axis=1, dtype=np.int32)
