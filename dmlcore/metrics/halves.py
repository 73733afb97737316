"""Balanced splits of the classes into halves, a function of the embeddings alone: of their content, not their order.

What is divided are the groups of a class, since the noise of images of one camera or encounter is not independent;
without groups each image is one. Groups of queries, of gallery images and of both are divided each on their own.

Shapes: N images sorted by class, U groups, C classes, E of them large enough to split, S splits.
"""

from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics.inputs import Ints, Pairs, Split

LARGEST_LISTED = 8  # groups of a class up to which its divisions are listed: 35 of them
BOTH, QUERIES, GALLERY = 0, 1, 2  # what a group holds


def draw_splits(pairs: Pairs, count: int) -> list[Split]:
    """Draw halves of each class `count` times; groups of queries and of gallery images are split independently."""
    classes, keys, kinds, row_unit, col_unit = _units(pairs)
    halves = np.zeros((count, len(classes)), dtype=np.int64)
    for kind, salt in ((BOTH, 0), (QUERIES, 0), (GALLERY, 1)):
        here = np.flatnonzero(kinds == kind)
        here = here[np.lexsort((keys[here], classes[here]))]
        halves[:, here] = balanced_halves(classes[here], keys[here], count, salt)
    return [(half[row_unit], half[col_unit]) for half in halves]


def _units(pairs: Pairs) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Return of the groups their class, content and kind, three [U], and which each row and column is of, [Q], [G].

    The content of a group does not depend on its name: the sum of that of its images.
    """
    sides = [(pairs.row_group, pairs.row_class, pairs.row_key)]
    if not pairs.symmetric:
        sides.append((pairs.col_group, pairs.col_class, pairs.col_key))
    groups, image_classes, image_keys = (np.concatenate(part) for part in zip(*sides, strict=True))
    names, first, unit = np.unique(groups, return_index=True, return_inverse=True)
    keys, rows = np.zeros(len(names), dtype=np.int64), len(pairs.row_group)
    np.add.at(keys, unit, image_keys)
    if pairs.symmetric:
        return image_classes[first], keys, np.full(len(names), BOTH), unit, unit
    has_query, has_gallery = (
        np.bincount(part, minlength=len(names)) > 0 for part in (unit[:rows], unit[rows:])
    )
    kinds = np.where(has_query & has_gallery, BOTH, np.where(has_query, QUERIES, GALLERY))
    return image_classes[first], keys, kinds, unit[:rows], unit[rows:]


def divisions_left(pairs: Pairs, count: int) -> NDArray[np.float64]:
    """Return the share of its divisions that a splittable class has not taken in so many splits, [E]."""
    keep = splittable(pairs)
    if not pairs.symmetric:
        return np.ones(int(keep.sum()))
    return share_not_seen(np.bincount(_units(pairs)[0], minlength=len(keep))[keep], count)


def splittable(pairs: Pairs) -> NDArray[np.bool_]:
    """Mark classes of which either half has a positive pair, however the splits fall: [C].

    Of 4 groups on both sides, or 2 of queries and 2 others of gallery images, either half has one.
    """
    classes, _, kinds, *_ = _units(pairs)
    both, queries, gallery = (
        np.bincount(classes[kinds == kind], minlength=len(pairs.class_ids)) // 2
        for kind in (BOTH, QUERIES, GALLERY)
    )
    found: NDArray[np.bool_] = (both + queries > 0) & (both + gallery > 0) & (both + queries + gallery > 1)
    return found


def balanced_halves(classes: Ints, keys: Ints, count: int, salt: int) -> Ints:
    """Return half 0 or 1 of each group in each split, [S, U]; half 0 gets the odd group, in every class alike.

    A class of up to 8 groups takes another of its divisions in each split, until all have had their turn; a larger one
    a random division each time. Where half 0 and half 1 are of one size, which is which is random.

    Args:
        classes: [U], ascending from 0.
        keys: [U], content of the groups, ascending within a class.
        count: S.
        salt: 0 or 1: splits that have nothing to do with each other.
    """
    sizes = np.bincount(classes)
    first = np.cumsum(sizes) - sizes
    names = np.add.reduceat(mix(keys), np.minimum(first, len(keys) - 1)) if len(keys) else keys
    halves = np.zeros((count, len(classes)), dtype=np.int64)
    large = np.flatnonzero(sizes[classes] > LARGEST_LISTED)
    place = large - first[classes[large]]
    for split in range(count):
        draw = mix(names + mix(np.array([2 * split + salt])))
        shuffled = np.lexsort((mix(keys[large] ^ draw[classes[large]]), classes[large]))
        halves[split, large[shuffled]] = place % 2
        for size in np.unique(sizes[(sizes > 1) & (sizes <= LARGEST_LISTED)]):
            table = divisions(int(size))
            here = np.flatnonzero(sizes == size)
            turn = (
                (mix(names[here] + salt).view(np.uint64) >> np.uint64(33)).astype(np.int64) + split
            ) % len(table)
            members = first[here][:, None] + np.arange(size)
            swap = (draw[here] >> 40 & 1 if size % 2 == 0 else np.zeros(len(here), np.int64))[:, None]
            halves[split, members] = table[turn] ^ swap
    return halves


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
