"""Paired tests against formulas and tables worked out by hand, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.metric_labels import METRICS
from dmlcore.analysis.paired_tests import (
    TOO_FEW,
    cohen_d,
    hedges_g,
    holm,
    overall_test,
    paired_tests,
    seeds_needed,
)
from dmlcore.report.outputs import metrics_summary
from tests.analysis.synthetic import TCM, rows, study


def test_the_paired_t_test_is_the_textbook_one():
    """Differences 1, 2, 3: t = 2 / (1 / sqrt 3) = 2 sqrt 3 on 2 degrees of freedom; p = 1 - t / sqrt(t^2 + 2) there."""
    (found,) = paired_tests([[1.0, 2.0, 3.0]])
    t = 2.0 * math.sqrt(3.0)
    assert found.p_value == pytest.approx(1.0 - t / math.sqrt(t**2 + 2.0))
    assert cohen_d([1.0, 2.0, 3.0]) == pytest.approx(2.0)
    assert found.effect_size == pytest.approx(2.0 / math.sqrt(math.pi))  # J(2) = Gamma(1) / (1 Gamma(1/2))


@pytest.mark.parametrize(
    ("df", "factor"), [(2, 0.5642), (3, 0.7236), (4, 0.7979), (10, 0.9228), (20, 0.9619)]
)
def test_hedges_factor_is_that_of_his_table(df, factor):
    assert hedges_g(1.0, df + 1) == pytest.approx(factor, abs=5e-4)


def test_hedges_g_has_no_bias_in_small_samples():
    draws = np.random.default_rng(0).normal(0.7, 1.0, size=(20_000, 5))
    plain = draws.mean(axis=1) / draws.std(axis=1, ddof=1)
    assert plain.mean() > 0.8
    assert np.mean([hedges_g(d, 5) for d in plain]) == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize("values", [[], [0.3], [0.5, 0.5], [0.0, 0.0, 0.0]])
def test_too_few_or_equal_differences_have_no_test(values):
    (found,) = paired_tests([values])
    assert (found.p_value, found.effect_size, found.seeds_needed) == (None, None, None)


@pytest.mark.parametrize(("d", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10), (2.0, 5)])
def test_seeds_needed_are_those_of_power_tables(d, pairs):
    """Cohen's tables and G*Power: one-sample t-test, two-sided, alpha 0.05, power 0.8."""
    assert seeds_needed([d, None, -d]) == [pairs, None, pairs]


def test_seeds_needed_at_both_ends():
    assert seeds_needed([1e-4, 0.0, 1e9, 4.0]) == [None, None, 3, 3]
    assert seeds_needed([]) == []


@pytest.mark.parametrize("d", [0.3, 0.9, 1.7, 2.5, 3.0, 3.5, 5.0, 12.0])
def test_the_number_of_seeds_is_that_of_the_non_central_t(d):
    """The far tail is left out: below 1e-6 here."""

    def power(n):
        return stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, d * math.sqrt(n))

    assert seeds_needed([d])[0] == next(n for n in range(3, 200) if power(n) >= 0.8)


def test_the_power_is_reached_in_simulation():
    (pairs,) = seeds_needed([1.2])
    for n, above in ((pairs, True), (pairs - 1, False)):
        draws = np.random.default_rng(n).normal(1.2, 1.0, size=(20_000, n))
        power = np.mean(stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05)
        assert (power >= 0.795) == above


def test_holm_by_hand():
    """Sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04, made rising: .04 .06 .06 .06."""
    assert holm([0.03, None, 0.01, 0.04, 0.02]) == [
        pytest.approx(0.06),
        None,
        pytest.approx(0.04),
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([None]) == [None]


def test_holm_equals_statsmodels():
    for p in np.random.default_rng(0).random((4, 9)) ** 3:
        assert holm(list(p)) == pytest.approx(list(multipletests(p, method="holm")[1]))


def test_the_signed_rank_test_by_hand():
    """Six differences of one sign: 2 of the 2^6 sign patterns are as extreme."""
    found = overall_test([0.1, 0.2, 0.3, 0.4, 0.5, 0.7])
    assert found.p_value == pytest.approx(2 / 64)
    assert (found.comparisons, found.note) == (6, None)
    assert found.median == pytest.approx(0.35)


@pytest.mark.parametrize("values", [[], [0.1] * 1, [0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5, 0.0]])
def test_fewer_than_six_comparisons_are_too_few(values):
    found = overall_test(values)
    assert (found.p_value, found.note, found.comparisons) == (None, TOO_FEW, len(values))


@pytest.mark.parametrize("metric", METRICS)
def test_the_columns_of_the_comparisons_equal_a_recount(metric):
    made = study(rows())
    table, name = comparisons(made), f"test/{metric}/difference"
    p_values = []
    for row in table.iter_rows(named=True):
        cell = next(c for c in made.cells if (c.backbone, c.loss) == (row["backbone"], row["loss"]))
        baseline, on = cell.values("baseline", f"test/{metric}"), cell.values(TCM, f"test/{metric}")
        seeds = sorted(baseline)
        p_values.append(stats.ttest_rel([on[s] for s in seeds], [baseline[s] for s in seeds]).pvalue)
        assert row[f"{name}/p_value"] == pytest.approx(p_values[-1])
        assert (row[f"{name}/p_value"] < 0.05) == (row[f"{name}/low"] > 0 or row[f"{name}/high"] < 0)
        assert row[f"{name}/seeds_needed"] >= 3
    assert table[f"{name}/p_holm"].to_list() == pytest.approx(holm(p_values))
    assert (table[f"{name}/p_holm"] >= table[f"{name}/p_value"]).all()


def test_the_summary_says_that_four_comparisons_are_too_few():
    found = metrics_summary(study(rows()))["overall"][TCM]["test/opis"]
    assert (found["comparisons"], found["wilcoxon_p"], found["note"]) == (4, None, TOO_FEW)
    six = metrics_summary(study(rows(losses=("a", "b", "c"))))["overall"][TCM]["test/opis"]
    assert six["wilcoxon_p"] == pytest.approx(2 / 64)
