"""The walk over all pairs in plain torch operations: any device, and the twin that the numba walk is tested against.

Tiles of the upper triangle (or of the whole rectangle), the classes sorted, so that a row's non-negatives are one range
of columns. Three walks, each a fresh product: count keys and ranks; resolve the keys; count at the thresholds.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.metrics.counts import Split
from dmlcore.metrics.inputs import ROW_MULTIPLE, Pairs
from dmlcore.metrics.pairwise.order_statistics import HIGH_BINS, LOW_BINS, LOW_BITS, order_keys
from dmlcore.metrics.pairwise.positives import key_counts, positives_at, sorted_positives
from dmlcore.metrics.pairwise.ranks import Ranks, query_scores, raise_bars

BYTES_A_PAIR = 64  # similarity, masks, two int64 indices, keys: what one element of a tile costs at its worst
LARGEST_TILE = 8192


class TorchSweep:
    """Counts over all negative pairs. `pairs`: what to walk; `memory_bytes`: bound on the tile's working memory."""

    lowest_bin = 0

    def __init__(self, pairs: Pairs, memory_bytes: int) -> None:
        self.pairs, self.budget_bytes = pairs, memory_bytes // 4
        side = int((memory_bytes // BYTES_A_PAIR) ** 0.5) // ROW_MULTIPLE * ROW_MULTIPLE
        self.side = min(max(side, ROW_MULTIPLE), LARGEST_TILE)

    def new_ranks(self, first: int, last: int, largest_k: int) -> Ranks:
        """The positives of queries first..last-1, sorted, no negative seen yet."""
        values = sorted_positives(self.pairs, first, last, self.budget_bytes)
        count = torch.from_numpy(self.pairs.positives_of_row[first:last]).to(values.device)
        return Ranks.of(first, last, values, torch.cat([count.new_zeros(1), count.cumsum(0)]), largest_k)

    def query_scores(self, ranks: Ranks, ks: tuple[int, ...]) -> NDArray[np.float64]:
        """Recall at each k, average precision at R, R-precision of each query, [Q, ks + 2]."""
        return query_scores(ranks, ks).cpu().numpy()

    def positive_keys(self, shift: int, base: int, bins: int) -> NDArray[np.int64]:
        """Positive pairs by `(key >> shift) - base`, [bins]."""
        return key_counts(self.pairs, shift, bins, base, self.budget_bytes)

    def positives_at(
        self, cuts: NDArray[np.float32], splits: list[Split]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Positive pairs accepted at each cut: of whole classes [C, K], and within halves [S, 2, C, K]."""
        return positives_at(self.pairs, cuts, splits, self.budget_bytes)

    def count_keys(self, ranks: Ranks | None, positives: NDArray[np.int64]) -> NDArray[np.int64]:
        """Negative pairs by the upper bits of their key, [HIGH_BINS]; fills `ranks` on the way."""
        counts = torch.zeros(HIGH_BINS, dtype=torch.int64, device=self.pairs.rows.device)
        for row, col, block, valid in self._tiles(0, len(self.pairs.row_class), self.pairs.symmetric):
            counts += torch.bincount(order_keys(block[valid]) >> LOW_BITS, minlength=HIGH_BINS)
            if ranks is not None:
                self._rank(ranks, row, col, block, valid, self.pairs.symmetric)
        return counts.cpu().numpy()

    def count_ranks(self, ranks: Ranks) -> None:
        """Fill `ranks` of a slice of the queries alone, against every column."""
        for row, col, block, valid in self._tiles(ranks.first, ranks.last, False):
            self._rank(ranks, row, col, block, valid, False)

    def count_low_keys(self, bases: list[int]) -> NDArray[np.int64]:
        """Negative pairs by the lower bits of their key, for each upper key in `bases`: [bases, LOW_BINS]."""
        counts = np.zeros((len(bases), LOW_BINS), dtype=np.int64)
        for _, _, block, valid in self._tiles(0, len(self.pairs.row_class), self.pairs.symmetric):
            keys = order_keys(block[valid])
            for line, base in zip(counts, bases, strict=True):
                low = keys[keys >> LOW_BITS == base] & (LOW_BINS - 1)
                line += torch.bincount(low, minlength=LOW_BINS).cpu().numpy()
        return counts

    def count_at(self, cuts: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Negatives of each row and column image whose highest cut they reach is the k-th: [Q, K] and [G, K]."""
        steps = torch.from_numpy(cuts.copy()).to(self.pairs.rows.device)
        shapes = [(len(x), len(cuts)) for x in (self.pairs.row_class, self.pairs.col_class)]
        by_row, by_col = (torch.zeros(shape, dtype=torch.int32, device=steps.device) for shape in shapes)
        for row, col, block, valid in self._tiles(0, len(self.pairs.row_class), self.pairs.symmetric):
            r, c = (valid & (block >= steps[-1])).nonzero(as_tuple=True)
            k = torch.searchsorted(-steps, -block[r, c])
            for table, index in ((by_row, r + row), (by_col, c + col)):
                table.view(-1).index_add_(0, index * len(cuts) + k, torch.ones_like(k, dtype=torch.int32))
        return by_row.cpu().numpy(), by_col.cpu().numpy()

    def _tiles(
        self, first: int, last: int, triangle: bool
    ) -> Iterator[tuple[int, int, torch.Tensor, torch.Tensor]]:
        width = len(self.pairs.col_class)
        for row in range(first, last, self.side):
            for col in range(row // self.side * self.side if triangle else 0, width, self.side):
                yield self._tile(row, min(row + self.side, last), col, min(col + self.side, width), triangle)

    def _tile(
        self, row: int, stop: int, col: int, end: int, triangle: bool
    ) -> tuple[int, int, torch.Tensor, torch.Tensor]:
        pairs, device = self.pairs, self.pairs.rows.device
        r0, c0 = min(row, len(pairs.rows) - ROW_MULTIPLE), min(col, len(pairs.cols) - ROW_MULTIPLE)
        block = pairs.rows[r0 : max(stop, r0 + ROW_MULTIPLE)] @ pairs.cols[c0 : max(end, c0 + ROW_MULTIPLE)].T
        low = np.zeros(stop - row, dtype=np.int64) if triangle else pairs.own_start[row:stop]
        at = torch.arange(col, end, device=device)
        own = (at >= torch.from_numpy(low).to(device)[:, None]) & (
            at < torch.from_numpy(pairs.own_end[row:stop]).to(device)[:, None]
        )
        return row, col, block[row - r0 : stop - r0, col - c0 : end - c0].contiguous(), ~own

    def _rank(
        self, ranks: Ranks, row: int, col: int, block: torch.Tensor, valid: torch.Tensor, columns: bool
    ) -> None:
        _count_above(ranks, row - ranks.first, block, valid)
        if columns:
            _count_above(ranks, col - ranks.first, block.T, valid.T)
        raise_bars(ranks)


def _count_above(ranks: Ranks, offset: int, block: torch.Tensor, valid: torch.Tensor) -> None:
    query, other = (valid & (block >= ranks.bar[offset : offset + len(block), None])).nonzero(as_tuple=True)
    value, query = block[query, other], query + offset
    low, high = ranks.start[query], ranks.start[query] + ranks.live[query] - 1
    while bool((low < high).any()):  # the best positive that the negative reaches, by bisection
        middle = (low + high) // 2
        reached = value >= ranks.values[middle]
        low, high = torch.where(reached, low, middle + 1), torch.where(reached, middle, high)
    ranks.above[0].index_add_(0, low, torch.ones_like(low, dtype=torch.int32))
