"""The bend is found where there is one, and hardly ever where there is none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from dmlcore.analysis import breakpoint
from dmlcore.analysis.breakpoint import MIN_SEGMENT_POINTS, RankCorrelation, find_breakpoint, rank_correlation

GROUPS = [f"loss {i}" for i in np.repeat(np.arange(12), 3)]


def draw(
    truth: Callable[[np.ndarray], np.ndarray], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """12 losses x 3 settings; half of the noise belongs to the loss."""
    x = np.repeat(random.uniform(0.1, 0.5, 12), 3) + 0.03 * random.normal(size=36)
    own, shared = random.normal(size=36), np.repeat(random.normal(size=12), 3)
    return x, truth(x) + 0.0014 * (own + shared)


def straight(x: np.ndarray) -> np.ndarray:
    return 0.03 - 0.05 * x


def bent(x: np.ndarray) -> np.ndarray:
    return 0.03 - 0.05 * np.minimum(x, 0.3) + 0.05 * np.maximum(0.0, x - 0.3)


def naive_break(x: np.ndarray, y: np.ndarray) -> float:
    """Fit every candidate by least squares, one after the other."""
    ordered, best = np.sort(x), (np.inf, 0.0)
    for i in range(MIN_SEGMENT_POINTS, len(x) - MIN_SEGMENT_POINTS + 1):
        k = (ordered[i] + ordered[i - 1]) / 2
        design = np.stack([np.ones_like(x), x, np.where(x > k, x - k, 0.0)], axis=1)
        coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
        best = min(best, (float(np.sum((y - design @ coefficients) ** 2)), float(k)))
    return best[1]


def test_the_break_is_that_of_the_naive_search() -> None:
    x, y = draw(bent, np.random.default_rng(1))
    found = find_breakpoint(x, y, GROUPS)
    assert found is not None
    assert found.at == pytest.approx(naive_break(x, y))
    assert found.at == pytest.approx(0.3, abs=0.04)
    assert found.slopes == pytest.approx((-0.05, 0.05), abs=0.02)
    assert min(np.sum(x <= found.at), np.sum(x > found.at)) >= MIN_SEGMENT_POINTS
    assert found.p < 0.01


def test_without_noise_the_fit_goes_through_every_point() -> None:
    x = np.linspace(0.0, 1.0, 21)
    y = np.abs(x - 0.475)
    found = find_breakpoint(x, y, [str(i) for i in range(21)])
    assert found is not None
    assert found.at == pytest.approx(0.475)
    assert found.fitted == pytest.approx(y)


def test_the_test_keeps_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakpoint, "RESAMPLES", 199)
    random = np.random.default_rng(2)
    found = [find_breakpoint(*draw(straight, random), GROUPS) for _ in range(150)]
    share = np.mean([f is not None and f.p <= 0.05 for f in found])
    assert share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
    found = [find_breakpoint(*draw(bent, random), GROUPS) for _ in range(40)]
    assert np.mean([f is not None and f.p <= 0.05 for f in found]) > 0.8


def test_too_few_points_have_no_bend() -> None:
    x = np.arange(9.0)
    assert find_breakpoint(x, np.abs(x - 4), [str(i) for i in range(9)]) is None
    assert find_breakpoint(np.ones(20), np.arange(20.0), [str(i) for i in range(20)]) is None


def test_rank_correlation_is_scipys_with_an_interval_around_it() -> None:
    x, y = draw(straight, np.random.default_rng(5))
    found = rank_correlation(x, y, GROUPS, 0.95)
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low < found.rho < found.high < 0
    again = rank_correlation(x, y, GROUPS, 0.95)
    assert again == found


def width(found: RankCorrelation) -> float:
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


def test_the_interval_is_wider_where_points_hang_together() -> None:
    x, y = draw(lambda x: 0.03 - 0.005 * x, np.random.default_rng(6))
    together, apart = (rank_correlation(x, y, g, 0.95) for g in (GROUPS, [str(i) for i in range(36)]))
    assert width(together) > width(apart)


def test_no_interval_below_four_groups_and_no_rho_of_a_constant() -> None:
    x = np.arange(6.0)
    assert rank_correlation(x, x**2, ["a", "a", "b", "b", "c", "c"], 0.95).low is None
    assert rank_correlation(x, np.zeros(6), list("abcdef"), 0.95).rho is None
    assert rank_correlation(x[:2], x[:2], ["a", "b"], 0.95).rho is None
