"""The pairs that a threshold is set on, by the order of their similarities: counted in passes, never held.

Shapes: N images, D width, M negative pairs, P positive pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.calibration.counts import Floats, Ints, count_accepted
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

Value = Callable[[Floats, Floats], Floats]
"""Scores thresholds by their accepted positive and negative pairs; rises with the one, falls with the other."""
POINTS = 400
REFINED = 64  # upper keys whose lower bits are read in one pass


class Curve(NamedTuple):
    """Thresholds from near to far: `similarity [K]`, `far [K]`, `frr [K]`."""

    similarity: Floats
    far: Floats
    frr: Floats


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

    def best(self, value: Value) -> float | None:
        """Return the similarity of the best value, of the highest of several; None: every value is -inf."""
        ...

    def curve(self) -> Curve:
        """Return a few hundred thresholds with their rates."""
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

    def best(self, value: Value) -> float | None:
        """Find it exactly: an upper key is looked into where its best case beats what was found."""
        places, accepted, false = self._by_place()
        before = [np.concatenate([[0], counts[:-1]]) for counts in (accepted, false)]
        hoped = value(accepted.astype(np.float64), before[1].astype(np.float64))
        order = np.argsort(-hoped, kind="stable")
        found: tuple[float, int] | None = None
        for start in range(0, len(order), REFINED):
            taken = order[start : start + REFINED]
            taken = taken[np.isfinite(hoped[taken]) & (hoped[taken] >= (found[0] if found else -np.inf))]
            if not len(taken):
                break
            above = before[0][taken], before[1][taken]
            found = max(
                [*([found] if found else []), *self._refined(places[taken], above, value)], default=None
            )
        return key_to_float(found[1]) if found else None

    def _refined(self, places: Ints, above: tuple[Ints, Ints], value: Value) -> Iterator[tuple[float, int]]:
        """Yield the best value of each upper key with its key."""
        with one_thread():
            negatives = self._sweep.count_low_keys([int(place) for place in places])
            positives = [self._sweep.positive_keys(0, int(place) << LOW_BITS, LOW_BINS) for place in places]
        for number, place in enumerate(places):
            inside = positives[number], negatives[number]
            accepted, false = (
                above[kind][number] + np.cumsum(inside[kind][::-1])[::-1].astype(np.float64)
                for kind in (0, 1)
            )
            values = np.where(inside[0] + inside[1] > 0, value(accepted, false), -np.inf)
            low = len(values) - 1 - int(np.argmax(values[::-1]))
            if np.isfinite(values[low]):
                yield float(values[low]), (int(place) << LOW_BITS) + low

    def _by_place(self) -> tuple[Ints, Ints, Ints]:
        """Return the upper keys that have a pair, from near to far, and the pairs accepted down to each."""
        places = np.flatnonzero(self._positives + self._negatives)[::-1]
        return places, np.cumsum(self._positives[places]), np.cumsum(self._negatives[places])

    def curve(self) -> Curve:
        places, accepted, false = self._by_place()
        keep = spread_points(false, accepted)
        similarity = np.array([key_to_float(int(place) << LOW_BITS) for place in places[keep]])
        return Curve(similarity, false[keep] / self.totals[1], 1.0 - accepted[keep] / self.totals[0])


def spread_points(false: Floats | Ints, accepted: Floats | Ints) -> Ints:
    """Choose about POINTS of the thresholds, evenly in the accepted pairs of both kinds and in their logarithms."""
    scales = [scale for counts in (false, accepted) for scale in (counts, np.log1p(counts))]
    steps = [scale / max(float(scale[-1]), 1e-9) for scale in scales]
    marks = (np.sum(steps, axis=0) * POINTS / len(steps)).astype(np.int64)
    chosen: Ints = np.unique(marks, return_index=True)[1]
    return chosen


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
