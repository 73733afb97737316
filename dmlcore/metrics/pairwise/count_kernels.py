"""Compiled counts over pairs: by the bits of their key, by the first cut that they reach, and by class.

Names and shapes as in tiles.py. Keys are counted by their upper bits first, by their lower bits within a few bins later
(order_statistics.py), so that counts stay small and every order statistic is exact.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics.pairwise.compiling import compiled, order_key
from dmlcore.metrics.pairwise.order_statistics import LOW_BINS, LOW_BITS
from dmlcore.metrics.pairwise.tiles import RUN_WIDTH, ColumnRange, TileBounds

LOW_MASK = LOW_BINS - 1
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bits = NDArray[np.int32]  # of float32 similarities
Packed = NDArray[np.unsignedinteger]


class CutLookup(NamedTuple):
    """Descending cut keys [K], and for equal parts of their range, of 2^shift keys, the first cut in reach.

    `first` is right to a few steps; a short search from there replaces a bisection of all cuts.
    """

    keys: Ints
    first: NDArray[np.int32]
    shift: int


class PositiveTables(NamedTuple):
    """Counts by first cut reached: `whole [C, K + 1]`, `halves [S, 2, C, K + 1]`, and whose each pair is.

    `row_class [Q]`; `row_half [S, Q]` and `col_half [S, G]`: the half of each image in each split.
    """

    row_class: Ints
    row_half: Ints
    col_half: Ints
    whole: Ints
    halves: NDArray[np.int32]


@compiled
def count_packed_keys(packed: Packed, cutoff_key: int, histogram: Ints) -> None:
    """Add packed similarities to the counts of their upper keys."""
    for k in range(len(packed)):
        histogram[((np.int64(packed[k]) >> 8) + cutoff_key) >> LOW_BITS] += 1


@compiled
def count_all_keys(bits: Bits, bounds: TileBounds, skip: ColumnRange, histogram: Ints) -> None:
    """Add every negative of a tile, `bits [.., ..]`, to the counts of their upper keys."""
    row, stop, col, end, block_row, block_col = bounds
    for i in range(row, stop):
        for j in range(col, end):
            if j < skip.start[i] or j >= skip.end[i]:
                histogram[order_key(bits[i - block_row, j - block_col]) >> LOW_BITS] += 1


@compiled
def count_sample_keys(
    bits: Bits, row: int, stop: int, row_class: Ints, sampled_class: Ints, histogram: Ints
) -> None:
    """Add the negatives among the sampled columns to the counts of their upper keys."""
    for i in range(stop - row):
        for j in range(len(sampled_class)):
            if sampled_class[j] != row_class[row + i]:
                histogram[order_key(bits[i, j]) >> LOW_BITS] += 1


@compiled
def count_low_keys(packed: Packed, cutoff_key: int, slots: NDArray[np.int8], counts: Ints) -> None:
    """Add packed similarities to the lower keys of their slot; `slots [HIGH_BINS]`: row of `counts`, or -1."""
    for k in range(len(packed)):
        key = (np.int64(packed[k]) >> 8) + cutoff_key
        slot = slots[key >> LOW_BITS]
        if slot >= 0:
            counts[slot, key & LOW_MASK] += 1


@compiled
def first_cut_reached(key: Any, cuts: CutLookup) -> Any:
    """Return the index of the first cut that `key` reaches, K for none."""
    keys, first, shift = cuts
    low = keys[len(keys) - 1]
    if key < low:
        return np.int64(len(keys))
    index = first[min((key - low) >> shift, len(first) - 1)]
    while key < keys[index]:
        index += 1
    return index


@compiled
def count_by_cut(
    packed: Packed,
    run_start: NDArray[np.int32],
    runs: int,
    cutoff_key: int,
    cuts: CutLookup,
    first_cut: NDArray[np.int32],
    run_counts: NDArray[np.uint16],
    by_row: NDArray[np.int32],
    by_col: NDArray[np.int32],
) -> None:
    """Count packed similarities by first cut reached, for the tile's row images and its column images, [.., K + 1].

    `runs`: of 256 columns, to a row; `first_cut [..]`: scratch; `run_counts [256, K + 1]`: counts of one run's columns,
    small enough for the cache (52 KB at 101 cuts). Separate loops let the look-ups overlap: 4 instead of 25 ns a
    similarity.
    """
    keys, first, shift = cuts
    low, last = keys[len(keys) - 1] - cutoff_key, len(first) - 1
    for k in range(len(packed)):
        first_cut[k] = first[max(0, min(((np.int64(packed[k]) >> 8) - low) >> shift, last))]
    for k in range(len(packed)):
        key = (np.int64(packed[k]) >> 8) + cutoff_key
        while first_cut[k] < len(keys) and key < keys[first_cut[k]]:
            first_cut[k] += 1
    for part in range(runs):
        run_counts[:] = 0
        for run in range(part, len(run_start) - 1, runs):
            for k in range(run_start[run], run_start[run + 1]):
                by_row[run // runs, first_cut[k]] += 1
                run_counts[np.int64(packed[k]) & 255, first_cut[k]] += 1
        for j in range(min(RUN_WIDTH, len(by_col) - part * RUN_WIDTH)):
            for k in range(len(keys) + 1):
                by_col[part * RUN_WIDTH + j, k] += run_counts[j, k]


@compiled
def gather_positives(
    block: Floats,
    bounds: TileBounds,
    own: ColumnRange,
    same: ColumnRange,
    first: int,
    fill: Ints,
    values: Floats,
) -> None:
    """Copy each query's positives in the bounds to `values`, from fill[query] on, which moves along.

    Positives: columns `own` of the row's class, but for those `same` of its group.
    """
    row, stop, col, end, block_row, block_col = bounds
    for i in range(row, stop):
        for j in range(max(col, own.start[i]), min(end, own.end[i])):
            if j < same.start[i] or j >= same.end[i]:
                values[fill[i - first]] = min(block[i - block_row, j - block_col], np.float32(1))
                fill[i - first] += 1


@compiled
def count_positive_keys(
    bits: Bits, bounds: TileBounds, once: ColumnRange, same: ColumnRange, shift: int, base: int, counts: Ints
) -> None:
    """Count each pair of columns `once`, without `same`, by `(key >> shift) - base`, where that is in range."""
    row, stop, col, end, block_row, block_col = bounds
    for i in range(row, stop):
        for j in range(max(col, once.start[i]), min(end, once.end[i])):
            place = (order_key(bits[i - block_row, j - block_col]) >> shift) - base
            if (j < same.start[i] or j >= same.end[i]) and 0 <= place < len(counts):
                counts[place] += 1


@compiled
def count_positives_by_cut(
    bits: Bits,
    bounds: TileBounds,
    once: ColumnRange,
    same: ColumnRange,
    cuts: CutLookup,
    tables: PositiveTables,
) -> None:
    """Count each pair of columns `once`, without `same`, by first cut reached: by class, and by half that holds it."""
    row, stop, col, end, block_row, block_col = bounds
    classes, row_half, col_half, whole, halves = tables
    for i in range(row, stop):
        for j in range(max(col, once.start[i]), min(end, once.end[i])):
            if same.start[i] <= j < same.end[i]:
                continue
            cut = first_cut_reached(order_key(bits[i - block_row, j - block_col]), cuts)
            whole[classes[i], cut] += 1
            for s in range(len(halves)):
                if row_half[s, i] == col_half[s, j]:
                    halves[s, row_half[s, i], classes[i], cut] += 1


@compiled
def sum_by_class(table: NDArray[np.int32], classes: Ints, taken: NDArray[np.bool_], total: Ints) -> None:
    """Add the rows of `table [N, K]` where `taken [N]` to their class's row of `total [C, K]`."""
    for i in range(len(classes)):
        if taken[i]:
            line = total[classes[i]]
            for k in range(table.shape[1]):
                line[k] += table[i, k]
