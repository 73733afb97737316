"""How far down similarities must be kept: under every threshold that will be asked for, by a sample and a check."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.metrics.inputs import Pairs
from dmlcore.metrics.pairwise.order_statistics import (
    HIGH_BINS,
    LOW_BITS,
    bin_of_rank,
    equal_error_bin,
    key_to_float,
    order_keys,
    share_count,
    similarity_cuts,
)

Counts = NDArray[np.int64]
SLACK = 0.07  # of the largest rate: some three standard deviations of the sampled rate
FEW_PAIRS = 1 << 22  # up to so many negative pairs all are kept: 25 MB, milliseconds
FEW_PAIRS_IF_DEEP = (
    1 << 27
)  # the same where the equal error rate is deep: 0.8 GB at most, the rest is recomputed


class SimilarityCutoff(NamedTuple):
    """`similarity`: keep from here up, the lower edge of upper key `lowest_bin`; `count_all`: count keys below, too."""

    similarity: np.float32
    lowest_bin: int
    count_all: bool

    @property
    def key(self) -> int:
        return self.lowest_bin << LOW_BITS


KEEP_EVERYTHING = SimilarityCutoff(np.float32(-np.inf), 0, False)
KEEP_NOTHING = SimilarityCutoff(np.float32(np.inf), HIGH_BINS, False)


def find_similarity_cutoff(
    pairs: Pairs,
    sample: Counts,
    positives: Counts,
    largest_far: float,
    largest_distance: float | None,
    slack: float,
) -> SimilarityCutoff:
    """Choose a cutoff somewhat under the largest rate.

    Args:
        pairs: of the sweep.
        sample: sampled negative pairs by upper key, [HIGH_BINS].
        positives: positive pairs by upper key, [HIGH_BINS].
        largest_far: the largest false-accept rate whose distance is asked for.
        largest_distance: the largest distance that is asked for, None where rates decide alone.
        slack: factor of SLACK, doubled after each cutoff that turned out too high.
    """
    total, sampled = pairs.total_negatives, int(sample.sum())
    share = largest_far * (1.0 + SLACK * slack)
    crossing = equal_error_bin(positives, sample, (0, 0), (max(1, int(positives.sum())), max(1, sampled)))
    deep = sample[crossing:].sum() > 0.8 * largest_far * sampled
    if total <= FEW_PAIRS or share >= 1.0 or sampled == 0 or (deep and total <= FEW_PAIRS_IF_DEEP):
        return KEEP_EVERYTHING
    place, _ = bin_of_rank(sample, share_count(share, sampled))
    if largest_distance is not None:
        cut = torch.from_numpy(similarity_cuts(np.array([largest_distance])))
        place = min(place, int(order_keys(cut)) >> LOW_BITS)
    return SimilarityCutoff(np.float32(key_to_float(place << LOW_BITS)), place, bool(deep) or slack > 1.0)


def is_low_enough(
    pairs: Pairs, cutoff: SimilarityCutoff, counts: Counts, positives: Counts, largest_far: float
) -> bool:
    """Tell whether what was kept holds the largest rate's order statistic and shows where FAR and FRR cross."""
    kept = int(counts[cutoff.lowest_bin :].sum())
    if kept < share_count(largest_far, pairs.total_negatives):
        return False
    rejected = 1.0 - positives[cutoff.lowest_bin :].sum() / positives.sum()
    return bool(cutoff.count_all or kept / pairs.total_negatives >= rejected)
