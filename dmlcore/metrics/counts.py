"""Accepted pairs of each class at each threshold, over whole classes and over random halves of their images.

Shapes: C classes, K cuts (similarities, descending), S splits, Q rows, G columns.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics.consistency import Floats, level, linear_utility, random_halves, size_groups, utility
from dmlcore.metrics.inputs import Pairs, pair_count
from dmlcore.metrics.pairwise.kernels import sum_by_class

Ints = NDArray[np.int64]
Split = tuple[Ints, Ints]  # half of each row and of each column image


def draw_split(pairs: Pairs, rng: np.random.Generator) -> Split:
    """Random halves of each class; query and gallery images are split apart from each other."""
    rows = random_halves(pairs.row_class, rng)
    return rows, rows if pairs.symmetric else random_halves(pairs.col_class, rng)


def negatives_at(
    pairs: Pairs, tables: tuple[NDArray[np.int32], NDArray[np.int32]], split: Split | None = None
) -> Ints:
    """Negative pairs with one end in the class (in half 0 of it, given a split) accepted at each cut: [C, K]."""
    total = np.zeros((len(pairs.class_ids), tables[0].shape[1]), dtype=np.int64)
    for side, classes in enumerate((pairs.row_class, pairs.col_class)):
        taken = np.ones(len(classes), dtype=np.bool_) if split is None else split[side] == 0
        sum_by_class(tables[side], classes, taken, total)
    return total.cumsum(axis=1)


def splittable(pairs: Pairs) -> NDArray[np.bool_]:
    """Classes with at least 4 images (2 queries and 2 gallery images), so that either half holds a pair: [C]."""
    least = 4 if pairs.symmetric else 2
    return (pairs.row_count >= least) & (pairs.col_count >= least)


def half_utilities(
    pairs: Pairs,
    splits: list[Split],
    positive: tuple[Ints, NDArray[np.int32]],
    negative: Ints,
    tables: tuple[NDArray[np.int32], NDArray[np.int32]],
    steps: NDArray[np.int64],
) -> Iterator[tuple[Floats, Floats]]:
    """Utility of both halves of the splittable classes, levelled over their sizes, split by split: pairs of [E, T].

    Nothing where fewer than 2 classes can be split.

    `positive`: accepted pairs of whole classes [C, K] and of halves [S, 2, C, K]; `negative`: of whole classes.
    """
    keep = splittable(pairs)
    if keep.sum() < 2:
        return
    groups = size_groups(pairs.row_count[keep]) << 32 | size_groups(pairs.col_count[keep])
    whole = shares(positive[0], pairs.positive_pairs, negative, pairs.negative_pairs)
    psi, phi = (share[keep][:, steps].mean(axis=0) for share in whole)
    for split, accepted in zip(splits, positive[1], strict=True):
        first = negatives_at(pairs, tables, split)
        both = []
        for half, false in enumerate((first, negative - first)):
            parts = shares(accepted[half], *_half_totals(pairs, split, half, false))
            a, b = (part[keep][:, steps] for part in parts)
            both.append(level(utility(a, b), linear_utility(a, b, psi, phi), groups))
        yield both[0], both[1]


def _half_totals(pairs: Pairs, split: Split, half: int, negative: Ints) -> tuple[Ints, Ints, Ints]:
    count = len(pairs.class_ids)
    rows, cols = (
        np.bincount(classes[side == half], minlength=count)
        for classes, side in zip((pairs.row_class, pairs.col_class), split, strict=True)
    )
    across = rows * (len(pairs.col_class) - pairs.col_count)
    other = 0 if pairs.symmetric else cols * (len(pairs.row_class) - pairs.row_count)
    return pair_count(rows, cols, pairs.symmetric), negative, across + other


def shares(
    positive: NDArray[np.signedinteger], positives: Ints, negative: Ints, negatives: Ints
) -> tuple[Floats, Floats]:
    """Sensitivity and specificity [C, K] from accepted counts [C, K] and totals [C]; meaningless without pairs."""
    sensitivity = positive / np.maximum(positives, 1)[:, None]
    return sensitivity, 1.0 - negative / np.maximum(negatives, 1)[:, None]
