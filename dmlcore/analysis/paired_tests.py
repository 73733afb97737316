"""Tests of paired differences (variant minus `baseline`, seed by seed): one comparison, all of them, and how many seeds to take.

What the tests rest on. Paired t-test: the differences of the seeds are independent draws of one normal law. With 3
seeds (2 degrees of freedom) that cannot be checked, and only differences of about 2.5 standard deviations and more
reach p < 0.05; the seeds are paired because both variants share splits, initial weights and batch order. Wilcoxon
signed-rank test: the comparisons' differences are independent and symmetric about their median; comparisons that share
a data set are not fully independent, so its p-value is a summary and no proof.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from statsmodels.stats.power import TTestPower

from dmlcore.analysis.statistics import mean_and_deviation

FEWEST_COMPARISONS = 6
"""Below, no outcome of a two-sided signed-rank test reaches p < 0.05: 2 / 2^5 = 0.0625."""


TOO_FEW = "too few for a test"
POWER, ALPHA = 0.8, 0.05
FEWEST_SEEDS, MOST_SEEDS = 3, 10_000
COHEN_D = "cohen_d"


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
    return PairedTest(p_value(d, len(differences)), hedges_g(d, len(differences)), seeds_needed([d])[0])


def paired_columns(differences: Sequence[float]) -> dict[str, float | int | None]:
    """`paired_test` as the columns of a comparison; `add_seeds_needed` and `add_holm` take all comparisons at once."""
    d, pairs = cohen_d(differences), len(differences)
    return {
        "p_value": None if d is None else p_value(d, pairs),
        "p_holm": None,
        "effect_size": None if d is None else hedges_g(d, pairs),
        "seeds_needed": None,
        COHEN_D: d,
    }


def p_value(d: float, pairs: int) -> float:
    """Two-sided p-value of the paired t-test, whose statistic is d times the root of the number of pairs."""
    return float(2.0 * special.stdtr(pairs - 1, -abs(d) * math.sqrt(pairs)))


def cohen_d(differences: Sequence[float]) -> float | None:
    """mean / standard deviation (n - 1) of the differences; None below 2 of them or where they do not vary."""
    if len(differences) < 2:
        return None
    mean, spread = mean_and_deviation(differences)
    return mean / spread if spread > 1e-12 * max(abs(mean), 1e-300) else None


def hedges_g(d: float, pairs: int) -> float | None:
    """d times Gamma(v / 2) / (sqrt(v / 2) Gamma((v - 1) / 2)), v = n - 1; None for 2 pairs, where v - 1 = 0.

    Reference: Hedges, Distribution Theory for Glass's Estimator of Effect Size, 1981, equation 6e.
    """
    v = pairs - 1
    if v < 2:
        return None
    return d * math.exp(special.gammaln(v / 2) - special.gammaln((v - 1) / 2)) / math.sqrt(v / 2)


def seeds_needed(effects: Sequence[float | None]) -> list[int | None]:
    """The smallest n >= 3 at which a two-sided paired t-test sees each effect size with power 0.8 at level 0.05.

    Args:
        effects: Cohen's d, [m]; from few seeds it is itself uncertain, and so is this number.

    Returns:
        [m]; None over 10,000 and where there is no d.
    """
    known = [place for place, effect in enumerate(effects) if effect is not None]
    sizes = np.abs(np.array([effects[place] for place in known], dtype=np.float64))
    low, high = np.full(len(known), FEWEST_SEEDS - 1), np.full(len(known), MOST_SEEDS)
    while np.any(
        high - low > 1
    ):  # the power rises with n: halve the gap between too few and enough, for all at once
        middle = (low + high + 1) // 2
        reached = _reached(sizes, middle)
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    found: list[int | None] = [None] * len(effects)
    for place, pairs, enough in zip(known, high, _reached(sizes, high), strict=True):
        found[place] = int(pairs) if enough else None
    return found


def _reached(sizes: NDArray[np.float64], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each effect size, [m], is seen with that many pairs, [m]."""
    # not a number where the far tail underflows, which it does only where the power is near 1
    missed: NDArray[np.bool_] = TTestPower().power(sizes, pairs, ALPHA) < POWER
    return ~missed


def add_seeds_needed(rows: Sequence[Mapping[str, object]], metrics: Sequence[str]) -> list[dict[str, object]]:
    """The rows of `comparisons` with `test/M/difference/seeds_needed` in place of Cohen's d."""
    changed = [dict(row) for row in rows]
    for metric in metrics:
        name = f"test/{metric}/difference"
        effects = [row.pop(f"{name}/{COHEN_D}") for row in changed]
        for row, value in zip(changed, seeds_needed(effects), strict=True):  # type: ignore[arg-type]
            row[f"{name}/seeds_needed"] = value
    return changed


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
