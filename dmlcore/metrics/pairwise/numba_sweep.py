"""The sweep over all pairs on the CPU: one product of the upper triangle, each tile read while it is in the cache.

A thread multiplies a tile on its own and scans it at once. The similarities above a cutoff, found from a sample of the
columns so that it is under every threshold, are kept packed as far as the memory allows; later passes read them again
and multiply only the tiles that did not fit. The grid of tiles is fixed: the numbers are the same to the bit for every
memory bound and number of threads.
"""

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.metrics.inputs import Pairs, Split
from dmlcore.metrics.pairwise import count_kernels, scan_kernels
from dmlcore.metrics.pairwise.count_kernels import CutLookup, PositiveTables
from dmlcore.metrics.pairwise.order_statistics import HIGH_BINS, LOW_BINS, order_keys
from dmlcore.metrics.pairwise.ranks import RankArrays, Ranks, rank_arrays
from dmlcore.metrics.pairwise.scan_kernels import RANK_BOTH, RANK_NOTHING, RANK_ROWS
from dmlcore.metrics.pairwise.similarity_cutoff import (
    KEEP_EVERYTHING,
    KEEP_NOTHING,
    find_similarity_cutoff,
    is_low_enough,
)
from dmlcore.metrics.pairwise.sweep import Sweep
from dmlcore.metrics.pairwise.tiles import (
    HEIGHT,
    RUN_WIDTH,
    ColumnRange,
    Floats,
    PackedTile,
    Tile,
    TileBounds,
    Worker,
    diagonal_bands,
    visit_tiles,
)

Counts = NDArray[np.int64]
LOOKUP_BITS = 12  # log2 of the parts of the range of cuts: 16 KB, half of the first-level cache
SAMPLE = 256  # columns
CODES_IN_32_BITS = 1 << 24  # codes above the cutoff that fit 32 bits with the 8 of the column


class NumbaSweep(Sweep):
    """Counts in compiled loops over tiles that are still in the cache.

    Args:
        pairs: whose similarities are counted.
        memory_bytes: bound on the packed similarities that are kept.
        largest_far, largest_distance: the farthest thresholds that will be asked for.
        threads: of the passes over all tiles; everything else is on the calling thread.
    """

    def __init__(
        self,
        pairs: Pairs,
        memory_bytes: int,
        largest_far: float,
        largest_distance: float | None,
        threads: int,
    ) -> None:
        self.pairs, self.free_bytes, self.threads = pairs, memory_bytes, threads
        self.largest_far, self.largest_distance = largest_far, largest_distance
        self.kept: dict[Tile, PackedTile] = {}
        self.cutoff = KEEP_EVERYTHING
        self.own = ColumnRange(pairs.own_start, pairs.own_end)
        self.same = ColumnRange(pairs.same_start, pairs.same_end)
        # Of a triangle, positives after the row's own group: each unordered pair once.
        self.once = ColumnRange(pairs.same_end, pairs.own_end) if pairs.symmetric else self.own
        # Of a triangle, columns before the row's own class are pairs that another row counts.
        self.skip = (
            ColumnRange(np.zeros_like(pairs.own_start), pairs.own_end) if pairs.symmetric else self.own
        )

    @property
    def lowest_bin(self) -> int:
        return self.cutoff.lowest_bin

    def new_ranks(self, first: int, last: int, largest_k: int) -> Ranks:
        count = self.pairs.positives_of_row[first:last]
        start = np.concatenate([[0], np.cumsum(count)])
        values, fill = np.empty(start[-1], dtype=np.float32), start.copy()
        for block, bounds in diagonal_bands(self.pairs, first, last):
            count_kernels.gather_positives(block.numpy(), bounds, self.own, self.same, first, fill, values)
        sort_segments(values, start)
        return Ranks.empty(first, last, torch.from_numpy(values), torch.from_numpy(start), largest_k)

    def count_keys(self, ranks: Ranks | None, positives: Counts) -> Counts:
        """Count negative pairs by the upper bits of their key, [HIGH_BINS]; fill `ranks` in the same pass.

        A cutoff that turns out too high costs a second pass with a lower one; ranks are complete after the first.
        """
        sample = self._sample(ranks)
        slack = 1.0
        while True:
            self.cutoff = find_similarity_cutoff(
                self.pairs, sample, positives, self.largest_far, self.largest_distance, slack
            )
            counts = self._scan_all(ranks)
            if is_low_enough(self.pairs, self.cutoff, counts, positives, self.largest_far):
                return counts
            ranks, slack = None, slack * 2.0
            self.free_bytes += sum(tile.nbytes for tile in self.kept.values())
            self.kept.clear()

    def _sample(self, ranks: Ranks | None) -> Counts:
        """Count the keys of some columns' negatives, and raise the thresholds of `ranks` by them."""
        counts, arrays = np.zeros(HIGH_BINS, dtype=np.int64), rank_arrays(ranks)
        classes, width = self.pairs.row_class, len(self.pairs.col_class)
        step = max(1, width // SAMPLE)
        cols, sampled = self.pairs.cols[:width:step], self.pairs.col_class[::step].copy()
        for row in range(0, len(classes), HEIGHT):
            stop = min(row + HEIGHT, len(classes))
            block = (self.pairs.rows[row : row + HEIGHT] @ cols.T).numpy()
            if ranks is not None:
                scan_kernels.prime_thresholds(block, row, stop, classes, sampled, arrays)
            count_kernels.count_sample_keys(block.view(np.int32), row, stop, classes, sampled, counts)
        return counts

    def _scan_all(self, ranks: Ranks | None) -> Counts:
        arrays = rank_arrays(ranks)
        mode = RANK_NOTHING if ranks is None else RANK_BOTH if self.pairs.symmetric else RANK_ROWS

        def visit(worker: Worker, tile: Tile) -> None:
            block, bounds = worker.multiply(self.pairs, tile)
            with worker.column_lock(tile):
                found = self._scan(worker, block, bounds, mode, arrays)
            if self.cutoff.count_all:
                count_kernels.count_all_keys(block.view(np.int32), bounds, self.skip, worker.histogram)
            else:
                count_kernels.count_packed_keys(found.packed, self.cutoff.key, worker.histogram)
            if found.nbytes <= self.free_bytes:  # unlocked: a race overdraws by a tile or two
                self.free_bytes -= found.nbytes
                self.kept[tile] = PackedTile(found.packed, found.run_start.copy())

        workers = visit_tiles(self.pairs, self.threads, self.pairs.symmetric, visit)
        return np.asarray(np.sum([worker.histogram for worker in workers], axis=0))

    def _scan(
        self, worker: Worker, block: Floats, bounds: TileBounds, mode: int, arrays: RankArrays
    ) -> PackedTile:
        """Scan a tile; of the result, `run_start` is the worker's buffer."""
        number, seen = scan_kernels.scan_tile(
            block, bounds, self.skip, self.cutoff, worker.buffers, mode, arrays
        )
        runs = (bounds.stop - bounds.row) * -(-(bounds.end - bounds.col) // RUN_WIDTH)
        # Half the memory in the usual case; the copy also frees the buffer for the thread's next tile.
        width: type[np.unsignedinteger] = np.uint32 if seen < CODES_IN_32_BITS else np.uint64
        return PackedTile(worker.buffers.packed[:number].astype(width), worker.buffers.run_start[: runs + 1])

    def _packed(self, worker: Worker, tile: Tile) -> PackedTile:
        if tile in self.kept:
            return self.kept[tile]
        block, bounds = worker.multiply(self.pairs, tile)
        return self._scan(worker, block, bounds, RANK_NOTHING, rank_arrays(None))

    def count_ranks(self, ranks: Ranks) -> None:
        arrays = rank_arrays(ranks)

        def visit(worker: Worker, tile: Tile) -> None:
            block, bounds = worker.multiply(self.pairs, tile)
            scan_kernels.scan_tile(block, bounds, self.own, KEEP_NOTHING, worker.buffers, RANK_ROWS, arrays)

        visit_tiles(self.pairs, self.threads, False, visit, ranks.first, ranks.last)

    def query_scores(self, ranks: Ranks, ks: tuple[int, ...]) -> NDArray[np.float64]:
        scores = np.zeros((ranks.last - ranks.first, len(ks) + 2))
        scan_kernels.score_queries(rank_arrays(ranks), np.array(ks), scores)
        return scores

    def count_low_keys(self, bases: list[int]) -> Counts:
        slots = np.full(HIGH_BINS, -1, dtype=np.int8)
        slots[bases] = np.arange(len(bases))
        shape = (len(bases), LOW_BINS)

        def visit(worker: Worker, tile: Tile) -> None:
            packed = self._packed(worker, tile).packed
            count_kernels.count_low_keys(packed, self.cutoff.key, slots, worker.table("low", shape))

        workers = visit_tiles(self.pairs, self.threads, self.pairs.symmetric, visit)
        return np.asarray(np.sum([worker.table("low", shape) for worker in workers], axis=0))

    def count_at(self, cuts: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        images = (len(self.pairs.row_class), len(self.pairs.col_class))
        by_row, by_col = (np.zeros((number, len(cuts) + 1), dtype=np.int32) for number in images)
        lookup, shape = cut_lookup(cuts), (RUN_WIDTH, len(cuts) + 1)

        def visit(worker: Worker, tile: Tile) -> None:
            packed, run_start = self._packed(worker, tile)
            rows, cols = by_row[tile.row : tile.stop], by_col[tile.col : tile.end]
            runs, scratch = -(-(tile.end - tile.col) // RUN_WIDTH), worker.first_cut
            table = worker.table("columns", shape, np.uint16)  # a run has at most 512 rows: no overflow
            with worker.column_lock(tile):
                count_kernels.count_by_cut(
                    packed, run_start, runs, self.cutoff.key, lookup, scratch, table, rows, cols
                )

        visit_tiles(self.pairs, self.threads, self.pairs.symmetric, visit)
        return by_row[:, :-1], by_col[:, :-1]

    def sum_by_class(
        self, table: NDArray[np.int32], classes: Counts, taken: NDArray[np.bool_], total: Counts
    ) -> None:
        count_kernels.sum_by_class(table, classes, taken, total)

    def positive_keys(self, shift: int, base: int, bins: int) -> Counts:
        counts = np.zeros(bins, dtype=np.int64)
        for block, bounds in diagonal_bands(self.pairs, 0, len(self.pairs.row_class)):
            bits = block.numpy().view(np.int32)
            count_kernels.count_positive_keys(bits, bounds, self.once, self.same, shift, base, counts)
        return counts

    def positives_at(
        self, cuts: NDArray[np.float32], splits: list[Split]
    ) -> tuple[Counts, NDArray[np.int32]]:
        shape = (len(self.pairs.class_ids), len(cuts) + 1)
        whole, halves = np.zeros(shape, dtype=np.int64), np.zeros((len(splits), 2, *shape), dtype=np.int32)
        rows, cols = (np.stack([split[side] for split in splits]) for side in range(2))
        tables, lookup = PositiveTables(self.pairs.row_class, rows, cols, whole, halves), cut_lookup(cuts)
        for block, bounds in diagonal_bands(self.pairs, 0, len(self.pairs.row_class)):
            bits = block.numpy().view(np.int32)
            count_kernels.count_positives_by_cut(bits, bounds, self.once, self.same, lookup, tables)
        for table in (whole, halves):
            np.cumsum(table, axis=-1, out=table)
        return whole[:, :-1], halves[..., :-1]


def sort_segments(values: Floats, start: Counts) -> None:
    """Sort values[start[i]:start[i + 1]] in place, highest first, for every i.

    By numpy, all neighbours of one length at a time: a compiled sort took a third of the time of a cold start.
    """
    np.negative(values, out=values)
    edges = np.flatnonzero(np.diff(start, n=2)) + 1
    for first, last in pairwise([0, *edges.tolist(), len(start) - 1]):
        length = int(start[first + 1] - start[first])
        if length > 1:
            values[start[first] : start[last]].reshape(-1, length).sort(axis=1)
    np.negative(values, out=values)


def cut_lookup(cuts: NDArray[np.float32]) -> CutLookup:
    """Prepare the search of the first cut that a key reaches, for descending cuts [K]."""
    keys = order_keys(torch.from_numpy(cuts.copy())).numpy()
    shift = max(0, int(keys[0] - keys[-1]).bit_length() - LOOKUP_BITS)
    last = keys[-1] + (np.arange(((keys[0] - keys[-1]) >> shift) + 2) + 1 << shift) - 1
    return CutLookup(keys, np.searchsorted(-keys, -last).astype(np.int32), shift)
