"""Means, t-intervals and paired differences over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import special


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval; None where the seeds are too few."""

    mean: float | None
    low: float | None
    high: float | None
    standard_error: float | None
    seeds: int

    @property
    def half_width(self) -> float | None:
        """Half the width of the (symmetric) interval."""
        if self.low is None or self.high is None:
            return None
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class PairedDifference:
    """Variant minus `baseline` over the seeds that finished in both."""

    difference: Estimate
    relative: float | None
    """mean(difference) / mean(baseline) over the pairs; None without pairs or where mean(baseline) is not above 0."""


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1) of [n >= 1] finite values; of one value the deviation is 0.

    Sums are exact (`math.fsum`), and for the few seeds of a configuration faster than an array's.
    """
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / max(len(values) - 1, 1))


def t_interval(values: Sequence[float], confidence: float) -> Estimate:
    """Mean and two-sided t-interval of independent `values`, one a seed.

    Formula: mean +- t * s / sqrt(n), where s^2 = sum (x - mean)^2 / (n - 1) and t is the (1 + confidence) / 2 quantile
    of Student's t with n - 1 degrees of freedom.

    Args:
        values: [n].
        confidence: level of the interval, in (0, 1).

    Returns:
        n = 0: no mean; n = 1: no interval.
    """
    n = len(values)
    if n == 0:
        return Estimate(None, None, None, None, 0)
    mean, deviation = mean_and_deviation(values)
    if n == 1:
        return Estimate(mean, None, None, None, 1)
    error = deviation / math.sqrt(n)
    # Student's quantile itself: `stats.t.ppf` takes a hundred times as long for one number
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * error
    return Estimate(mean, mean - half, mean + half, error, n)


def paired_difference(
    baseline: Mapping[int, float], variant: Mapping[int, float], confidence: float
) -> PairedDifference:
    """Difference variant - baseline over the seeds present in both.

    Formula: `t_interval` of the d_s = variant_s - off_s. That it leaves out 0 is the same as a paired t-test with
    p < 1 - confidence. Relative change: mean(d) / mean(off_s), over the same seeds.

    Args:
        baseline: seed -> value.
        variant: seed -> value.
        confidence: level of the interval, in (0, 1).
    """
    seeds = sorted(baseline.keys() & variant.keys())
    difference = t_interval([variant[s] - baseline[s] for s in seeds], confidence)
    base = t_interval([baseline[s] for s in seeds], confidence).mean
    if base is None or difference.mean is None or base <= 0:
        return PairedDifference(difference, None)
    return PairedDifference(difference, difference.mean / base)
