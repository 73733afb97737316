"""Means, t-intervals and paired differences over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import special


class Estimate(NamedTuple):
    """A mean over seeds with its interval; None where there are too few seeds."""

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

    def columns(self, name: str) -> dict[str, float | None]:
        """Return the mean and the interval as columns of a table: `NAME/mean`, `NAME/low`, `NAME/high`."""
        return {f"{name}/mean": self.mean, f"{name}/low": self.low, f"{name}/high": self.high}


NO_ESTIMATE = Estimate(None, None, None, None, 0)


class PairedDifference(NamedTuple):
    """Variant minus baseline over the seeds that finished in both."""

    values: Sequence[float]
    """One a seed, by seed."""
    difference: Estimate
    relative: float | None
    """mean(difference) / mean(baseline) over the pairs; None without pairs or where mean(baseline) is not above 0."""


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation (n - 1) of [n >= 1] finite values; the deviation of one value is 0."""
    # `math.fsum` is exact, and for the few seeds of a configuration faster than a numpy array
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / max(len(values) - 1, 1))


def t_interval(values: Sequence[float], confidence: float) -> Estimate:
    """Return mean and two-sided t-interval of independent `values`, one a seed.

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
        return NO_ESTIMATE
    mean, deviation = mean_and_deviation(values)
    if n == 1:
        return Estimate(mean, None, None, None, 1)
    error = deviation / math.sqrt(n)
    # `stats.t.ppf` checks its arguments for a hundred times as long, and a large study has 10,000 intervals
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * error
    return Estimate(mean, mean - half, mean + half, error, n)


def paired_difference(
    baseline: Mapping[int, float], variant: Mapping[int, float], confidence: float
) -> PairedDifference:
    """Estimate variant - baseline over the seeds present in both.

    Formula: `t_interval` of d_s = variant_s - baseline_s. It leaves out 0 exactly when a paired t-test has
    p < 1 - confidence. Relative change: mean(d) / mean(baseline_s), over the same seeds.

    Args:
        baseline: seed -> value.
        variant: seed -> value.
        confidence: level of the interval, in (0, 1).
    """
    seeds = sorted(baseline.keys() & variant.keys())
    values = [variant[s] - baseline[s] for s in seeds]
    difference = t_interval(values, confidence)
    if difference.mean is None or (base := mean_and_deviation([baseline[s] for s in seeds])[0]) <= 0:
        return PairedDifference(values, difference, None)
    return PairedDifference(values, difference, difference.mean / base)
