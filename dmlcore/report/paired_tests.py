"""Tests of paired differences (arm minus `off`, seed by seed): one comparison, all of them, and how many seeds to take.

What the tests rest on. Paired t-test: the differences of the seeds are independent draws of one normal law. With 3
seeds (2 degrees of freedom) that cannot be checked, and only differences of about 2.5 standard deviations and more
reach p < 0.05; the seeds are paired because both arms share splits, initial weights and batch order. Wilcoxon
signed-rank test: the comparisons' differences are independent and symmetric about their median; comparisons that share
a data set are not fully independent, so its p-value is a summary and no proof.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats
from statsmodels.stats.power import TTestPower

FEWEST_COMPARISONS = 6
"""Below, no outcome of a two-sided signed-rank test reaches p < 0.05: 2 / 2^5 = 0.0625."""
TOO_FEW = "too few for a test"
POWER, ALPHA = 0.8, 0.05
FEWEST_SEEDS, MOST_SEEDS = 3, 10_000


@dataclass(frozen=True)
class PairedTest:
    """Of one comparison and metric; None where the seeds are too few or their differences do not vary."""

    p_value: float | None
    effect_size: float | None
    """Hedges' g: the paired Cohen's d less its bias in small samples."""
    seeds_needed: int | None
    """Pairs of seeds at which a difference of this size is seen with power 0.8 at level 0.05; None: over 10,000."""


@dataclass(frozen=True)
class OverallTest:
    """Of one metric over all comparisons."""

    comparisons: int
    median: float | None
    p_value: float | None
    note: str | None
    """Why there is no p-value."""


def paired_test(differences: Sequence[float]) -> PairedTest:
    """Paired t-test, effect size and seeds needed of the differences, [n], one a seed."""
    d = cohen_d(differences)
    if d is None:
        return PairedTest(None, None, None)
    p_value = float(stats.ttest_1samp(differences, 0.0).pvalue)
    return PairedTest(p_value, hedges_g(d, len(differences)), seeds_needed(d))


def paired_columns(differences: Sequence[float]) -> dict[str, float | int | None]:
    """`paired_test` as the columns of a comparison; `p_holm` is filled in once all comparisons are known."""
    found = paired_test(differences)
    return {
        "p_value": found.p_value,
        "p_holm": None,
        "effect_size": found.effect_size,
        "seeds_needed": found.seeds_needed,
    }


def cohen_d(differences: Sequence[float]) -> float | None:
    """mean / standard deviation (n - 1) of the differences; None below 2 of them or where they do not vary."""
    if len(differences) < 2:
        return None
    mean, spread = float(np.mean(differences)), float(np.std(differences, ddof=1))
    return mean / spread if spread > 1e-12 * max(abs(mean), 1e-300) else None


def hedges_g(d: float, pairs: int) -> float | None:
    """d times Gamma(v / 2) / (sqrt(v / 2) Gamma((v - 1) / 2)), v = n - 1; None for 2 pairs, where v - 1 = 0.

    Reference: Hedges, Distribution Theory for Glass's Estimator of Effect Size, 1981, equation 6e.
    """
    v = pairs - 1
    if v < 2:
        return None
    return d * math.exp(special.gammaln(v / 2) - special.gammaln((v - 1) / 2)) / math.sqrt(v / 2)


def seeds_needed(d: float) -> int | None:
    """The smallest n >= 3 at which a two-sided paired t-test sees effect size d with power 0.8 at level 0.05.

    Args:
        d: Cohen's d; from few seeds it is itself uncertain, and so is this number.
    """
    effect, power = abs(d), TTestPower()

    def reached(pairs: int) -> bool:
        # not a number where the far tail underflows, which it does only where the power is near 1
        return not power.power(effect, pairs, ALPHA) < POWER

    if not reached(MOST_SEEDS):
        return None
    return FEWEST_SEEDS + bisect_left(range(FEWEST_SEEDS, MOST_SEEDS), True, key=reached)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's corrected p-values of one family, in the order given; None stays None and does not count.

    As statsmodels' `multipletests(method="holm")`, which spends a tenth of a second on collecting garbage.

    Reference: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    known = [i for i, p in enumerate(p_values) if p is not None]
    values = np.array([p_values[i] for i in known], dtype=np.float64)
    order = np.argsort(values)
    steps = np.maximum.accumulate((len(known) - np.arange(len(known))) * values[order])
    corrected: list[float | None] = [None] * len(p_values)
    for place, step in zip(order, steps, strict=True):
        corrected[known[place]] = min(1.0, float(step))
    return corrected


def add_holm(rows: Sequence[Mapping[str, object]], metrics: Sequence[str]) -> list[dict[str, object]]:
    """The rows of `comparisons` with `test/M/difference/p_holm`; a family is one metric over all rows of the study."""
    changed = [dict(row) for row in rows]
    for metric in metrics:
        name = f"test/{metric}/difference"
        corrected = holm([row[f"{name}/p_value"] for row in changed])  # type: ignore[misc]
        for row, value in zip(changed, corrected, strict=True):
            row[f"{name}/p_holm"] = value
    return changed


def overall_test(differences: Sequence[float]) -> OverallTest:
    """Wilcoxon's signed-rank test over the comparisons' mean differences, [n], two-sided."""
    n = len(differences)
    median = float(np.median(differences)) if n else None
    if np.count_nonzero(differences) < FEWEST_COMPARISONS:
        return OverallTest(n, median, None, TOO_FEW)
    return OverallTest(n, median, float(stats.wilcoxon(differences).pvalue), None)


def overall_tests(rows: Sequence[Mapping[str, object]], metrics: Sequence[str]) -> dict[str, OverallTest]:
    """Metric -> `overall_test` over the rows of `comparisons` that have a paired difference."""
    found = {}
    for metric in metrics:
        means = [row[f"test/{metric}/difference/mean"] for row in rows]
        found[metric] = overall_test([mean for mean in means if isinstance(mean, float)])
    return found
