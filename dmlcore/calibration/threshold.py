"""The threshold of a target rate: an order statistic of the pairs' distances, never interpolated.

Shapes: N images, D width, M negative pairs, P positive pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.metrics.class_scores import check_collapse
from dmlcore.metrics.evaluation import choose_sweep
from dmlcore.metrics.inputs import REPORTED_FARS, Pairs, Settings
from dmlcore.metrics.pairwise.order_statistics import (
    HIGH_BINS,
    LOW_BINS,
    LOW_BITS,
    bin_of_rank,
    distance,
    key_to_float,
)
from dmlcore.metrics.pairwise.sweep import Sweep
from dmlcore.metrics.pairwise.tiles import one_thread
from dmlcore.metrics.verification import operating_points

Kind = Literal["far", "frr"]
PAIRS_OF = {"far": "negative", "frr": "positive"}


@dataclass(frozen=True)
class Target:
    """A pooled rate to keep: `far` = negative pairs accepted, `frr` = positive pairs rejected, share in (0, 1)."""

    kind: Kind
    rate: float

    def __post_init__(self) -> None:
        if self.kind not in PAIRS_OF:
            raise ValueError(f"the target must be `far` or `frr`, got {self.kind!r}")
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"--{self.kind} must be a share of the pairs in (0, 1), got {self.rate}")


@dataclass(frozen=True)
class Threshold:
    """A pair is accepted if its cosine similarity in float32 is at least `similarity`: distance at most `distance`."""

    similarity: float

    @property
    def distance(self) -> float:
        """L2 distance of normalised embeddings, d = sqrt(2 - 2 s)."""
        return distance(self.similarity)


def find_threshold(pairs: Pairs, target: Target, *, memory_bytes: int = 2**30) -> Threshold:
    """Find the one distance threshold that keeps `target` over all pairs.

    FAR <= f: the floor(f M)-th smallest of the M negative distances; where it ties with later ones, the next smaller
    distance, and where the nearest pairs tie, just below theirs. FRR <= r: the ceil((1 - r) P)-th smallest of the P
    positive distances, the smallest threshold that rejects at most r P of them. Neither rate is over its target.

    Args:
        pairs: of `dmlcore.metrics.inputs.build_pairs`.
        target: the rate to keep.
        memory_bytes: bound on the working memory.

    Raises:
        ValueError: collapsed embeddings, a rate finer than one pair, or more identical negative pairs than the FAR
            allows.
    """
    _check_fine_enough(pairs, target)
    rate = target.rate if target.kind == "far" else REPORTED_FARS[0]
    settings = Settings(far_range=(rate, rate), memory_bytes=memory_bytes)
    sweep = choose_sweep(pairs, settings, torch.get_num_threads())
    with one_thread():
        positives = sweep.positive_keys(LOW_BITS, 0, HIGH_BINS)
        negatives = sweep.count_keys(None, positives)
        points = operating_points(pairs, sweep, positives, negatives, settings.rates)
    check_collapse(points, pairs.total_negatives)
    if target.kind == "far":
        return Threshold(_negative_statistic(pairs, sweep, negatives, target.rate))
    total = int(pairs.positive_pairs.sum())
    return Threshold(_positive_statistic(sweep, positives, total - errors_allowed(target.rate, total)))


def errors_allowed(rate: float, total: int) -> int:
    """Return floor(rate x total), exactly: 0.1 of 30 is 3; and P - floor(r P) = ceil((1 - r) P)."""
    return math.floor(Fraction(repr(float(rate))) * total)


def _negative_statistic(pairs: Pairs, sweep: Sweep, negatives: NDArray[np.int64], rate: float) -> float:
    """Return the lowest similarity that at most `rate` of the negative pairs reach; `negatives` by upper key."""
    allowed = errors_allowed(rate, pairs.total_negatives)
    first, _ = bin_of_rank(negatives, allowed)
    # The keys above the first are read only where a tie fills the rest of it.
    for place in first + np.flatnonzero(negatives[first:]):
        with one_thread():
            low = sweep.count_low_keys([int(place)])[0]
        reached = int(negatives[place + 1 :].sum()) + np.cumsum(low[::-1])[::-1]
        kept = np.flatnonzero((reached <= allowed) & (low > 0))
        if len(kept):
            return key_to_float((int(place) << LOW_BITS) + int(kept[0]))
    nearest = int(np.flatnonzero(low)[-1])
    similarity = key_to_float((int(place) << LOW_BITS) + nearest)
    if similarity < 1.0:  # just below the distance of the nearest pairs, all of which tie
        return float(np.nextafter(np.float32(similarity), np.float32(2.0)))
    raise ValueError(_unkept(rate, int(low[nearest]), pairs.total_negatives))


def _unkept(rate: float, identical: int, total: int) -> str:
    return (
        f"--far {rate:g} cannot be kept: {identical} of the {total} negative pairs of validation are identical "
        "embeddings under two labels, which every threshold accepts. The smallest rate that can be kept is "
        f"{identical / total:.4g}; ask for that, or remove the images that have two labels"
    )


def _positive_statistic(sweep: Sweep, positives: NDArray[np.int64], rank: int) -> float:
    """Return the similarity of the rank-th nearest positive pair, rank from 1; `positives` by upper key."""
    place, above = bin_of_rank(positives, rank)
    with one_thread():
        low = sweep.positive_keys(0, place << LOW_BITS, LOW_BINS)
    key, _ = bin_of_rank(low, rank - above)
    return key_to_float((place << LOW_BITS) + key)


def _check_fine_enough(pairs: Pairs, target: Target) -> None:
    total = pairs.total_negatives if target.kind == "far" else int(pairs.positive_pairs.sum())
    if target.rate * total < 1.0:
        raise ValueError(
            f"--{target.kind} must be at least one of the {total} {PAIRS_OF[target.kind]} pairs of validation "
            f"({1.0 / total:.2g}), got {target.rate:g}; ask for a higher rate or give more validation images"
        )
