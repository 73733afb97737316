"""The scan of a tile while it is in the cache: rank positives, pack the similarities that later passes need.

Names and shapes as in ranks.py and tiles.py. Columns skip.start[row] to skip.end[row] - 1 of a row are no negatives, or
are counted elsewhere.

Ties: a negative at the similarity of a positive ranks above it, so that equal embeddings never flatter a model.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics.pairwise.compiling import compiled, order_key
from dmlcore.metrics.pairwise.compress import compress_above, reaching16
from dmlcore.metrics.pairwise.order_statistics import LOW_BITS
from dmlcore.metrics.pairwise.ranks import RankArrays
from dmlcore.metrics.pairwise.similarity_cutoff import SimilarityCutoff
from dmlcore.metrics.pairwise.tiles import LANES, RUN_WIDTH, ColumnRange, ScanBuffers, TileBounds

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
RANK_NOTHING, RANK_ROWS, RANK_BOTH = (
    0,
    1,
    2,
)  # whose positives scan_tile ranks: rows' queries, columns' queries too


@compiled
def rank_negative(value: Any, query: int, ranks: RankArrays, above: NDArray[np.int32]) -> None:
    """Count a negative above the best active positive that it reaches."""
    values = ranks.values
    low, high = ranks.start[query], ranks.start[query] + ranks.active[query] - 1
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
def update_threshold(query: int, ranks: RankArrays) -> None:
    """Drop the query's positives whose rank so far is past its limit.

    Two threads may do so for one query at once, as a row and as a column. Counts never fall, so a dropped positive is
    past the limit whichever of them writes last: a stale threshold costs time, never a number.
    """
    active, above = ranks.active, ranks.above
    seen, first = 0, ranks.start[query]
    for place in range(active[query]):
        seen += above[0, first + place] + above[1, first + place]
        if place + 1 + seen > ranks.limit[query]:
            active[query] = place
            ranks.threshold[query] = ranks.values[first + place - 1] if place else np.inf
            return


@compiled
def prime_thresholds(
    block: Floats, row: int, stop: int, row_class: Ints, sampled_class: Ints, ranks: RankArrays
) -> None:
    """Raise the thresholds of rows row..stop-1 by sampled columns of known class, then forget their counts.

    A sampled negative is a real one, so that the raised threshold is right; the full pass counts it again.
    """
    start, above = ranks.start, ranks.above
    for i in range(stop - row):
        query = row + i - ranks.first
        for j in range(len(sampled_class)):
            if sampled_class[j] != row_class[row + i] and block[i, j] >= ranks.threshold[query]:
                rank_negative(block[i, j], query, ranks, above[0])
        update_threshold(query, ranks)
        above[0, start[query] : start[query + 1]] = 0


@compiled
def score_queries(ranks: RankArrays, ks: Ints, scores: NDArray[np.float64]) -> None:
    """Write recall at each k, average precision at R and R-precision of each query into `scores [Q, ks + 2]`."""
    start, active, above = ranks.start, ranks.active, ranks.above
    for query in range(len(active)):
        size, seen, base = start[query + 1] - start[query], 0, start[query]
        for place in range(active[query]):
            seen += above[0, base + place] + above[1, base + place]
            rank = place + 1 + seen
            if place == 0:
                for k in range(len(ks)):
                    scores[query, k] = rank <= ks[k]
            if rank <= size:
                scores[query, len(ks)] += (place + 1) / rank / size
                scores[query, len(ks) + 1] += 1.0 / size


@compiled
def pack_keys(
    bits: NDArray[np.int32],
    columns: NDArray[np.int32],
    count: int,
    cutoff_key: int,
    packed: NDArray[np.uint64],
    start: int,
) -> tuple[int, Any]:
    """Pack the first `count` candidates, by their int32 bits, that reach the cutoff, into packed[start:].

    All of them usually do, so that the loop without a test, several at a time, comes first. Returns their number and
    the bitwise or of their codes.
    """
    lowest, seen = np.int64(0), np.int64(0)
    for k in range(count):
        code = order_key(bits[k]) - cutoff_key
        lowest |= code  # negative as soon as one is
        seen |= max(code, 0)
        packed[start + k] = (code << 8) | (columns[k] & 255)
    if lowest >= 0:
        return count, seen
    total = 0
    for k in range(count):
        code = order_key(bits[k]) - cutoff_key
        packed[start + total] = (code << 8) | (columns[k] & 255)
        total += code >= 0
    return total, seen


@compiled
def rank_row(
    line: Floats,
    start: int,
    end: int,
    query: int,
    shift: int,
    row_threshold: Any,
    col_thresholds: Floats,
    ranks: RankArrays,
) -> None:
    """Rank the positives of a row's query, and of its columns' queries `column + shift`, by line[start:end].

    By row and by column in separate arrays: a strip's thread is alone with its rows, and holds the lock of the columns.
    """
    above, row_at, limits_at = ranks.above, line.ctypes.data, col_thresholds.ctypes.data
    limit = np.float32(row_threshold)
    for left in range(start, end, LANES):
        right = left + LANES
        # One in thousands reaches a threshold, so that most often there is nothing else to do.
        if right <= end and not reaching16(row_at + 4 * left, limits_at + 4 * left, limit):
            continue
        for j in range(left, min(right, end)):
            if line[j] >= limit:
                rank_negative(line[j], query, ranks, above[0])
            if line[j] >= col_thresholds[j]:
                rank_negative(line[j], j + shift, ranks, above[1])


@compiled
def scan_tile(
    block: Floats,
    bounds: TileBounds,
    skip: ColumnRange,
    cutoff: SimilarityCutoff,
    buffers: ScanBuffers,
    mode: int,
    ranks: RankArrays,
) -> tuple[int, Any]:
    """Read a tile once: rank positives (`mode`, one of RANK_*) and pack what reaches the cutoff.

    Returns how many were packed, and the bitwise or of them all, which says how many bits they need.
    """
    values, columns, packed, run_start, col_thresholds = buffers
    row, stop, col, end, block_row, block_col = bounds
    first, threshold = ranks.first, ranks.threshold
    cutoff_key = cutoff.lowest_bin << LOW_BITS
    bits, width, total, run, seen = values.view(np.int32), end - col, 0, 0, 0
    for j in range(width):
        col_thresholds[j] = threshold[col + j - first] if mode == RANK_BOTH else np.float32(np.inf)
    for i in range(row, stop):
        line = block[i - block_row, col - block_col :]
        row_threshold = threshold[i - first] if mode else np.float32(np.inf)
        skip_start, skip_end = min(width, max(0, skip.start[i] - col)), max(0, skip.end[i] - col)
        for left in range(0, width, RUN_WIDTH):
            run_start[run] = total
            run += 1
            right = min(width, left + RUN_WIDTH)
            count = compress_above(line, left, min(right, skip_start), cutoff.similarity, buffers, 0)
            count = compress_above(line, max(left, skip_end), right, cutoff.similarity, buffers, count)
            reached, high = pack_keys(bits, columns, count, cutoff_key, packed, total)
            total += reached
            seen |= high
        if mode:
            query, shift = i - first, col - first
            rank_row(line, 0, skip_start, query, shift, row_threshold, col_thresholds, ranks)
            rank_row(line, skip_end, width, query, shift, row_threshold, col_thresholds, ranks)
            update_threshold(i - first, ranks)
    run_start[run] = total
    for j in range(width if mode == RANK_BOTH else 0):
        update_threshold(col + j - first, ranks)
    return total, seen
