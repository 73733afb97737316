"""Order statistics of a stream of similarities: counts by float bit pattern, two passes, exact, ties and all.

A float32 has an order-preserving integer key of 32 bits. Pass one counts the upper 20 bits, pass two the lower 12
within the few bins that hold a wanted rank: the result is the float itself, whatever the number of pairs.
"""

import math
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

LOW_BITS = 12
HIGH_BINS = 1 << (32 - LOW_BITS)
LOW_BINS = 1 << LOW_BITS


def order_keys(values: torch.Tensor) -> torch.Tensor:
    """Keys in 0..2^32-1, int64, ascending with the float32 values."""
    bits = values.contiguous().view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() + (1 << 31)


def key_to_float(key: int) -> float:
    """The float32 that has this key."""
    bits = np.array([key - (1 << 31)], dtype=np.int64).astype(np.int32)
    return float((bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)[0])


def share_count(share: float, total: int) -> int:
    """max(1, ceil(share x total)), exactly: 0.1 x 30 is 3, not the 3.0000000000000004 of floats."""
    return max(1, math.ceil(Fraction(repr(float(share))) * total))


def distance(similarity: float) -> float:
    """d = sqrt(2 - 2 s)."""
    return math.sqrt(max(0.0, 2.0 - 2.0 * similarity))


def similarity_cuts(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The smallest float32 s with sqrt(2 - 2 s) <= d for each distance d, so that `s >= cut` is `distance <= d`."""
    exact = 1.0 - thresholds**2 / 2.0
    rounded = exact.astype(np.float32)
    return np.where(rounded < exact, np.nextafter(rounded, np.float32(2)), rounded)


def from_the_top(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """The bin of the rank-th largest value (rank from 1) and how many values lie above that bin."""
    descending = np.cumsum(counts[::-1])
    place = int(np.searchsorted(descending, rank))
    above = int(descending[place - 1]) if place else 0
    return len(counts) - 1 - place, above


def equal_error_bin(
    positives: NDArray[np.int64],
    negatives: NDArray[np.int64] | NDArray[np.float64],
    above: tuple[int, int],
    totals: tuple[int, int],
) -> int:
    """The highest bin at whose lower edge FAR >= FRR; `above` (positives, negatives) lie over the first bin."""
    accepted = above[0] + np.cumsum(positives[::-1])
    false = above[1] + np.cumsum(negatives[::-1])
    far, frr = false / totals[1], 1.0 - accepted / totals[0]
    return len(positives) - 1 - int(np.argmax(far >= frr))
