"""The walk over all pairs on the CPU: one product of the upper triangle, each tile consumed while it is in the cache.

A thread multiplies a tile on its own and walks it at once (kernels.py). The similarities above a floor, found from a
sample of the columns so that it lies under every threshold, are kept packed as far as the memory goes; later walks read
them again and multiply only the tiles that did not fit. The grid of tiles is fixed: the numbers are the same to the bit
for every memory bound and number of threads.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.metrics.counts import Split
from dmlcore.metrics.inputs import Pairs
from dmlcore.metrics.pairwise import kernels
from dmlcore.metrics.pairwise.order_statistics import HIGH_BINS, LOW_BINS, order_keys
from dmlcore.metrics.pairwise.ranks import Ranks
from dmlcore.metrics.pairwise.similarity_cutoff import Floor, find_similarity_cutoff, is_low_enough
from dmlcore.metrics.pairwise.tiles import HEIGHT, Tile, Window, Worker, bands, walk

Counts = NDArray[np.int64]
Packed = tuple[NDArray[np.unsignedinteger], NDArray[np.int32]]  # similarities, where each run of them starts
GUIDE_BITS = 12  # parts of the range in which a similarity looks up its step
SAMPLE = 256  # columns
NARROW = 1 << 24  # keys above the floor that fit 32 bits beside the column


class NumbaSweep:
    """See sweep.Sweep. `largest_far`, `largest_distance`: the farthest thresholds that will be asked for; `threads`:
    for the walks, everything else is on the calling thread."""

    def __init__(
        self,
        pairs: Pairs,
        memory_bytes: int,
        largest_far: float,
        largest_distance: float | None,
        threads: int,
    ) -> None:
        self.pairs, self.free_bytes, self.wanted = pairs, memory_bytes, (largest_far, largest_distance)
        self.threads = threads
        self.kept: dict[Tile, Packed] = {}
        self.floor = Floor(np.float32(-np.inf), 0, True)
        skip_start = np.zeros_like(pairs.own_start) if pairs.symmetric else pairs.own_start
        self.skip, self.own = (skip_start, pairs.own_end), (pairs.own_start, pairs.own_end)

    @property
    def lowest_bin(self) -> int:
        return self.floor.lowest_bin

    def new_ranks(self, first: int, last: int, largest_k: int) -> Ranks:
        """The positives of queries first..last-1, sorted, no negative seen yet."""
        count = self.pairs.positives_of_row[first:last]
        start = np.concatenate([[0], np.cumsum(count)])
        values, fill = np.empty(start[-1], dtype=np.float32), start.copy()
        for block, window in bands(self.pairs, first, last):
            kernels.fill_positives(block, window, self.own, self.pairs.symmetric, first, fill, values)
        kernels.sort_each(values, start)
        return Ranks.of(first, last, torch.from_numpy(values), torch.from_numpy(start), largest_k)

    def count_keys(self, ranks: Ranks | None, positives: Counts) -> Counts:
        """Negative pairs by the upper bits of their key, [HIGH_BINS]; fills `ranks` on the way."""
        sample = self._sample(ranks)
        share = 1.0
        while True:
            self.floor = find_similarity_cutoff(self.pairs, sample, positives, *self.wanted, share)
            counts = self._collect_all(ranks)
            if is_low_enough(self.pairs, self.floor, counts, positives, self.wanted[0]):
                return counts
            ranks, share = None, share * 2.0
            self.free_bytes += sum(packed.nbytes + runs.nbytes for packed, runs in self.kept.values())
            self.kept.clear()

    def _sample(self, ranks: Ranks | None) -> Counts:
        counts, arrays, classes = (
            np.zeros(HIGH_BINS, dtype=np.int64),
            rank_arrays(ranks),
            self.pairs.row_class,
        )
        step = max(1, len(self.pairs.col_class) // SAMPLE)
        cols, others = (
            self.pairs.cols[: len(self.pairs.col_class) : step],
            self.pairs.col_class[::step].copy(),
        )
        for row in range(0, len(classes), HEIGHT):
            stop = min(row + HEIGHT, len(classes))
            block = (self.pairs.rows[row : row + HEIGHT] @ cols.T).numpy()
            if ranks is not None:
                kernels.try_sample(block, row, stop, classes, others, arrays)
            kernels.count_sample_keys(block.view(np.int32), row, stop, classes, others, counts)
        return counts

    def _collect_all(self, ranks: Ranks | None) -> Counts:
        arrays, mode = rank_arrays(ranks), 0 if ranks is None else 1 + int(self.pairs.symmetric)

        def visit(worker: Worker, tile: Tile) -> None:
            block, window = worker.multiply(self.pairs, tile)
            with worker.columns(tile):
                packed, runs = self._collect(worker, block, window, self.skip, mode, arrays)
            if self.floor.count_all:
                kernels.count_all_keys(block.view(np.int32), window, self.skip, worker.histogram)
            else:
                kernels.count_packed_keys(packed, self.floor.key, worker.histogram)
            self._keep(tile, packed, runs)

        return np.sum(
            [worker.histogram for worker in walk(self.pairs, self.threads, self.pairs.symmetric, visit)],
            axis=0,
        )

    def _collect(
        self, worker: Worker, block: Any, window: Window, skip: Any, mode: int, arrays: tuple[Any, ...]
    ) -> Packed:
        floor = (self.floor.similarity, self.floor.key)
        number, seen = kernels.collect(block, window, skip, floor, worker.scratch, mode, arrays)
        packed = worker.scratch[2][:number]
        runs = (window[1] - window[0]) * -(-(window[3] - window[2]) // kernels.RUN)
        return packed.astype(np.uint32 if seen < NARROW else np.uint64), worker.scratch[3][: runs + 1]

    def _keep(self, tile: Tile, packed: Any, runs: Any) -> None:
        if packed.nbytes + runs.nbytes <= self.free_bytes:
            self.free_bytes -= packed.nbytes + runs.nbytes
            self.kept[tile] = packed, runs.copy()

    def _packed(self, worker: Worker, tile: Tile) -> Packed:
        if tile in self.kept:
            return self.kept[tile]
        return self._collect(worker, *worker.multiply(self.pairs, tile), self.skip, 0, rank_arrays(None))

    def count_ranks(self, ranks: Ranks) -> None:
        """Fill `ranks` of a slice of the queries alone, against every column."""
        arrays, nothing = rank_arrays(ranks), (np.float32(np.inf), 1 << 32)

        def visit(worker: Worker, tile: Tile) -> None:
            block, window = worker.multiply(self.pairs, tile)
            kernels.collect(block, window, self.own, nothing, worker.scratch, 1, arrays)

        walk(self.pairs, self.threads, False, visit, ranks.first, ranks.last)

    def query_scores(self, ranks: Ranks, ks: tuple[int, ...]) -> NDArray[np.float64]:
        """Recall at each k, average precision at R, R-precision of each query, [Q, ks + 2]."""
        scores = np.zeros((ranks.last - ranks.first, len(ks) + 2))
        kernels.retrieval(rank_arrays(ranks), np.array(ks), scores)
        return scores

    def count_low_keys(self, bases: list[int]) -> Counts:
        """Negative pairs by the lower bits of their key, for each upper key in `bases`: [bases, LOW_BINS]."""
        slots = np.full(HIGH_BINS, -1, dtype=np.int8)
        slots[bases] = np.arange(len(bases))
        shape = (len(bases), LOW_BINS)

        def visit(worker: Worker, tile: Tile) -> None:
            packed, _ = self._packed(worker, tile)
            kernels.count_low_keys(packed, self.floor.key, slots, worker.table("low", shape))

        workers = walk(self.pairs, self.threads, self.pairs.symmetric, visit)
        return np.sum([worker.table("low", shape) for worker in workers], axis=0)

    def count_at(self, cuts: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Negatives of each row and column image whose highest cut they reach is the k-th: [Q, K] and [G, K]."""
        images = (len(self.pairs.row_class), len(self.pairs.col_class))
        by_row, by_col = (np.zeros((number, len(cuts) + 1), dtype=np.int32) for number in images)
        steps = step_guide(cuts)

        def visit(worker: Worker, tile: Tile) -> None:
            packed, runs = self._packed(worker, tile)
            rows, cols = by_row[tile.row : tile.stop], by_col[tile.col : tile.end]
            across = -(-(tile.end - tile.col) // kernels.RUN)
            room = worker.step, worker.table("columns", (kernels.RUN, len(cuts) + 1), np.uint16)
            with worker.columns(tile):
                kernels.count_steps(packed, runs, across, self.floor.key, steps, room, rows, cols)

        walk(self.pairs, self.threads, self.pairs.symmetric, visit)
        return by_row[:, :-1], by_col[:, :-1]

    def positive_keys(self, shift: int, base: int, bins: int) -> Counts:
        """Positive pairs by `(key >> shift) - base`, [bins]."""
        counts = np.zeros(bins, dtype=np.int64)
        for block, window in bands(self.pairs, 0, len(self.pairs.row_class)):
            bits = block.view(np.int32)
            kernels.positive_keys(bits, window, self.own, self.pairs.symmetric, shift, base, counts)
        return counts

    def positives_at(
        self, cuts: NDArray[np.float32], splits: list[Split]
    ) -> tuple[Counts, NDArray[np.int32]]:
        """Positive pairs accepted at each cut: of whole classes [C, K], and within halves [S, 2, C, K]."""
        shape = (len(self.pairs.class_ids), len(cuts) + 1)
        whole, halves = np.zeros(shape, dtype=np.int64), np.zeros((len(splits), 2, *shape), dtype=np.int32)
        rows, cols = (np.stack([split[side] for split in splits]) for side in range(2))
        tables, steps = (self.pairs.row_class, rows, cols, whole, halves), step_guide(cuts)
        for block, window in bands(self.pairs, 0, len(self.pairs.row_class)):
            bits = block.view(np.int32)
            kernels.positive_steps(bits, window, self.own, self.pairs.symmetric, steps, tables)
        for table in (whole, halves):
            np.cumsum(table, axis=-1, out=table)
        return whole[:, :-1], halves[..., :-1]


def rank_arrays(ranks: Ranks | None) -> tuple[Any, ...]:
    """(start, live, limit, values, above, bar, first) for the kernels, sharing memory; dummies for none."""
    if ranks is None:
        whole, real = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.float32)
        return whole, whole, whole, real, np.zeros((2, 1), dtype=np.int32), real, 0
    parts = (ranks.start, ranks.live, ranks.limit, ranks.values, ranks.above, ranks.bar)
    return *(part.numpy() for part in parts), ranks.first


def step_guide(cuts: NDArray[np.float32]) -> tuple[Counts, Counts, int]:
    """Cut keys [K]; for equal parts of their range the first step that a key of the part may reach; log2 of a part."""
    keys = order_keys(torch.from_numpy(cuts.copy())).numpy()
    shift = max(0, int(keys[0] - keys[-1]).bit_length() - GUIDE_BITS)
    last = keys[-1] + (np.arange(((keys[0] - keys[-1]) >> shift) + 2) + 1 << shift) - 1
    return keys, np.searchsorted(-keys, -last).astype(np.int32), shift
