"""The inner loops over a tile of similarities that is still in the cache, compiled; all release the GIL.

A tile holds rows row..row+height-1 and columns col..col+width-1 of the sorted matrix; of each row the columns
from skip_start to skip_end are no negatives, or are counted elsewhere. Names and shapes as in ranks.py and keys.py.
"""

from typing import Any

import numpy as np
from numba import njit

from dmlcore.metrics.keys import LOW_BINS, LOW_BITS

Kernel = Any  # numba's dispatchers and the arrays they take carry no static types
LOW_MASK = LOW_BINS - 1
compiled = njit(nogil=True, cache=True, error_model="numpy")


@compiled
def order_key(bits: Kernel) -> Kernel:
    """As keys.order_keys, of one float32's int32 bits."""
    return np.int64(bits ^ ((bits >> 31) & 0x7FFFFFFF)) + 2147483648


@compiled
def sift(
    line: Kernel, start: Kernel, end: Kernel, bar: Kernel, bars: Kernel, found: Kernel, at: Kernel
) -> Kernel:
    """Values of `line[start:end]` that reach `bar` or their column's bar, packed; returns how many. No branch."""
    count = 0
    for j in range(start, end):
        value = line[j]
        found[count] = value
        at[count] = j
        count += value >= min(bar, bars[j])
    return count


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
def collect(
    block: Kernel,
    row: Kernel,
    col: Kernel,
    skip: Kernel,
    floor: Kernel,
    scratch: Kernel,
    mode: Kernel,
    ranks: Kernel,
) -> Kernel:
    """Walk a tile once: rank the positives of its rows (mode 1), of its columns too (2), and pack what reaches `floor`.

    `skip`: (start [Q], end [Q]); `scratch`: see numba_sweep.Worker; `ranks`: see numba_sweep.rank_arrays.
    Returns how many were packed.
    """
    found, at, kept, kept_at, kept_start, bars = scratch
    start, live, limit, values, above, bar, first = ranks
    height, width = block.shape
    for j in range(width):
        bars[j] = bar[col + j - first] if mode == 2 else np.float32(np.inf)
    total = 0
    for i in range(height):
        kept_start[i] = total
        query = row + i - first
        own_bar = bar[query] if mode else np.float32(np.inf)
        left, right = min(width, max(0, skip[0][row + i] - col)), min(width, max(0, skip[1][row + i] - col))
        count = sift(block[i], 0, left, min(floor, own_bar), bars, found, at)
        count += sift(block[i], right, width, min(floor, own_bar), bars, found[count:], at[count:])
        for k in range(count):
            value = found[k]
            kept[total] = value
            kept_at[total] = at[k]
            total += value >= floor
            if value >= own_bar:
                rank_one(value, query, start, live, values, above[0])
            if value >= bars[at[k]]:
                rank_one(value, col + at[k] - first, start, live, values, above[1])
        if mode:
            raise_bar(query, start, live, limit, values, above, bar)
    kept_start[height] = total
    if mode == 2:
        for j in range(width):
            raise_bar(col + j - first, start, live, limit, values, above, bar)
    return total


@compiled
def try_sample(block: Kernel, row: Kernel, classes: Kernel, others: Kernel, ranks: Kernel) -> None:
    """Raise the bars of rows row... by a few columns, of classes `others [W]`, and forget their counts again."""
    start, live, limit, values, above, bar, first = ranks
    for i in range(len(block)):
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
def count_sample_keys(block: Kernel, row: Kernel, classes: Kernel, others: Kernel, histogram: Kernel) -> None:
    """Add the negatives among a few columns, `block` as int32 bits, to the counts of their upper keys."""
    for i in range(len(block)):
        for j in range(len(others)):
            if others[j] != classes[row + i]:
                histogram[order_key(block[i, j]) >> LOW_BITS] += 1


@compiled
def count_keys(bits: Kernel, histogram: Kernel) -> None:
    """Add values, as int32 bits, to the counts of their upper keys."""
    for k in range(len(bits)):
        histogram[order_key(bits[k]) >> LOW_BITS] += 1


@compiled
def count_all_keys(block: Kernel, row: Kernel, col: Kernel, skip: Kernel, histogram: Kernel) -> None:
    """Add every negative of a tile, `block` as int32 bits, to the counts of their upper keys."""
    height, width = block.shape
    for i in range(height):
        left, right = min(width, max(0, skip[0][row + i] - col)), min(width, max(0, skip[1][row + i] - col))
        count_keys(block[i, :left], histogram)
        count_keys(block[i, right:], histogram)


@compiled
def count_low_keys(bits: Kernel, slots: Kernel, counts: Kernel) -> None:
    """Add values to the counts of the lower keys of their slot; `slots [HIGH_BINS]`: row of `counts`, or -1."""
    for k in range(len(bits)):
        key = order_key(bits[k])
        slot = slots[key >> LOW_BITS]
        if slot >= 0:
            counts[slot, key & LOW_MASK] += 1


@compiled
def step_of(value: Kernel, cuts: Kernel, guide: Kernel, low: Kernel, scale: Kernel) -> Kernel:
    """First of the descending cuts that the value reaches; `guide` says where to look, by equal parts of the range."""
    cell = min(np.int64((value - low) * scale), len(guide) - 1)
    step = guide[cell]
    while cuts[step] > value:
        step += 1
    return step


@compiled
def count_steps(
    kept: Kernel,
    kept_at: Kernel,
    kept_start: Kernel,
    cuts: Kernel,
    guide: Kernel,
    by_row: Kernel,
    by_col: Kernel,
) -> None:
    """Count packed values by first cut reached, for the tile's row images and its column images."""
    low = cuts[-1]
    scale = np.float32(len(guide) / max(cuts[0] - low, np.float32(1e-30)))
    for i in range(len(kept_start) - 1):
        line = by_row[i]
        for k in range(kept_start[i], kept_start[i + 1]):
            if kept[k] >= low:
                step = step_of(kept[k], cuts, guide, low, scale)
                line[step] += 1
                by_col[kept_at[k], step] += 1
