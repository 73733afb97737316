"""The inner loops over a tile of similarities that is still in the cache; names and shapes as in ranks.py and keys.py.

A `window` is (row, stop, col, end, block_row, block_col): rows row..stop-1 and columns col..end-1 of the sorted
matrix, at block[row - block_row, col - block_col]. Of each row, columns skip[0][row] to skip[1][row] are no negatives,
or are counted elsewhere. A packed similarity is (key - floor key) << 8 | column within its run of 256.

One file on purpose: numba's cache on disk notices a change only in the file of the function that it compiled, not in
those of the functions that this one calls.
"""

from typing import Any

import numpy as np
from numba import njit

from dmlcore.metrics.pairwise.order_statistics import LOW_BINS, LOW_BITS
from dmlcore.metrics.pairwise.simd import LANES, WIDE, sift16

LOW_MASK = LOW_BINS - 1
RUN = 256  # columns that eight bits tell apart
Kernel = Any  # numba's dispatchers and what they take carry no static types
compiled = njit(nogil=True, cache=True, error_model="numpy")


@compiled
def order_key(bits: Kernel) -> Kernel:
    """As keys.order_keys, of one float32's int32 bits."""
    return np.int64(bits ^ ((bits >> 31) & 0x7FFFFFFF)) + 2147483648


@compiled
def sift_slow(
    line: Kernel,
    start: Kernel,
    end: Kernel,
    bar: Kernel,
    bars: Kernel,
    found: Kernel,
    at: Kernel,
    count: Kernel,
) -> Kernel:
    for j in range(start, end):
        found[count] = line[j]
        at[count] = j
        count += line[j] >= min(bar, bars[j])
    return count


@compiled
def sift_wide(
    line: Kernel,
    start: Kernel,
    end: Kernel,
    bar: Kernel,
    bars: Kernel,
    found: Kernel,
    at: Kernel,
    count: Kernel,
) -> Kernel:
    lines, others, values, places = line.ctypes.data, bars.ctypes.data, found.ctypes.data, at.ctypes.data
    j = start
    while j + LANES <= end:
        count += sift16(
            lines + 4 * j, others + 4 * j, np.float32(bar), j, values + 4 * count, places + 4 * count
        )
        j += LANES
    return sift_slow(line, j, end, bar, bars, found, at, count)


sift = sift_wide if WIDE else sift_slow


@compiled
def rank_one(
    value: Kernel, query: Kernel, start: Kernel, live: Kernel, values: Kernel, above: Kernel
) -> None:
    """Count a negative against the best positive in play that it reaches."""
    low, high = start[query], start[query] + live[query] - 1
    if high < low or value < values[high]:
        return
    while low < high:
        middle = (low + high) // 2
        if value >= values[middle]:
            high = middle
        else:
            low = middle + 1
    above[low] += 1


@compiled
def raise_bar(
    query: Kernel, start: Kernel, live: Kernel, limit: Kernel, values: Kernel, above: Kernel, bar: Kernel
) -> None:
    """Drop the query's positives whose rank so far is past its limit; `above [2, P]`: as a row, as a column."""
    seen = 0
    first = start[query]
    for place in range(live[query]):
        seen += above[0, first + place] + above[1, first + place]
        if place + 1 + seen > limit[query]:
            live[query] = place
            bar[query] = values[first + place - 1] if place else np.inf
            return


@compiled
def try_sample(
    block: Kernel, row: Kernel, stop: Kernel, classes: Kernel, others: Kernel, ranks: Kernel
) -> None:
    """Raise the bars of rows row..stop-1 by a few columns, of classes `others [W]`, and forget their counts again."""
    start, live, limit, values, above, bar, first = ranks
    for i in range(stop - row):
        query = row + i - first
        for j in range(len(others)):
            if others[j] != classes[row + i] and block[i, j] >= bar[query]:
                rank_one(block[i, j], query, start, live, values, above[0])
        raise_bar(query, start, live, limit, values, above, bar)
        above[0, start[query] : start[query + 1]] = 0


@compiled
def retrieval(ranks: Kernel, ks: Kernel, scores: Kernel) -> None:
    """Recall at each k, average precision at R and R-precision of each query, into `scores [Q, ks + 2]`."""
    start, live, _, _, above, _, _ = ranks
    for query in range(len(live)):
        size, seen, base = start[query + 1] - start[query], 0, start[query]
        for place in range(live[query]):
            seen += above[0, base + place] + above[1, base + place]
            rank = place + 1 + seen
            if place == 0:
                for k in range(len(ks)):
                    scores[query, k] = rank <= ks[k]
            if rank <= size:
                scores[query, len(ks)] += (place + 1) / rank / size
                scores[query, len(ks) + 1] += 1.0 / size


@compiled
def sift_run(
    line: Kernel,
    start: Kernel,
    end: Kernel,
    skip: Kernel,
    bar: Kernel,
    bars: Kernel,
    found: Kernel,
    at: Kernel,
) -> Kernel:
    """Values of line[start:end], outside skip[0]..skip[1], that reach `bar` or their column's; returns how many."""
    count = sift(line, start, min(end, skip[0]), bar, bars, found, at, 0)
    return sift(line, max(start, skip[1]), end, bar, bars, found, at, count)


@compiled
def pack(bits: Kernel, at: Kernel, count: Kernel, floor_key: Kernel, packed: Kernel, start: Kernel) -> Kernel:
    """RawTar into packed[start:] the first `count` values, by their int32 bits, that reach the floor.

    All of them usually do, so that the loop without a test, several at a time, comes first. Returns their number and
    the bitwise or of their codes.
    """
    lowest, seen = np.int64(0), np.int64(0)
    for k in range(count):
        code = order_key(bits[k]) - floor_key
        lowest |= code  # negative as soon as one is
        seen |= max(code, 0)
        packed[start + k] = (code << 8) | (at[k] & 255)
    if lowest >= 0:
        return count, seen
    total = 0
    for k in range(count):
        code = order_key(bits[k]) - floor_key
        packed[start + total] = (code << 8) | (at[k] & 255)
        total += code >= 0
    return total, seen


@compiled
def rank_run(
    found: Kernel,
    at: Kernel,
    count: Kernel,
    query: Kernel,
    shift: Kernel,
    own_bar: Kernel,
    bars: Kernel,
    ranks: Kernel,
) -> None:
    """Rank the positives of a row's query, and of its columns' queries `at + shift`, by a run's candidates."""
    start, live, _, values, above, _, _ = ranks
    for k in range(count):
        if found[k] >= min(own_bar, bars[at[k]]):
            if found[k] >= own_bar:
                rank_one(found[k], query, start, live, values, above[0])
            if found[k] >= bars[at[k]]:
                rank_one(found[k], at[k] + shift, start, live, values, above[1])


@compiled
def collect(
    block: Kernel, window: Kernel, skip: Kernel, floor: Kernel, scratch: Kernel, mode: Kernel, ranks: Kernel
) -> Kernel:
    """Walk a tile once: rank the positives of its rows (mode 1), of its columns too (2); pack what reaches the floor.

    `floor`: (similarity, its key); `scratch`: see tiles.Worker; `ranks`: see numba_sweep.rank_arrays.
    Returns how many were packed, and the bitwise or of them all.
    """
    found, at, packed, run_start, bars = scratch
    start, live, limit, values, above, bar, first = ranks
    row, stop, col, end, block_row, block_col = window
    bits, width, total, run, seen = found.view(np.int32), end - col, 0, 0, 0
    for j in range(width):
        bars[j] = bar[col + j - first] if mode == 2 else np.float32(np.inf)
    for i in range(row, stop):
        line = block[i - block_row, col - block_col :]
        own_bar = bar[i - first] if mode else np.float32(np.inf)
        gap = max(0, skip[0][i] - col), max(0, skip[1][i] - col)
        for left in range(0, width, RUN):
            run_start[run] = total
            run += 1
            count = sift_run(line, left, min(width, left + RUN), gap, min(floor[0], own_bar), bars, found, at)
            reached, high = pack(bits, at, count, floor[1], packed, total)
            total += reached
            seen |= high
            if mode:
                rank_run(found, at, count, i - first, col - first, own_bar, bars, ranks)
        if mode:
            raise_bar(i - first, start, live, limit, values, above, bar)
    run_start[run] = total
    for j in range(width if mode == 2 else 0):
        raise_bar(col + j - first, start, live, limit, values, above, bar)
    return total, seen


@compiled
def count_packed_keys(packed: Kernel, floor_key: Kernel, histogram: Kernel) -> None:
    """Add packed similarities to the counts of their upper keys."""
    for k in range(len(packed)):
        histogram[((np.int64(packed[k]) >> 8) + floor_key) >> LOW_BITS] += 1


@compiled
def count_all_keys(bits: Kernel, window: Kernel, skip: Kernel, histogram: Kernel) -> None:
    """Add every negative of a tile, `bits [.., ..]` its int32 bits, to the counts of their upper keys."""
    row, stop, col, end, block_row, block_col = window
    for i in range(row, stop):
        for j in range(col, end):
            if j < skip[0][i] or j >= skip[1][i]:
                histogram[order_key(bits[i - block_row, j - block_col]) >> LOW_BITS] += 1


@compiled
def count_low_keys(packed: Kernel, floor_key: Kernel, slots: Kernel, counts: Kernel) -> None:
    """Add packed similarities to the lower keys of their slot; `slots [HIGH_BINS]`: row of `counts`, or -1."""
    for k in range(len(packed)):
        key = (np.int64(packed[k]) >> 8) + floor_key
        slot = slots[key >> LOW_BITS]
        if slot >= 0:
            counts[slot, key & LOW_MASK] += 1


@compiled
def step_of(key: Kernel, cuts: Kernel, guide: Kernel, shift: Kernel) -> Kernel:
    """First of the descending cut keys [K] that `key` reaches, K for none; `guide` is right to a few steps."""
    low = cuts[len(cuts) - 1]
    if key < low:
        return np.int64(len(cuts))
    step = guide[min((key - low) >> shift, len(guide) - 1)]
    while key < cuts[step]:
        step += 1
    return step


@compiled
def count_steps(
    packed: Kernel,
    run_start: Kernel,
    runs: Kernel,
    floor_key: Kernel,
    steps: Kernel,
    room: Kernel,
    by_row: Kernel,
    by_col: Kernel,
) -> None:
    """Count packed similarities by first cut reached, for the tile's row images and its column images, [.., K + 1].

    `runs`: of 256 columns, to a row; `steps`: (cut keys, guide, shift); `room`: for the steps
    found [..] and for counts of a run's columns [256, K + 1], small enough for the cache. Loops of their own, so that
    the look-ups overlap: 4 instead of 25 ns a similarity.
    """
    cuts, guide, shift = steps
    step, counts = room
    low, last = cuts[len(cuts) - 1] - floor_key, len(guide) - 1
    for k in range(len(packed)):
        step[k] = guide[max(0, min(((np.int64(packed[k]) >> 8) - low) >> shift, last))]
    for k in range(len(packed)):
        key = (np.int64(packed[k]) >> 8) + floor_key
        while step[k] < len(cuts) and key < cuts[step[k]]:
            step[k] += 1
    for part in range(runs):
        counts[:] = 0
        for run in range(part, len(run_start) - 1, runs):
            for k in range(run_start[run], run_start[run + 1]):
                by_row[run // runs, step[k]] += 1
                counts[np.int64(packed[k]) & 255, step[k]] += 1
        for j in range(min(RUN, len(by_col) - part * RUN)):
            for k in range(len(cuts) + 1):
                by_col[part * RUN + j, k] += counts[j, k]


@compiled
def count_sample_keys(
    bits: Kernel, row: Kernel, stop: Kernel, classes: Kernel, others: Kernel, histogram: Kernel
) -> None:
    """Add the negatives among a few columns, by their int32 bits, to the counts of their upper keys."""
    for i in range(stop - row):
        for j in range(len(others)):
            if others[j] != classes[row + i]:
                histogram[order_key(bits[i, j]) >> LOW_BITS] += 1


@compiled
def fill_positives(
    block: Kernel,
    window: Kernel,
    own: Kernel,
    symmetric: Kernel,
    first: Kernel,
    start: Kernel,
    values: Kernel,
) -> None:
    """Copy each query's positives in the window to its place in `values`; its `start` moves on as they come."""
    row, stop, col, end, block_row, block_col = window
    for i in range(row, stop):
        for j in range(max(col, own[0][i]), min(end, own[1][i])):
            if not symmetric or i != j:
                values[start[i - first]] = block[i - block_row, j - block_col]
                start[i - first] += 1


@compiled
def sort_each(values: Kernel, start: Kernel) -> None:
    """Sort values[start[i]:start[i + 1]] in place, highest first, for every i."""
    for i in range(len(start) - 1):
        line = values[start[i] : start[i + 1]]
        line[:] = np.sort(line)[::-1]


@compiled
def positive_keys(
    bits: Kernel, window: Kernel, own: Kernel, symmetric: Kernel, shift: Kernel, base: Kernel, counts: Kernel
) -> None:
    """Count each pair of the window once by `(key >> shift) - base`, where that is in range."""
    row, stop, col, end, block_row, block_col = window
    for i in range(row, stop):
        for j in range(max(col, i + 1 if symmetric else own[0][i]), min(end, own[1][i])):
            place = (order_key(bits[i - block_row, j - block_col]) >> shift) - base
            if 0 <= place < len(counts):
                counts[place] += 1


@compiled
def positive_steps(
    bits: Kernel, window: Kernel, own: Kernel, symmetric: Kernel, steps: Kernel, tables: Kernel
) -> None:
    """Count each pair of the window once by first cut reached: by class, and by half of each split that holds it.

    `tables`: (class [Q], row halves [S, Q], column halves [S, G], whole [C, K + 1], halves [S, 2, C, K + 1]).
    """
    row, stop, col, end, block_row, block_col = window
    classes, row_half, col_half, whole, halves = tables
    cuts, guide, shift = steps
    for i in range(row, stop):
        for j in range(max(col, i + 1 if symmetric else own[0][i]), min(end, own[1][i])):
            step = step_of(order_key(bits[i - block_row, j - block_col]), cuts, guide, shift)
            whole[classes[i], step] += 1
            for s in range(len(halves)):
                if row_half[s, i] == col_half[s, j]:
                    halves[s, row_half[s, i], classes[i], step] += 1


@compiled
def sum_by_class(table: Kernel, classes: Kernel, taken: Kernel, total: Kernel) -> None:
    """Add the rows of `table [N, K]` where `taken [N]` to their class's row of `total [C, K]`."""
    for i in range(len(classes)):
        if taken[i]:
            line = total[classes[i]]
            for k in range(table.shape[1]):
                line[k] += table[i, k]
