"""Accepted pairs of each class at each threshold, over whole classes and over random halves of their images.

Shapes: C classes, K cuts (similarities, descending), S splits, Q rows, G columns.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.metrics.consistency import Floats, random_halves, utility
from dmlcore.metrics.inputs import Pairs, pair_count
from dmlcore.metrics.positives import once, positive_chunks

Ints = NDArray[np.int64]
Split = tuple[Ints, Ints]  # half of each row and of each column image


def draw_split(pairs: Pairs, rng: np.random.Generator) -> Split:
    """Random halves of each class; query and gallery images are split apart from each other."""
    rows = random_halves(pairs.row_class, rng)
    return rows, rows if pairs.symmetric else random_halves(pairs.col_class, rng)


def positives_at(
    pairs: Pairs, cuts: NDArray[np.float32], splits: list[Split], budget_bytes: int
) -> tuple[Ints, NDArray[np.int32]]:
    """Positive pairs accepted at each cut: of whole classes [C, K], and with both ends in a half [S, 2, C, K]."""
    shape = (len(pairs.class_ids), len(cuts))
    whole, halves = np.zeros(shape, dtype=np.int64), np.zeros((len(splits), 2, *shape), dtype=np.int32)
    for chunk in positive_chunks(pairs, 0, len(pairs.row_class), budget_bytes):
        part = once(pairs, chunk)
        step = np.searchsorted(-cuts, -part.similarity.cpu().numpy())
        first = int(pairs.row_class[chunk.row[0]]) if len(chunk.row) else 0
        place = (pairs.row_class[part.row] - first) * (len(cuts) + 1) + step
        _add(whole, first, place)
        for (rows, cols), table in zip(splits, halves, strict=True):
            for half in range(2):
                _add(table[half], first, place[(rows[part.row] == half) & (cols[part.col] == half)])
    return whole.cumsum(axis=1), halves.cumsum(axis=-1, dtype=np.int32)


def _add(table: NDArray[np.signedinteger], first: int, place: Ints) -> None:
    steps = table.shape[1] + 1  # the last step: reached by no cut
    counts = np.bincount(place).astype(table.dtype)
    counts = np.pad(counts, (0, -len(counts) % steps)).reshape(-1, steps)
    table[first : first + len(counts)] += counts[:, :-1]


def negatives_at(
    pairs: Pairs, tables: tuple[NDArray[np.int32], NDArray[np.int32]], split: Split | None = None
) -> Ints:
    """Negative pairs with one end in the class (in half 0 of it, given a split) accepted at each cut: [C, K]."""
    images = ((pairs.row_class, tables[0]), (pairs.col_class, tables[1]))
    total = torch.zeros(len(pairs.class_ids), tables[0].shape[1], dtype=torch.int32)
    for side, (classes, table) in enumerate(images):
        picked = np.arange(len(classes)) if split is None else np.flatnonzero(split[side] == 0)
        source = torch.from_numpy(table) if split is None else torch.from_numpy(table[picked])
        total.index_add_(0, torch.from_numpy(classes[picked]), source)
    return total.numpy().astype(np.int64).cumsum(axis=1)


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
