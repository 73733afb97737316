"""Tests of paired differences (variant minus baseline, seed by seed): each comparison, all of them, seeds to take.

Assumptions. Paired t-test: the differences of the seeds are independent draws of one normal distribution. With 3 seeds
(2 degrees of freedom) that cannot be checked, and only differences of about 2.5 standard deviations and more reach
p < 0.05; the seeds are paired because both variants share splits, initial weights and batch order. Wilcoxon signed-rank
test: the comparisons' differences are independent and symmetric about their median; comparisons that share a data set
are not fully independent, so its p-value is a summary, not a proof.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from statsmodels.stats.power import TTestPower

from dmlcore.analysis.statistics import mean_and_deviation

MIN_COMPARISONS = 6
"""Below, no outcome of a two-sided signed-rank test reaches p < 0.05: 2 / 2^5 = 0.0625."""

TOO_FEW = "too few for a test"
POWER, ALPHA = 0.8, 0.05
MIN_SEEDS, MAX_SEEDS = 3, 10_000


class PairedTest(NamedTuple):
    """The test of one comparison in one metric; None where there are too few seeds or they do not vary."""

    p_value: float | None
    p_holm: float | None
    """Corrected for the family that it was tested with."""
    effect_size: float | None
    """Hedges' g: the paired Cohen's d less its bias in small samples."""
    seeds_needed: int | None
    """Pairs of seeds at which a difference of this size is seen with power 0.8 at level 0.05; None: over 10,000."""


class OverallTest(NamedTuple):
    """The test of one metric over all comparisons."""

    comparisons: int
    median: float | None
    p_value: float | None
    note: str | None
    """Why there is no p-value."""


def paired_tests(family: Sequence[Sequence[float]]) -> list[PairedTest]:
    """Test each comparison of a family by a paired t-test; see PairedTest.

    Args:
        family: of each comparison the differences of its seeds, [n].
    """
    effects = [cohen_d(differences) for differences in family]
    sized = list(zip(effects, map(len, family), strict=True))
    p_values = [None if d is None else p_value(d, pairs) for d, pairs in sized]
    unbiased = [None if d is None else hedges_g(d, pairs) for d, pairs in sized]
    columns = zip(p_values, holm(p_values), unbiased, seeds_needed(effects), strict=True)
    return [PairedTest(*tested) for tested in columns]


def cohen_d(differences: Sequence[float]) -> float | None:
    """Return mean / standard deviation (n - 1) of the differences; None below 2 of them or where they do not vary."""
    if len(differences) < 2:
        return None
    mean, spread = mean_and_deviation(differences)
    return mean / spread if spread > 1e-12 * max(abs(mean), 1e-300) else None


def p_value(d: float, pairs: int) -> float:
    """Return the two-sided p-value of the paired t-test, whose statistic is d * sqrt(pairs)."""
    # `stats.ttest_1samp` takes 1 to 3 ms a call: seconds for the 2,500 tests of 10,000 trials
    return float(2.0 * special.stdtr(pairs - 1, -abs(d) * math.sqrt(pairs)))


def hedges_g(d: float, pairs: int) -> float | None:
    """Return d * Gamma(v / 2) / (sqrt(v / 2) Gamma((v - 1) / 2)), v = n - 1; None for 2 pairs, where v - 1 = 0.

    Reference: Hedges, Distribution Theory for Glass's Estimator of Effect Size, 1981, equation 6e.
    """
    v = pairs - 1
    if v < 2:
        return None
    return d * math.exp(special.gammaln(v / 2) - special.gammaln((v - 1) / 2)) / math.sqrt(v / 2)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's corrected p-values of one family, in the order given; None stays None and does not count.

    Reference: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    # statsmodels' `multipletests` gives the same, but calls `gc.collect`: 0.1 to 0.4 s for each metric of a study
    known = [i for i, p in enumerate(p_values) if p is not None]
    values = np.array([p_values[i] for i in known], dtype=np.float64)
    order = np.argsort(values)
    steps = np.maximum.accumulate((len(known) - np.arange(len(known))) * values[order])
    corrected: list[float | None] = [None] * len(p_values)
    for rank, step in zip(order, steps, strict=True):
        corrected[known[rank]] = min(1.0, float(step))
    return corrected


def seeds_needed(effects: Sequence[float | None]) -> list[int | None]:
    """Return the smallest n >= 3 at which a two-sided paired t-test sees each effect with power 0.8 at level 0.05.

    Args:
        effects: Cohen's d, [m]; from few seeds it is itself uncertain, and so is this number.

    Returns:
        [m]; None over 10,000 and where there is no d.
    """
    known = [i for i, effect in enumerate(effects) if effect is not None]
    sizes = np.abs(np.array([effects[i] for i in known], dtype=np.float64))
    low, high = np.full(len(known), MIN_SEEDS - 1), np.full(len(known), MAX_SEEDS)
    # Power rises with n, so bisect, for all effects at once: `solve_power` takes 10 ms for each
    while np.any(high - low > 1):
        middle = (low + high + 1) // 2
        reached = _has_power(sizes, middle)
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    found: list[int | None] = [None] * len(effects)
    for i, pairs, enough in zip(known, high, _has_power(sizes, high), strict=True):
        found[i] = int(pairs) if enough else None
    return found


def _has_power(sizes: NDArray[np.float64], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether each effect size, [m], is seen with that many pairs, [m]."""
    # NaN where the far tail underflows, which happens only where the power is near 1: so `not below`
    below: NDArray[np.bool_] = TTestPower().power(sizes, pairs, ALPHA) < POWER
    return ~below


def overall_test(differences: Sequence[float]) -> OverallTest:
    """Test the comparisons' mean differences, [n], by Wilcoxon's signed-rank test, two-sided."""
    n = len(differences)
    median = float(np.median(differences)) if n else None
    if np.count_nonzero(differences) < MIN_COMPARISONS:
        return OverallTest(n, median, None, TOO_FEW)
    return OverallTest(n, median, float(stats.wilcoxon(differences).pvalue), None)
