"""t-intervals and paired differences against numbers worked out by hand and plain numpy."""

import numpy as np
import pytest

from dmlcore.analysis.statistics import Estimate, mean_and_deviation, paired_difference, t_interval

T_2 = 4.302652729749464  # 0.975 quantile of Student's t, 2 degrees of freedom (any printed table: 4.303)


def test_mean_and_deviation_are_those_of_numpy() -> None:
    random = np.random.default_rng(0)
    for count in (2, 3, 10, 1000):
        for scale in (1e-9, 1.0, 1e9):
            values = (scale * (random.normal(size=count) + 3)).tolist()
            np.testing.assert_allclose(
                mean_and_deviation(values), (np.mean(values), np.std(values, ddof=1)), rtol=1e-12
            )
    assert mean_and_deviation([0.25] * 3) == (0.25, 0.0)
    assert mean_and_deviation([7.0]) == (7.0, 0.0)


def test_interval_of_three_values_is_the_textbook_one() -> None:
    found = t_interval([1.0, 2.0, 3.0], 0.95)  # s = 1
    assert found.mean == 2.0
    assert found.low == pytest.approx(2.0 - T_2 / 3**0.5, abs=1e-8)
    assert found.high == pytest.approx(2.0 + T_2 / 3**0.5, abs=1e-8)
    assert found.half_width == pytest.approx(T_2 * (found.standard_error or 0), abs=1e-8)
    assert found.seeds == 3


def test_two_seeds_of_one_value_give_a_narrow_interval_not_nan() -> None:
    assert t_interval([0.5, 0.5], 0.95) == Estimate(0.5, 0.5, 0.5, 0.0, 2)


def test_too_few_seeds_have_no_interval() -> None:
    assert t_interval([], 0.95) == Estimate(None, None, None, None, 0)
    assert t_interval([0.3], 0.95) == Estimate(0.3, None, None, None, 1)
    assert t_interval([0.3], 0.95).half_width is None


def test_pairs_are_the_seeds_of_both_sides() -> None:
    baseline, variant = {0: 1.0, 1: 2.0, 2: 9.0}, {1: 2.5, 0: 1.1, 3: 7.0}
    found = paired_difference(baseline, variant, 0.95)
    differences = np.array([1.1 - 1.0, 2.5 - 2.0])
    assert found.difference.seeds == 2
    assert found.difference.mean == pytest.approx(differences.mean())
    half = 12.706204736 * differences.std(ddof=1) / 2**0.5  # 0.975 quantile, 1 degree of freedom
    assert found.difference.high == pytest.approx(differences.mean() + half, rel=1e-8)
    assert found.relative == pytest.approx(differences.mean() / 1.5)


def test_the_interval_covers_the_truth_at_its_level() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(2000, 4))
    intervals = [t_interval(list(row), 0.9) for row in draws]
    covered = np.mean([(i.low or 0) <= 3.0 <= (i.high or 0) for i in intervals])
    assert covered == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("baseline", [{}, {0: 0.0}, {0: -0.2}])
def test_no_relative_change_without_a_positive_base(baseline: dict[int, float]) -> None:
    assert paired_difference(baseline, {0: 0.1}, 0.95).relative is None
