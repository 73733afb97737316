"""How far down similarities must be kept: under every threshold that will be asked for, by a sample and a check."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmlcore.metrics.inputs import Pairs
from dmlcore.metrics.pairwise.order_statistics import (
    LOW_BITS,
    equal_error_bin,
    from_the_top,
    key_to_float,
    share_count,
    similarity_cuts,
)

Counts = NDArray[np.int64]
SLACK = 0.07  # of the largest rate: some three deviations of the sampled rate
SMALL = 1 << 22  # negative pairs that are kept all, floor or not: 25 MB, milliseconds
MIDDLE = (
    1 << 27
)  # the same where the equal error rate lies deep: 0.8 GB at most, the excess is multiplied again


class Floor(NamedTuple):
    """`similarity`: keep from here up, the lower edge of upper key `lowest_bin`; `count_all`: count keys below, too."""

    similarity: np.float32
    lowest_bin: int
    count_all: bool

    @property
    def key(self) -> int:
        return self.lowest_bin << LOW_BITS


def find_similarity_cutoff(
    pairs: Pairs,
    sample: Counts,
    positives: Counts,
    largest_far: float,
    largest_distance: float | None,
    slack: float,
) -> Floor:
    """A floor somewhat under the largest rate; `slack` doubles after each miss. `sample`: upper keys."""
    total = pairs.total_negatives
    share = largest_far * (1.0 + SLACK * slack)
    crossing = equal_error_bin(
        positives, sample, (0, 0), (max(1, int(positives.sum())), max(1, int(sample.sum())))
    )
    deep = sample[crossing:].sum() > 0.8 * largest_far * sample.sum()
    if total <= SMALL or share >= 1.0 or sample.sum() == 0 or (deep and total <= MIDDLE):
        return Floor(np.float32(-np.inf), 0, False)
    place, _ = from_the_top(sample, share_count(share, int(sample.sum())))
    if largest_distance is not None:
        cut = similarity_cuts(np.array([largest_distance]))[:1]
        place = min(place, upper_bin(cut))
    return Floor(np.float32(key_to_float(place << LOW_BITS)), place, bool(deep) or slack > 1.0)


def upper_bin(value: NDArray[np.float32]) -> int:
    """Upper key of one float32."""
    bits = int(value.view(np.int32)[0])
    return ((bits ^ ((bits >> 31) & 0x7FFFFFFF)) + (1 << 31)) >> LOW_BITS


def is_low_enough(pairs: Pairs, floor: Floor, counts: Counts, positives: Counts, largest_far: float) -> bool:
    """Whether what was kept holds the largest rate's order statistic and shows where FAR and FRR cross."""
    kept = int(counts[floor.lowest_bin :].sum())
    if kept < share_count(largest_far, pairs.total_negatives):
        return False
    rejected = 1.0 - positives[floor.lowest_bin :].sum() / positives.sum()
    return floor.count_all or kept / pairs.total_negatives >= rejected
