"""The threshold of a target rate: an order statistic of the pairs' distances, never interpolated.

With a confidence it is a promise for classes not seen: the upper bound of the rate, not the rate, keeps the target.

Shapes: M negative pairs, P positive pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from dmlcore.calibration.scores import MatrixScores, Scores, largest_kept
from dmlcore.metrics.inputs import Pairs
from dmlcore.metrics.pairwise.order_statistics import distance

Kind = Literal["far", "frr"]
Over = Literal["all", "worst_group", "per_group"]
PAIRS_OF = {"far": "negative", "frr": "positive"}


@dataclass(frozen=True)
class Target:
    """A pooled rate to keep: `far` = negative pairs accepted, `frr` = positive pairs rejected, share in (0, 1).

    `confidence` in [0.5, 1): the rate of classes not seen is to keep it with that confidence; None: that of validation.
    `over`: the pooled rate, that of the worst group (one threshold), or that of each group (a threshold for each).
    """

    kind: Kind
    rate: float
    confidence: float | None = None
    over: Over = "all"

    def __post_init__(self) -> None:
        if self.kind not in PAIRS_OF:
            raise ValueError(f"the target must be `far` or `frr`, got {self.kind!r}")
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"--{self.kind} must be a share of the pairs in (0, 1), got {self.rate}")
        if self.confidence is not None and not 0.5 <= self.confidence < 1.0:
            raise ValueError(f"--confidence must be in [0.5, 1), as 0.95, got {self.confidence}")


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
    positive distances, the smallest threshold that rejects at most r P of them. Neither rate is over its target. With a
    confidence, of fewer errors: as many as keep the upper bound (`intervals.upper_bound`) within the target.

    Args:
        pairs: of `dmlcore.metrics.inputs.build_pairs`.
        target: the rate to keep.
        memory_bytes: bound on the working memory.

    Raises:
        ValueError: collapsed embeddings, a rate finer than one pair, more identical negative pairs than the FAR
            allows, or too few classes for the confidence.
    """
    scores = MatrixScores(pairs, target.rate if target.kind == "far" else 0.0, memory_bytes)
    _check_fine_enough(scores, target)
    scores.check_collapse()
    return threshold_of(scores, target)


def threshold_of(scores: Scores, target: Target) -> Threshold:
    """Find the threshold among any scores; see `find_threshold`."""
    _check_fine_enough(scores, target)
    most = errors_allowed(target.rate, _total(scores, target))
    errors = most if target.confidence is None else _promised(scores, target, most)
    similarity = _with_errors(scores, target.kind, errors)
    if similarity is None:
        raise ValueError(_unkept(target.rate, scores))
    return Threshold(similarity)


def errors_allowed(rate: float, total: int) -> int:
    """Return floor(rate x total), exactly: 0.1 of 30 is 3; and P - floor(r P) = ceil((1 - r) P)."""
    return math.floor(Fraction(repr(float(rate))) * total)


def _with_errors(scores: Scores, kind: str, errors: int) -> float | None:
    """Return the similarity with at most so many errors of its kind; None: identical negative pairs are more."""
    return scores.reached_by(errors) if kind == "far" else scores.of_positive(scores.totals[0] - errors)


def _promised(scores: Scores, target: Target, most: int) -> int:
    """Count the errors at which the upper bound is still within the target."""
    confidence = target.confidence or 0.0

    def bound(errors: int) -> float:
        similarity = _with_errors(scores, target.kind, errors)
        return 1.0 if similarity is None else scores.rates(similarity)[target.kind].upper(confidence)

    if found := largest_kept(bound, most, target.rate):
        return found
    total = _total(scores, target)
    ladder = {min(2**step, total // 2) for step in range(total.bit_length())}
    smallest = min(bound(errors) for errors in sorted(ladder)[:20] if errors)
    raise ValueError(
        f"--{target.kind} {target.rate:g} cannot be promised with {100 * confidence:g} % confidence by so few classes "
        f"of validation; the smallest target that can be is {_up(smallest):.3g}: ask for that, or give more classes"
    )


def _up(value: float) -> float:
    """Round up to 3 digits."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / step) * step


def _unkept(rate: float, scores: Scores) -> str:
    total = scores.totals[1]
    identical = scores.rates(1.0)["far"].errors
    return (
        f"--far {rate:g} cannot be kept: {identical} of the {total} negative pairs of validation are identical "
        "embeddings under two labels, which every threshold accepts. The smallest rate that can be kept is "
        f"{identical / total:.4g}; ask for that, or remove the images that have two labels"
    )


def _total(scores: Scores, target: Target) -> int:
    return scores.totals[target.kind == "far"]


def _check_fine_enough(scores: Scores, target: Target) -> None:
    total = _total(scores, target)
    if target.rate * total < 1.0:
        raise ValueError(
            f"--{target.kind} must be at least one of the {total} {PAIRS_OF[target.kind]} pairs of validation "
            f"({1.0 / total:.2g}), got {target.rate:g}; ask for a higher rate or give more validation images"
        )
