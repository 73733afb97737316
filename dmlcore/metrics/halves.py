"""Balanced splits of the classes into halves, a function of the embeddings alone: of their content, not their order.

Shapes: N images sorted by class, C classes, E of them large enough to split, S splits.
"""

from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics.inputs import Ints, Pairs, Split

LARGEST_LISTED = 8  # images of a class up to which its divisions are listed: 35 of them


def draw_splits(pairs: Pairs, count: int) -> list[Split]:
    """Draw halves of each class `count` times; query and gallery images are split independently."""
    rows = balanced_halves(pairs.row_class, pairs.row_key, count, 0)
    cols = rows if pairs.symmetric else balanced_halves(pairs.col_class, pairs.col_key, count, 1)
    return list(zip(rows, cols, strict=True))


def divisions_left(pairs: Pairs, count: int) -> NDArray[np.float64]:
    """Return the share of its divisions that a splittable class has not taken in so many splits, [E]."""
    keep = splittable(pairs)
    return share_not_seen(pairs.row_count[keep], count) if pairs.symmetric else np.ones(int(keep.sum()))


def splittable(pairs: Pairs) -> NDArray[np.bool_]:
    """Mark classes with at least 4 images (2 queries and 2 gallery images), so that either half has a pair: [C]."""
    least = 4 if pairs.symmetric else 2
    return (pairs.row_count >= least) & (pairs.col_count >= least)


def balanced_halves(classes: Ints, keys: Ints, count: int, salt: int) -> Ints:
    """Return half 0 or 1 of each image in each split, [S, N]; half 0 gets the odd image, in every class alike.

    A class of up to 8 images takes another of its divisions in each split, until all have had their turn; a larger one
    a random division each time. Where half 0 and half 1 are of one size, which is which is random.

    Args:
        classes: [N], ascending from 0.
        keys: [N], content of the images, ascending within a class.
        count: S.
        salt: 0 or 1: splits that have nothing to do with each other.
    """
    sizes = np.bincount(classes)
    first = np.cumsum(sizes) - sizes
    place = np.arange(len(classes)) - first[classes]
    names = np.add.reduceat(mix(keys), np.minimum(first, len(keys) - 1)) if len(keys) else keys
    halves = np.empty((count, len(classes)), dtype=np.int64)
    for split in range(count):
        draw = mix(names + mix(np.array([2 * split + salt])))
        halves[split] = _random_halves(classes, place, mix(keys ^ draw[classes]))
        for size in np.unique(sizes[(sizes > 1) & (sizes <= LARGEST_LISTED)]):
            table = divisions(int(size))
            here = np.flatnonzero(sizes == size)
            turn = (
                (mix(names[here] + salt).view(np.uint64) >> np.uint64(33)).astype(np.int64) + split
            ) % len(table)
            images = first[here][:, None] + np.arange(size)
            swap = (draw[here] >> 40 & 1 if size % 2 == 0 else np.zeros(len(here), np.int64))[:, None]
            halves[split, images] = table[turn] ^ swap
    return halves


def _random_halves(classes: Ints, place: Ints, draws: Ints) -> Ints:
    half = np.empty(len(classes), dtype=np.int64)
    half[np.lexsort((draws, classes))] = place % 2
    return half


@cache
def divisions(size: int) -> Ints:
    """List the divisions of so many images into halves, [P, size], in random order; of the two names of each, one."""
    larger = (size + 1) // 2
    chosen = [part for part in combinations(range(size), larger) if size % 2 or 0 in part]
    table = np.ones((len(chosen), size), dtype=np.int64)
    for row, part in zip(table, chosen, strict=True):
        row[list(part)] = 0
    return np.random.default_rng(size).permutation(table)


def share_not_seen(sizes: Ints, count: int) -> NDArray[np.float64]:
    """Return the share of its divisions that so many splits leave out, for each class size, [C]; 0: all are seen."""
    listed = [float(len(divisions(size))) for size in range(2, LARGEST_LISTED + 1)]
    total = np.array([np.inf, np.inf, *listed, np.inf])[np.minimum(sizes, LARGEST_LISTED + 1)]
    return np.maximum(0.0, 1.0 - count / total)


def mix(values: Ints) -> Ints:
    """Scramble 64-bit numbers. Reference: splitmix64 of Steele, Lea, Flood, 2014."""
    z = values.view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: Ints = (z ^ (z >> np.uint64(31))).view(np.int64)
    return found
