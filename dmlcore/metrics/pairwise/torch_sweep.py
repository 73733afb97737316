"""The sweep over all pairs in plain torch operations: any device, and the reference of the compiled one.

Tiles of the upper triangle (or of the whole rectangle), the classes sorted, so that a row's non-negatives are one range
of columns, and positives a band along the diagonal. Three passes, each a fresh product: count keys and ranks; resolve
the keys; count at the thresholds.

Shapes: R a query's positives, P ordered positive pairs of a chunk.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from dmlcore.metrics.inputs import ROW_MULTIPLE, Ints, Pairs, Split
from dmlcore.metrics.pairwise.order_statistics import (
    HIGH_BINS,
    LOW_BINS,
    LOW_BITS,
    order_keys,
    order_keys_int32,
)
from dmlcore.metrics.pairwise.ranks import Ranks, query_scores, update_thresholds
from dmlcore.metrics.pairwise.sweep import Sweep
from dmlcore.metrics.pairwise.tiles import (
    HEIGHT,
    WIDTH,
    PositiveChunk,
    Tile,
    diagonal_bands,
    multiply_tile,
    upper_triangle,
)

# An element of a tile costs its similarity, two masks and three int32 keys; only the pairs of a few rows at a time
# (a slab) get int64 indices, counts and values.
BYTES_PER_PAIR, BYTES_PER_INDEXED_PAIR = 20, 64
LARGEST_TILE = 8192


@dataclass(frozen=True)
class NegativeTile:
    """`block [h, w]`: similarities of the tile whose corner is (row, col); `valid [h, w]`: its negatives to count."""

    row: int
    col: int
    block: torch.Tensor
    valid: torch.Tensor


class TorchSweep(Sweep):
    """Counts in torch operations.

    Args:
        pairs: whose similarities are counted.
        memory_bytes: bound on the working memory of a tile.
        share: each process of torch.distributed counts its share of the tiles; the sums are those of one process.
        compiled_grid: multiply the tiles of `NumbaSweep`, whose bits these are then.
    """

    def __init__(
        self, pairs: Pairs, memory_bytes: int, share: bool = False, compiled_grid: bool = False
    ) -> None:
        self.pairs, self.budget_bytes = pairs, memory_bytes // 4
        self.part, self.parts = (distributed.get_rank(), distributed.get_world_size()) if share else (0, 1)
        side = int((memory_bytes // 2 // BYTES_PER_PAIR) ** 0.5) // ROW_MULTIPLE * ROW_MULTIPLE
        side = min(max(side, ROW_MULTIPLE), LARGEST_TILE)
        self.height, self.width = (HEIGHT, WIDTH) if compiled_grid else (side, side)
        self.slab_pairs = memory_bytes // 4 // BYTES_PER_INDEXED_PAIR

    @property
    def lowest_bin(self) -> int:
        return 0

    def new_ranks(self, first: int, last: int, largest_k: int) -> Ranks:
        chunks = list(self._positives(first, last))
        values = torch.cat([chunk.similarity for chunk in chunks])
        rows = torch.from_numpy(np.concatenate([chunk.row for chunk in chunks])).to(values.device)
        falling = torch.argsort(values, descending=True, stable=True)
        values = values[falling[torch.argsort(rows[falling], stable=True)]]
        count = torch.from_numpy(self.pairs.positives_of_row[first:last]).to(values.device)
        return Ranks.empty(first, last, values, torch.cat([count.new_zeros(1), count.cumsum(0)]), largest_k)

    def query_scores(self, ranks: Ranks, ks: tuple[int, ...]) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = query_scores(ranks, ks).cpu().numpy()
        return scores

    def positive_keys(self, shift: int, base: int, bins: int) -> Ints:
        counts = np.zeros(bins, dtype=np.int64)
        for chunk in self._unordered_positives():
            place = (order_keys(chunk.similarity).cpu().numpy() >> shift) - base
            counts += np.bincount(place[(place >= 0) & (place < bins)], minlength=bins)
        return counts

    def positives_at(self, cuts: NDArray[np.float32], splits: list[Split]) -> tuple[Ints, NDArray[np.int32]]:
        shape = (len(self.pairs.class_ids), len(cuts))
        whole, halves = np.zeros(shape, dtype=np.int64), np.zeros((len(splits), 2, *shape), dtype=np.int32)
        for chunk in self._unordered_positives():
            cut = np.searchsorted(-cuts, -chunk.similarity.cpu().numpy())
            classes = self.pairs.row_class[chunk.row]
            first = int(classes[0]) if len(classes) else 0
            place = (classes - first) * (len(cuts) + 1) + cut
            _add_counts(whole, first, place)
            for (rows, cols), table in zip(splits, halves, strict=True):
                for half in range(2):
                    _add_counts(
                        table[half], first, place[(rows[chunk.row] == half) & (cols[chunk.col] == half)]
                    )
        return whole.cumsum(axis=1), halves.cumsum(axis=-1, dtype=np.int32)

    def count_keys(self, ranks: Ranks | None, positives: Ints) -> Ints:
        counts = torch.zeros(HIGH_BINS, dtype=torch.int64, device=self.pairs.rows.device)
        for tile in self._tiles():
            # Pairs that do not count get bins of their own, many of them: on a GPU additions to one bin take turns.
            upper = order_keys_int32(tile.block) >> LOW_BITS
            upper += HIGH_BINS // 2
            upper = torch.where(tile.valid, upper, (upper & (LOW_BINS - 1)) + HIGH_BINS)
            counts += torch.bincount(upper.view(-1), minlength=HIGH_BINS + LOW_BINS)[:HIGH_BINS]
            del upper
            if ranks is not None:
                self._count_above(ranks, tile.row, tile.block, tile.valid)
                if self.pairs.symmetric:
                    self._count_above(ranks, tile.col, tile.block.T, tile.valid.T)
                update_thresholds(ranks)
        self._merge(ranks)
        return np.asarray(self._sum(counts).cpu().numpy())

    def count_ranks(self, ranks: Ranks) -> None:
        for tile in self._tiles(ranks.first, ranks.last, triangle=False):
            self._count_above(ranks, tile.row, tile.block, tile.valid)
            update_thresholds(ranks)
        self._merge(ranks)

    def _merge(self, ranks: Ranks | None) -> None:
        """Add the counts of all processes up. What one dropped is past its limit in the sum as well."""
        if ranks is not None and self.parts > 1:
            self._sum(ranks.above)
            distributed.all_reduce(ranks.active, distributed.ReduceOp.MIN)
            update_thresholds(ranks)

    def _sum(self, counts: torch.Tensor) -> torch.Tensor:
        if self.parts > 1:
            distributed.all_reduce(counts)
        return counts

    def count_low_keys(self, bases: list[int]) -> Ints:
        counts = torch.zeros(len(bases), LOW_BINS, dtype=torch.int64, device=self.pairs.rows.device)
        for tile in self._tiles():
            keys = order_keys_int32(tile.block)
            for line, base in zip(counts, bases, strict=True):
                of_base = (keys >> LOW_BITS == base - HIGH_BINS // 2) & tile.valid
                line += torch.bincount(keys[of_base] & (LOW_BINS - 1), minlength=LOW_BINS)
        return np.asarray(self._sum(counts).cpu().numpy())

    def count_at(self, cuts: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        falling = torch.from_numpy(cuts.copy()).to(self.pairs.rows.device)
        shapes = [(len(x), len(cuts)) for x in (self.pairs.row_class, self.pairs.col_class)]
        by_row, by_col = (torch.zeros(shape, dtype=torch.int32, device=falling.device) for shape in shapes)
        for tile in self._tiles():
            for row, block, valid in self._slabs(tile.row, tile.block, tile.valid):
                r, c = (valid & (block >= falling[-1])).nonzero(as_tuple=True)
                k = torch.searchsorted(-falling, -block[r, c])
                for table, index in ((by_row, r + row), (by_col, c + tile.col)):
                    _count_into(table.view(-1), index * len(cuts) + k)
        return self._sum(by_row).cpu().numpy(), self._sum(by_col).cpu().numpy()

    def _slabs(
        self, row: int, block: torch.Tensor, valid: torch.Tensor
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Yield the rows of a block that begins at `row`, few enough at a time that indices of all pairs would fit."""
        height = max(1, self.slab_pairs // block.shape[1])
        for first, part in enumerate(torch.split(block, height)):
            yield row + first * height, part, valid[first * height : first * height + len(part)]

    def _count_above(self, ranks: Ranks, row: int, block: torch.Tensor, valid: torch.Tensor) -> None:
        """Count the negatives of a block above the positives of its rows' queries, which begin at `row`."""
        # How often the longest range of positives can be halved; known here, so that no step asks the device for it.
        steps = int(self.pairs.positives_of_row.max()).bit_length()
        for first, part, mask in self._slabs(row, block, valid):
            offset = first - ranks.first
            reached = part >= ranks.threshold[offset : offset + len(part), None]
            query, other = (mask & reached).nonzero(as_tuple=True)
            value, query = part[query, other], query + offset
            low, high = ranks.start[query], ranks.start[query] + ranks.active[query] - 1
            for _ in range(steps):  # the best positive that the negative reaches, by bisection
                middle = (low + high) // 2
                passes = value >= ranks.values[middle]
                low, high = torch.where(passes, low, middle + 1), torch.where(passes, middle, high)
            _count_into(ranks.above[0], low)

    def _tiles(
        self, first: int = 0, last: int | None = None, triangle: bool | None = None
    ) -> Iterator[NegativeTile]:
        """Yield this process's tiles of rows first..last-1, by default of all; of the triangle of unordered pairs."""
        pairs, device, width = self.pairs, self.pairs.rows.device, len(self.pairs.col_class)
        last = len(pairs.row_class) if last is None else last
        triangle = pairs.symmetric if triangle is None else triangle
        number = 0
        for row in range(first, last, self.height):
            stop = min(row + self.height, last)
            low = np.zeros(stop - row, dtype=np.int64) if triangle else pairs.own_start[row:stop]
            start, end = (torch.from_numpy(x).to(device)[:, None] for x in (low, pairs.own_end[row:stop]))
            for col in range(row // self.width * self.width if triangle else 0, width, self.width):
                number += 1
                if number % self.parts != self.part:
                    continue
                tile = Tile(row, stop, col, min(col + self.width, width))
                similarity, bounds = multiply_tile(pairs, tile)
                r, c = row - bounds.block_row, col - bounds.block_col
                block = similarity[r : r + stop - row, c : c + tile.end - col].clamp(max=1)
                at = torch.arange(col, tile.end, device=device)
                yield NegativeTile(row, col, block, (at < start) | (at >= end))

    def _positives(self, first: int, last: int) -> Iterator[PositiveChunk]:
        """Yield the positives of queries first..last-1; a class too large for the budget comes in slices of columns."""
        pairs = self.pairs
        width = max(ROW_MULTIPLE, self.budget_bytes // (64 * ROW_MULTIPLE))
        for block, (row, stop, col, end, block_row, block_col) in diagonal_bands(pairs, first, last, width):
            mine = pairs.row_class[row:stop, None] == pairs.col_class[None, col:end]
            mine &= pairs.row_group[row:stop, None] != pairs.col_group[None, col:end]
            r, c = np.nonzero(mine)
            at = torch.from_numpy(np.stack([r + row - block_row, c + col - block_col])).to(block.device)
            yield PositiveChunk(block[at[0], at[1]].clamp_(max=1), r + row, c + col)

    def _unordered_positives(self) -> Iterator[PositiveChunk]:
        """Yield all positives, each unordered pair once."""
        for chunk in self._positives(0, len(self.pairs.row_class)):
            yield upper_triangle(chunk) if self.pairs.symmetric else chunk


def _count_into(table: torch.Tensor, index: torch.Tensor) -> None:
    """Add 1 to `table` at each `index`. Sums of integers need no deterministic kernel, which would sort them first."""
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        table.index_add_(0, index, torch.ones_like(index, dtype=table.dtype))
    finally:
        torch.set_deterministic_debug_mode(mode)


def _add_counts(table: NDArray[np.signedinteger], first: int, place: Ints) -> None:
    """Add to `table [C, K]`, from class `first` on, how often each class x (K + 1) + cut is in `place`."""
    stride = table.shape[1] + 1  # the last one: reaches no cut
    counts = np.bincount(place).astype(table.dtype)
    counts = np.pad(counts, (0, -len(counts) % stride)).reshape(-1, stride)
    table[first : first + len(counts)] += counts[:, :-1]
