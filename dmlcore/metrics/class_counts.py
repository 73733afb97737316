"""Accepted pairs of each class at each threshold, over whole classes and over halves of their images.

Shapes: C classes, K cuts (similarities, descending), E classes large enough to split, T thresholds among the cuts, S
splits, Q rows, G columns.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics.consistency import Floats, centred_utility, size_groups
from dmlcore.metrics.halves import splittable
from dmlcore.metrics.inputs import Ints, Pairs, Split
from dmlcore.metrics.pairwise.sweep import Sweep

CutTables = tuple[NDArray[np.int32], NDArray[np.int32]]  # of Sweep.count_at: [Q, K] and [G, K]


def negatives_at(pairs: Pairs, sweep: Sweep, tables: CutTables, split: Split | None = None) -> Ints:
    """Count the accepted negative pairs with one end in the class, or in half 0 of it: [C, K]."""
    total = np.zeros((len(pairs.class_ids), tables[0].shape[1]), dtype=np.int64)
    for side, classes in enumerate((pairs.row_class, pairs.col_class)):
        taken = np.ones(len(classes), dtype=np.bool_) if split is None else split[side] == 0
        sweep.sum_by_class(tables[side], classes, taken, total)
    return total.cumsum(axis=1)


def half_utilities(
    pairs: Pairs,
    sweep: Sweep,
    splits: list[Split],
    positive: tuple[Ints, NDArray[np.int32]],
    negative: Ints,
    tables: CutTables,
    thresholds: Ints,
) -> Iterator[tuple[Floats, Floats]]:
    """Yield the utility of both halves of the splittable classes, centred by class size, split by split: two [E, T].

    Nothing where fewer than 2 classes can be split.

    Args:
        pairs, sweep, splits: the pairs, what counts them, and the halves to compare.
        positive: accepted pairs of whole classes [C, K] and of halves [S, 2, C, K].
        negative: accepted pairs of whole classes [C, K].
        tables: counts by image, of which those of the halves are sums.
        thresholds: which of the cuts are thresholds, [T].
    """
    keep = splittable(pairs)
    if keep.sum() < 2:
        return
    groups = size_groups(pairs.row_count[keep]) << 32 | size_groups(pairs.col_count[keep])
    whole = class_rates(positive[0], pairs.positive_pairs, negative, pairs.negative_pairs)
    psi, phi = (rate[keep][:, thresholds].mean(axis=0) for rate in whole)
    rows = np.flatnonzero(keep)

    def rates_of(
        counts: tuple[NDArray[np.signedinteger], Ints, Ints, Ints], block: slice
    ) -> tuple[Floats, Floats]:
        accepted, positives, false, negatives = (part[rows[block]] for part in counts)
        return class_rates(accepted[:, thresholds], positives, false[:, thresholds], negatives)

    for split, accepted in zip(splits, positive[1], strict=True):
        first = negatives_at(pairs, sweep, tables, split)
        both = []
        for half, false in enumerate((first, negative - first)):
            positives, negatives = _half_totals(pairs, split, half)
            counts = (accepted[half], positives, false, negatives)
            both.append(centred_utility(partial(rates_of, counts), (psi, phi), groups))
        yield both[0], both[1]


def _half_totals(pairs: Pairs, split: Split, half: int) -> tuple[Ints, Ints]:
    """Count the positive and negative pairs of a half of each class, accepted or not: two [C]."""
    count = len(pairs.class_ids)
    rows, cols = (
        np.bincount(classes[side == half], minlength=count)
        for classes, side in zip((pairs.row_class, pairs.col_class), split, strict=True)
    )
    across = rows * (len(pairs.col_class) - pairs.col_count)
    other = 0 if pairs.symmetric else cols * (len(pairs.row_class) - pairs.row_count)
    # A group is in one half, so that the columns of a row's group are in the row's half.
    return pairs.positives_among(split[0] == half, cols), across + other


def class_rates(
    positive: NDArray[np.signedinteger], positives: Ints, negative: Ints, negatives: Ints
) -> tuple[Floats, Floats]:
    """Return sensitivity and specificity [C, K] from accepted counts [C, K] and totals [C]; void without pairs."""
    sensitivity = positive / np.maximum(positives, 1)[:, None]
    return sensitivity, 1.0 - negative / np.maximum(negatives, 1)[:, None]
