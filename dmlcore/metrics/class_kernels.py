"""The inner loops over positive pairs and over classes, compiled; see kernels.py for the names.

A band holds rows row..stop-1 against columns col..end-1, `block[row - block_row, col - block_col]`; the columns of a
row's own class are its positives: from own[0] to own[1], itself excluded; `after`: only columns after the row itself.
"""

import numpy as np

from dmlcore.metrics.kernels import Kernel, compiled, order_key, step_of


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
    block: Kernel, window: Kernel, own: Kernel, symmetric: Kernel, cuts: Kernel, guide: Kernel, tables: Kernel
) -> None:
    """Count each pair of the window once by first cut reached: by class, and by half of each split that holds it.

    `tables`: (class [Q], row halves [S, Q], column halves [S, G], whole [C, K], halves [S, 2, C, K]).
    """
    row, stop, col, end, block_row, block_col = window
    classes, row_half, col_half, whole, halves = tables
    low = cuts[-1]
    scale = np.float32(len(guide) / max(cuts[0] - low, np.float32(1e-30)))
    for i in range(row, stop):
        for j in range(max(col, i + 1 if symmetric else own[0][i]), min(end, own[1][i])):
            value = block[i - block_row, j - block_col]
            if value >= low:
                step = step_of(value, cuts, guide, low, scale)
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
