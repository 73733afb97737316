"""Intervals of pooled error rates, with classes as the independent draws.

Shapes: C classes.

Pairs share images and classes, so they are not independent trials: an interval for a share of independent trials
(Wilson, Clopper-Pearson) is far too narrow. docs/calibration.md has the measured coverage of these intervals, of
Wilson's and of a bootstrap over classes, and where each is too narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from dmlcore.calibration.counts import Accepted, Floats, Ints
from dmlcore.metrics.inputs import Pairs

LEVEL = 0.95


@dataclass(frozen=True)
class Rate:
    """A pooled error rate: `errors` of `pairs`, its standard error, its 95 % interval, and the number of classes.

    `trials`: disjoint classes or pairs of classes, which are independent; `worst`: the highest FAR of one class.
    """

    errors: int
    pairs: int
    standard_error: float
    low: float
    high: float
    classes: int
    trials: int = 1
    worst: float = 0.0

    @property
    def value(self) -> float:
        return self.errors / self.pairs

    def upper(self, confidence: float) -> float:
        """Bound the rate of classes not seen from above; see `upper_bound`."""
        return upper_bound(self, confidence)


@dataclass(frozen=True)
class Drift:
    """Test minus validation of one rate at the same threshold, with the 95 % interval of the difference."""

    difference: float
    low: float
    high: float
    ratio: float | None
    """Test over validation; None where validation is 0."""


def reject_rate(pairs: Pairs, found: Accepted) -> Rate:
    """Estimate the pooled FRR, a ratio of sums over classes.

    Variance: C / (C - 1) sum_i (e_i - R p_i)^2 / P^2, e_i rejected of the p_i positive pairs of class i.
    Reference: Cochran, Sampling Techniques, 1977, section 9A.
    """
    keep = pairs.positive_pairs > 0
    total = pairs.positive_pairs[keep]
    errors = total - found.positive[keep]
    residuals = errors - errors.sum() / total.sum() * total
    variance = float(residuals @ residuals) / float(total.sum()) ** 2
    return interval_of(int(errors.sum()), int(total.sum()), variance, int(keep.sum()), int(keep.sum()))


def accept_rate(pairs: Pairs, found: Accepted) -> Rate:
    """Estimate the pooled FAR, a ratio of sums over pairs of classes that may share a class.

    Variance: C / (C - 1) (sum_i (sum_j R_ij)^2 - sum_{i<j} R_ij^2) / M^2, R_ij = a_ij - F m_ij, a_ij accepted of the
    m_ij pairs between the classes i and j; not below what pairs of classes independent of each other would give.
    Reference: Aronow, Samii, Assenova, Cluster-Robust Variance Estimation for Dyadic Data, 2015, equation 5.
    """
    errors, total = int(found.negative.sum()) // 2, pairs.total_negatives
    rate, classes = errors / total, len(pairs.row_count)
    by_class: Floats = found.negative - rate * pairs.negative_pairs
    own = found.square_sum - 2.0 * rate * found.cross_sum + rate**2 * _squared_pairs(pairs)
    own = max(own, 0.0)  # a sum of squares; rounding can take it below 0
    variance = max(float(by_class @ by_class) - own, own) / float(total) ** 2
    worst = float((found.negative / np.maximum(pairs.negative_pairs, 1)).max())
    return interval_of(errors, total, variance, classes, classes // 2, worst)


def _squared_pairs(pairs: Pairs) -> float:
    """Sum m_ij^2 over the classes i < j: m_ij = n_i n_j, or q_i g_j + q_j g_i of queries and gallery."""
    q, g = (counts.astype(np.float64) for counts in (pairs.row_count, pairs.col_count))
    if pairs.symmetric:
        return float((q**2).sum() ** 2 - (q**4).sum()) / 2.0
    return float((q**2).sum() * (g**2).sum() + (q @ g) ** 2 - 2.0 * (q**2 @ g**2))


def rate_bounds(rates: Floats, draws: Ints, level: float) -> tuple[Floats, Floats]:
    """Bound the rate of each class, from its few images: `rates [C]` over `draws [C]` -> low and high, [C].

    A class's pairs share its images. A mean over all pairs of n images deviates no more than one over floor(n / 2)
    disjoint pairs, whose law need not be known: n kl(rate, bound) = log(2 / level), kl the relative entropy of two
    coins. Valid at every n, and wide. Reference: Hoeffding, Probability Inequalities for Sums of Bounded Random
    Variables, 1963, theorem 1 and section 5b.
    """
    allowed = np.divide(math.log(2.0 / level), draws, out=np.full(len(draws), np.inf), where=draws > 0)
    return _farthest(rates, np.zeros_like(rates), allowed), _farthest(rates, np.ones_like(rates), allowed)


def _farthest(rates: Floats, end: Floats, allowed: Floats) -> Floats:
    """Find by bisection how far towards `end` the relative entropy stays within `allowed`."""
    inside, outside = rates.copy(), end.copy()
    for _ in range(50):
        middle = (inside + outside) / 2.0
        entropy = special.rel_entr(rates, middle) + special.rel_entr(1.0 - rates, 1.0 - middle)
        inside, outside = (
            np.where(entropy <= allowed, middle, inside),
            np.where(entropy <= allowed, outside, middle),
        )
    return np.where(np.isinf(allowed), end, inside)


def drift(validation: Rate, test: Rate) -> Drift:
    """Compare a rate on two splits, whose classes are independent draws."""
    moved = test.value - validation.value
    error = math.hypot(validation.standard_error, test.standard_error)
    half = _quantile(min(validation.classes, test.classes)) * error
    ratio = test.value / validation.value if validation.errors else None
    return Drift(moved, moved - half, moved + half, ratio)


def upper_bound(rate: Rate, confidence: float) -> float:
    """Bound the rate of classes not seen from above, missed with probability 1 - confidence or less.

    One-sided t-bound on the log-odds, with the standard error of the rate and C - 1 degrees of freedom, about the rate
    that log(1 / (1 - confidence)) more classes (3 at 95 %) as bad as the worst one of the C would give: so large a
    share of the classes can be worse than all C that were seen (rule of three), hubs above all. That part is of FAR
    alone: the FRR of a class comes from few pairs, and its highest is mostly chance. Without an error, the bound is
    Clopper and Pearson's for as many independent trials as there are disjoint pairs of classes (FAR) or classes (FRR).
    """
    if rate.classes < 2:
        return 1.0
    if rate.errors in (0, rate.pairs):
        return 1.0 if rate.errors else 1.0 - (1.0 - confidence) ** (1.0 / max(rate.trials, 1))
    unseen = -2.0 * math.log(
        1.0 - confidence
    )  # each class is an end of its pairs: twice its share of the classes
    centre = (rate.value * (rate.classes - 1) + unseen * rate.worst) / (rate.classes - 1 + unseen)
    centre = max(centre, rate.value)
    half = float(stats.t.ppf(confidence, rate.classes - 1)) * rate.standard_error
    return float(special.expit(special.logit(centre) + half / (rate.value * (1.0 - rate.value))))


def bound_of_any_law(rate: Rate, confidence: float) -> float:
    """Bound the rate whatever the law of the classes, by Hoeffding's inequality for the independent trials."""
    trials = np.array([rate.trials])
    return float(rate_bounds(np.array([rate.value]), trials, 2.0 * (1.0 - confidence))[1][0])


def interval_of(
    errors: int, total: int, variance: float, classes: int, trials: int, worst: float = 0.0
) -> Rate:
    """Build the t-interval on the log-odds; without any error (or success), Clopper and Pearson's of `trials`."""
    trials = max(trials, 1)
    if classes < 2:
        return Rate(errors, total, math.nan, 0.0, 1.0, classes, trials, worst)
    error = math.sqrt(variance * classes / (classes - 1))
    if errors in (0, total):
        # No variance to estimate: count pairs of classes that share none, which are independent.
        exact = stats.binomtest(trials if errors else 0, trials).proportion_ci(LEVEL, "exact")
        return Rate(errors, total, error, float(exact.low), float(exact.high), classes, trials, worst)
    rate = errors / total
    # On the log-odds (delta method), so that the ends stay within 0..1.
    half = _quantile(classes) * error / (rate * (1.0 - rate))
    low, high = special.expit(special.logit(rate) + np.array([-half, half])).tolist()
    return Rate(errors, total, error, low, high, classes, trials, worst)


def _quantile(classes: int) -> float:
    return float(stats.t.ppf((1.0 + LEVEL) / 2.0, max(classes - 1, 1)))
