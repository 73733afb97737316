"""The pairs that a threshold is set on, by the order of their similarities: counted in passes, never held.

Shapes: N images, D width, M negative pairs, P positive pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.calibration.counts import Ints, count_accepted
from dmlcore.calibration.intervals import Rate, accept_rate, reject_rate
from dmlcore.metrics.class_scores import check_collapse
from dmlcore.metrics.evaluation import choose_sweep
from dmlcore.metrics.inputs import REPORTED_FARS, Pairs, Settings
from dmlcore.metrics.pairwise.order_statistics import (
    HIGH_BINS,
    LOW_BINS,
    LOW_BITS,
    bin_of_rank,
    key_to_float,
    share_count,
)
from dmlcore.metrics.pairwise.tiles import one_thread
from dmlcore.metrics.verification import OperatingPoints


class Scores(Protocol):
    """Positive and negative pairs by similarity."""

    @property
    def totals(self) -> tuple[int, int]:
        """P and M."""
        ...

    def reached_by(self, negatives: int) -> float | None:
        """Return the lowest similarity that at most so many negative pairs reach; None: identical ones are more."""
        ...

    def of_positive(self, rank: int) -> float:
        """Return the similarity of the rank-th nearest positive pair, rank from 1."""
        ...

    def rates(self, similarity: float) -> dict[str, Rate]:
        """Return `far` and `frr` of the threshold."""
        ...


class MatrixScores:
    """The scores of all pairs of a set of embeddings."""

    def __init__(self, pairs: Pairs, largest_rate: float, memory_bytes: int = 2**30) -> None:
        """Take pairs; no negative statistic is asked for beyond `largest_rate` (or 0.1) of them."""
        self.pairs = pairs
        rate = max(largest_rate, REPORTED_FARS[0])
        settings = Settings(far_range=(rate, rate), memory_bytes=memory_bytes)
        self._sweep = choose_sweep(pairs, settings, torch.get_num_threads())

    @property
    def totals(self) -> tuple[int, int]:
        return int(self.pairs.positive_pairs.sum()), self.pairs.total_negatives

    @cached_property
    def _positives(self) -> Ints:
        """Positive pairs by upper key."""
        with one_thread():
            return self._sweep.positive_keys(LOW_BITS, 0, HIGH_BINS)

    @cached_property
    def _negatives(self) -> Ints:
        positives = self._positives
        if not positives.any():  # a group may have none; the sweep divides by their number
            positives = np.zeros_like(positives)
            positives[-1] = 1
        with one_thread():
            return self._sweep.count_keys(None, positives)

    def _low_negatives(self, place: int) -> NDArray[np.int64]:
        with one_thread():
            low: NDArray[np.int64] = self._sweep.count_low_keys([place])[0]
        return low

    def check_collapse(self) -> None:
        """Refuse embeddings where a tenth of the negative pairs cannot be told from identical ones."""
        total, far = self.pairs.total_negatives, REPORTED_FARS[0]
        rank = share_count(far, total)
        place, above = bin_of_rank(self._negatives, rank)
        key, _ = bin_of_rank(self._low_negatives(place), rank - above)
        check_collapse(OperatingPoints({far: key_to_float((place << LOW_BITS) + key)}, 0.0), total)

    def reached_by(self, negatives: int) -> float | None:
        first, _ = bin_of_rank(self._negatives, max(negatives, 1))
        # The keys above the first are read only where a tie fills the rest of it.
        for place in first + np.flatnonzero(self._negatives[first:]):
            low = self._low_negatives(int(place))
            reached = int(self._negatives[place + 1 :].sum()) + np.cumsum(low[::-1])[::-1]
            kept = np.flatnonzero((reached <= negatives) & (low > 0))
            if len(kept):
                return key_to_float((int(place) << LOW_BITS) + int(kept[0]))
        similarity = key_to_float((int(place) << LOW_BITS) + int(np.flatnonzero(low)[-1]))
        return above_all(similarity)

    def of_positive(self, rank: int) -> float:
        place, above = bin_of_rank(self._positives, rank)
        with one_thread():
            low = self._sweep.positive_keys(0, place << LOW_BITS, LOW_BINS)
        key, _ = bin_of_rank(low, rank - above)
        return key_to_float((place << LOW_BITS) + key)

    def rates(self, similarity: float) -> dict[str, Rate]:
        found = count_accepted(self.pairs, similarity)
        return {"far": accept_rate(self.pairs, found), "frr": reject_rate(self.pairs, found)}


def above_all(nearest: float) -> float | None:
    """Return the next similarity after that of the nearest pairs, all of which tie; none is above 1."""
    return float(np.nextafter(np.float32(nearest), np.float32(2.0))) if nearest < 1.0 else None


def largest_kept(bound: Callable[[int], float], most: int, target: float) -> int:
    """Search the largest number of errors k in 1..most with bound(k) <= target, to a thousandth of `most`.

    The bound grows about in proportion to k, so the next k is where a proportional bound would meet the target; a step
    that leaves more than half of the bracket is followed by a bisection. 0: there is none.
    """
    low, high, k, halve = 0, most + 1, most, False
    while high - low > max(1, most // 1000):
        value, width = bound(k), high - low
        low, high = (k, high) if value <= target else (low, k)
        halve = not halve and high - low > width / 2
        guess = (low + high) // 2 if halve else int(k * target / value)
        k = min(max(guess, low + 1), max(high - 1, low + 1))
    return low
