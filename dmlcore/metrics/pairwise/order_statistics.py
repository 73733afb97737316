"""Order statistics of a stream of similarities: counts by float bit pattern, two passes, exact, ties and all.

A float32 has an order-preserving integer key of 32 bits. Pass one counts the upper 20 bits, pass two the lower 12
within the few bins that hold a wanted rank: the result is the float itself, whatever the number of pairs.
"""

import math
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

# 20 and 12 bits: a thread's counts of upper keys take 8 MiB. One pass over all 32 bits would need 32 GiB of counts,
# storing and sorting the pairs of 60,000 images 7 GB.
LOW_BITS = 12
HIGH_BINS = 1 << (32 - LOW_BITS)
LOW_BINS = 1 << LOW_BITS
BITS_OF_ONE = 0x3F800000  # no similarity is more: rounding can bring that of near-identical rows to 1.0000002


def order_keys(values: torch.Tensor) -> torch.Tensor:
    """Return keys in 0..2^32-1, int64, ascending with the float32 values; values above 1 have the key of 1.

    As integers, the bits of floats ascend from 0 on and descend below it (sign and magnitude). Flipping the magnitude
    of the negative ones makes the order one; the offset makes it start at 0.
    """
    return order_keys_int32(values).long() + (1 << 31)


def order_keys_int32(values: torch.Tensor) -> torch.Tensor:
    """Return the keys less 2^31, as int32: half the memory."""
    bits = values.contiguous().view(torch.int32).clamp(max=BITS_OF_ONE)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def key_to_float(key: int) -> float:
    """Return the float32 that has this key."""
    bits = np.array([key - (1 << 31)], dtype=np.int64).astype(np.int32)
    return float((bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)[0])


def share_count(share: float, total: int) -> int:
    """Return max(1, ceil(share x total)), exactly: 0.1 x 30 is 3, not the 3.0000000000000004 of floats."""
    return max(1, math.ceil(Fraction(repr(float(share))) * total))


def distance(similarity: float) -> float:
    """Return d = sqrt(2 - 2 s)."""
    return math.sqrt(max(0.0, 2.0 - 2.0 * similarity))


def similarity_cuts(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return for each distance d the smallest float32 s with sqrt(2 - 2 s) <= d, so `s >= cut` is `distance <= d`."""
    exact = 1.0 - thresholds**2 / 2.0
    rounded = exact.astype(np.float32)
    return np.where(rounded < exact, np.nextafter(rounded, np.float32(2)), rounded)


def bin_of_rank(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """Return the bin of the rank-th largest value (rank from 1) and how many values are above that bin."""
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
    """Return the highest bin at whose lower edge FAR >= FRR; `above`: positives and negatives over the last bin."""
    accepted = above[0] + np.cumsum(positives[::-1])
    false = above[1] + np.cumsum(negatives[::-1])
    far, frr = false / totals[1], 1.0 - accepted / totals[0]
    return len(positives) - 1 - int(np.argmax(far >= frr))
