"""The threshold of a target rate: an order statistic of the pairs' distances, never interpolated.

With a confidence it is a promise for classes not seen: the upper bound of the rate, not the rate, keeps the target.

Shapes: M negative pairs, P positive pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from dmlcore.calibration.counts import Floats
from dmlcore.calibration.scores import MatrixScores, Scores, largest_kept
from dmlcore.metrics.inputs import Pairs
from dmlcore.metrics.pairwise.order_statistics import distance

Kind = Literal["far", "frr", "precision", "cost", "f1"]
Over = Literal["all", "worst_group", "per_group"]
NEEDED: dict[str, tuple[str, ...]] = {
    "far": ("rate",),
    "frr": ("rate",),
    "precision": ("rate", "prior"),
    "cost": ("prior", "cost_false_accept", "cost_false_reject"),
    "f1": (),
}
PAIRS_OF = {"far": "negative", "frr": "positive"}


@dataclass(frozen=True)
class Target:
    """What the threshold is to keep or to reach, over the pairs of validation.

    `far`, `frr`: a rate to keep: negative pairs accepted, positive pairs rejected, share in (0, 1).
    `precision`: the share of true matches among accepted pairs, where a share `prior` of the pairs compared in use are
        matches: as many matches as can be accepted at that precision.
    `cost`: the least cost a pair, prior x frr x cost_false_reject + (1 - prior) x far x cost_false_accept.
    `f1`: the best F1 over the pairs as they are, 2 TP / (2 TP + FP + FN).
    `confidence` in [0.5, 1): the rate of classes not seen is to keep it with that confidence; None: that of validation.
    `over`: the pooled rate, that of the worst group (one threshold), or that of each group (a threshold for each).
    """

    kind: Kind
    rate: float | None = None
    confidence: float | None = None
    over: Over = "all"
    prior: float | None = None
    cost_false_accept: float | None = None
    cost_false_reject: float | None = None

    def __post_init__(self) -> None:
        needs = NEEDED.get(self.kind)
        if needs is None:
            raise ValueError(f"the target must be one of {', '.join(NEEDED)}, got {self.kind!r}")
        for name in ("rate", "prior", "cost_false_accept", "cost_false_reject"):
            value, share = getattr(self, name), name in ("rate", "prior")
            if (value is not None) != (name in needs):
                rule = "needs" if name in needs else "takes no"
                raise ValueError(f"target {self.kind} {rule} --{name.replace('_', '-')}, got {value}")
            if value is not None and not 0.0 < value < (1.0 if share else math.inf):
                option = self.kind if name == "rate" else name.replace("_", "-")
                what = "a share of the pairs in (0, 1)" if share else "a finite cost above 0"
                raise ValueError(f"--{option} must be {what}, got {value}")
        self._check_promise()

    def _check_promise(self) -> None:
        if self.confidence is not None and not 0.5 <= self.confidence < 1.0:
            raise ValueError(f"--confidence must be in [0.5, 1), as 0.95, got {self.confidence}")
        if self.kind not in PAIRS_OF and (self.confidence is not None or self.over != "all"):
            raise ValueError(
                f"--confidence, --worst-group and --per-group go with --far and --frr, not with {self.kind}: leave "
                "them out"
            )

    @property
    def limit(self) -> float:
        """The rate of a target that has one."""
        return self.rate or 0.0

    def reached(self, accepted: int, false: int, totals: tuple[int, int]) -> float | None:
        """Return the precision (None if nothing is accepted), cost or F1 of a threshold; of a rate target its rate."""
        far, frr, prior = false / totals[1], 1.0 - accepted / totals[0], self.prior or 0.0
        if self.kind in PAIRS_OF:
            return far if self.kind == "far" else frr
        if self.kind == "precision":
            every = prior * (1.0 - frr) + (1.0 - prior) * far
            return prior * (1.0 - frr) / every if every else None
        return abs(float(self.value(np.array([accepted * 1.0]), np.array([false * 1.0]), totals)[0]))

    def value(self, accepted: Floats, false: Floats, totals: tuple[int, int]) -> Floats:
        """Score thresholds that accept so many positive and negative pairs: higher is better, -inf is not allowed.

        It never falls with `accepted` and never rises with `false`.
        """
        far, frr, prior = false / totals[1], 1.0 - accepted / totals[0], self.prior or 0.0
        if self.kind == "f1":
            score: Floats = 2.0 * accepted / (accepted + false + totals[0])
            return score
        if self.kind == "cost":
            wrong = prior * (self.cost_false_reject or 0.0) * frr
            return -(wrong + (1.0 - prior) * (self.cost_false_accept or 0.0) * far)
        matches, others = prior * (1.0 - frr), (1.0 - prior) * far
        precise = (matches > 0) & (matches >= self.limit * (matches + others))
        return np.where(precise, accepted, -np.inf)


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
    scores = MatrixScores(pairs, deepest([target]), memory_bytes)
    if target.kind in PAIRS_OF:
        _check_fine_enough(scores, target)
    scores.check_collapse()
    return threshold_of(scores, target)


def deepest(targets: Sequence[Target]) -> float:
    """Return the largest share of the negative pairs that the search for these targets looks at."""
    return max({"far": target.limit, "frr": 0.0}.get(target.kind, 1.0) for target in targets)


def threshold_of(scores: Scores, target: Target) -> Threshold:
    """Find the threshold among any scores; see `find_threshold`."""
    if target.kind not in PAIRS_OF:
        best = scores.best(lambda accepted, false: target.value(accepted, false, scores.totals))
        if best is None:
            raise ValueError(
                f"--precision {target.limit:g} is not reached by any threshold at a prior of {target.prior:g}; ask for "
                "less, or train a better model"
            )
        return Threshold(best)
    _check_fine_enough(scores, target)
    most = errors_allowed(target.limit, _total(scores, target))
    errors = most if target.confidence is None else _promised(scores, target, most)
    similarity = _with_errors(scores, target.kind, errors)
    if similarity is None:
        raise ValueError(_unkept(target.limit, scores))
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

    if found := largest_kept(bound, most, target.limit):
        return found
    total = _total(scores, target)
    ladder = {min(2**step, total // 2) for step in range(total.bit_length())}
    smallest = min(bound(errors) for errors in sorted(ladder)[:20] if errors)
    raise ValueError(
        f"--{target.kind} {target.limit:g} cannot be promised with {100 * confidence:g} % confidence by so few classes "
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
    if target.limit * total < 1.0:
        raise ValueError(
            f"--{target.kind} must be at least one of the {total} {PAIRS_OF[target.kind]} pairs of validation "
            f"({1.0 / total:.2g}), got {target.limit:g}; ask for a higher rate or give more validation images"
        )
