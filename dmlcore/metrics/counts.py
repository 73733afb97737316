"""Accepted pairs of each class at each threshold, over whole classes and over random halves of their images.

Shapes: C classes, K cuts (similarities, descending), S splits, Q rows, G columns.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics.class_kernels import sum_by_class
from dmlcore.metrics.consistency import Floats, random_halves, utility
from dmlcore.metrics.inputs import Pairs, pair_count

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
    positive: NDArray[np.int32],
    negative: Ints,
    tables: tuple[NDArray[np.int32], NDArray[np.int32]],
    steps: slice | NDArray[np.int64],
) -> Iterator[tuple[Floats, Floats]]:
    """Utility of both halves of the splittable classes, split by split: pairs of [E, T]."""
    keep = splittable(pairs)
    for split, accepted in zip(splits, positive, strict=True):
        first = negatives_at(pairs, tables, split)
        parts = zip(accepted, (first, negative - first), range(2), strict=True)
        a, b = (_half_utility(pairs, split, half, pos, neg)[keep][:, steps] for pos, neg, half in parts)
        yield a, b


def _half_utility(
    pairs: Pairs, split: Split, half: int, positive: NDArray[np.int32], negative: Ints
) -> Floats:
    count = len(pairs.class_ids)
    rows, cols = (
        np.bincount(classes[side == half], minlength=count)
        for classes, side in zip((pairs.row_class, pairs.col_class), split, strict=True)
    )
    across = rows * (len(pairs.col_class) - pairs.col_count)
    other = 0 if pairs.symmetric else cols * (len(pairs.row_class) - pairs.row_count)
    return class_utility(positive, pair_count(rows, cols, pairs.symmetric), negative, across + other)


def class_utility(
    positive: NDArray[np.signedinteger], positives: Ints, negative: Ints, negatives: Ints
) -> Floats:
    """Utility from accepted counts [C, K] and totals [C]; classes without pairs give a meaningless row."""
    sensitivity = positive / np.maximum(positives, 1)[:, None]
    return utility(sensitivity, 1.0 - negative / np.maximum(negatives, 1)[:, None])
