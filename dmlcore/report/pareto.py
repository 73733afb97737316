"""The configurations that no other one beats in both accuracy and inconsistency."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_front(cost: ArrayLike, gain: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other point dominates; O(n log n).

    A point dominates another if its cost is not higher, its gain not lower, and one of the two strictly better. Equal
    points do not dominate each other, so both stay.

    Args:
        cost: [n], lower is better.
        gain: [n], higher is better.

    Returns:
        [n] bool.

    Raises:
        ValueError: a value is not finite.
    """
    c, g = np.asarray(cost, dtype=float), np.asarray(gain, dtype=float)
    if not (np.isfinite(c).all() and np.isfinite(g).all()):
        raise ValueError("cost and gain must be finite; leave out points without a value")
    order = np.lexsort((-g, c))
    front = np.zeros(len(c), dtype=bool)
    best, best_cost = -np.inf, np.nan
    for i in order:
        if g[i] > best:
            best, best_cost = g[i], c[i]
            front[i] = True
        else:
            front[i] = g[i] == best and c[i] == best_cost
    return front
