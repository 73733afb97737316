"""Pooled comparisons: published values, a naive loop, and what a forest of a made-up study holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.meta_analysis import forest_sentences, forest_table, forests
from dmlcore.analysis.random_effects import random_effects
from dmlcore.metrics.plot import png_bytes
from dmlcore.report.figures.forest import forest_figure
from dmlcore.report.html.page import report_html
from tests.analysis.synthetic import TCM, rows, study

# 13 trials of the BCG vaccine: cases and others among the vaccinated, cases and others among the controls.
# Colditz et al., Efficacy of BCG vaccine in the prevention of tuberculosis, JAMA 1994.
BCG = [
    (4, 119, 11, 128),
    (6, 300, 29, 274),
    (3, 228, 11, 209),
    (62, 13536, 248, 12619),
    (33, 5036, 47, 5761),
    (180, 1361, 372, 1079),
    (8, 2537, 10, 619),
    (505, 87886, 499, 87892),
    (29, 7470, 45, 7232),
    (17, 1699, 65, 1600),
    (186, 50448, 141, 27197),
    (5, 2493, 3, 2338),
    (27, 16886, 29, 17825),
]


def log_relative_risks():
    a, b, c, d = np.array(BCG, dtype=float).T
    effects = np.log((a / (a + b)) / (c / (c + d)))
    return effects.tolist(), (1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)).tolist()


def test_the_published_example():
    """Q of Viechtbauer, JSS 36(3), 2010; tau^2 (Paule-Mandel = empirical Bayes) of Sidik and Jonkman, 2007."""
    found = random_effects(*log_relative_risks(), 0.95)
    assert found.q == pytest.approx(152.2330, abs=1.0e-3)
    assert found.q_p_value < 1.0e-4
    assert found.tau_squared == pytest.approx(0.318, abs=5.0e-4)
    assert found.i_squared == pytest.approx(0.9212, abs=5.0e-4)


def naive(effects, variances, confidence):
    """Bisect tau^2 until the generalised Q is k - 1, term by term."""

    def pooled(tau_squared):
        weights = [1 / (v + tau_squared) for v in variances]
        mean = sum(w * y for w, y in zip(weights, effects, strict=True)) / sum(weights)
        return mean, weights, sum(w * (y - mean) ** 2 for w, y in zip(weights, effects, strict=True))

    k = len(effects)
    low, high = 0.0, 1.0
    while pooled(high)[2] > k - 1:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if pooled(middle)[2] > k - 1 else (low, middle)
    tau_squared = low if pooled(0.0)[2] > k - 1 else 0.0
    mean, weights, q = pooled(tau_squared)
    half = stats.t.ppf((1 + confidence) / 2, k - 1) * math.sqrt(max(1.0, q / (k - 1)) / sum(weights))
    return mean, mean - half, mean + half, [w / sum(weights) for w in weights], tau_squared


@pytest.mark.parametrize("size", [1.0, 1.0e-3, 1.0e-6])
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_pooling_is_that_of_a_naive_loop_at_every_scale(size, spread):
    random = np.random.default_rng(5)
    for count in (2, 3, 8, 30):
        variances = size**2 * random.uniform(0.2, 2.0, count)
        effects = size * spread * random.normal(size=count) + np.sqrt(variances) * random.normal(size=count)
        found = random_effects(effects.tolist(), variances.tolist(), 0.9)
        mean, low, high, weights, tau_squared = naive(effects.tolist(), variances.tolist(), 0.9)
        assert found[:3] == pytest.approx((mean, low, high), rel=1.0e-4, abs=1.0e-5 * size)
        assert found.weights == pytest.approx(weights, rel=1.0e-3)
        assert found.tau_squared == pytest.approx(tau_squared, rel=1.0e-3, abs=1.0e-6 * size**2)
        assert (found.high - found.low) / 2 == pytest.approx(
            found.standard_error * stats.t.ppf(0.95, count - 1)
        )


def test_a_common_effect_is_covered_as_often_as_promised():
    random, covered, repeats = np.random.default_rng(1), 0, 400
    for _ in range(repeats):
        variances = random.uniform(0.5, 2.0, 6)
        effects = 1.0 + 0.8 * random.normal(size=6) + np.sqrt(variances) * random.normal(size=6)
        found = random_effects(effects.tolist(), variances.tolist(), 0.95)
        covered += found.low <= 1.0 <= found.high
    assert covered / repeats > 0.92


MADE_UP = {"datasets": ("birds", "glyphs"), "losses": ("smooth_ap", "triplet")}


def test_a_forest_has_each_comparison_and_what_they_come_to():
    made = study(rows(**MADE_UP))
    found = forests(made)
    assert [(f.metric, f.variant, len(f.rows)) for f in found] == [
        ("opis_corrected", TCM, 8),
        ("map_at_r", TCM, 8),
    ]
    table = forest_table(found)
    here = table.filter(metric="test/map_at_r")
    assert here["kind"].to_list() == ["comparison"] * 8 + ["data set"] * 2 + ["all"]
    assert here["weight"].sum() == pytest.approx(1.0)
    source = comparisons(made)
    kept = here.filter(kind="comparison").join(source, on=["dataset", "backbone", "loss"])
    assert kept["mean"].to_list() == kept["test/map_at_r/difference/mean"].to_list()
    first, second = forest_sentences(made)
    assert first.startswith(
        "Pooled over 8 comparisons of tcm(negative_margin=0.5, positive_margin=0.9), whatever"
    )
    assert "between 2 data sets Q = " in second
    assert "signed-rank test: p = " in second


def test_over_several_data_sets_opis_is_pooled_as_log_ratios():
    """Naive: per seed ln(variant / baseline), and its t-interval."""
    made = study(rows(**MADE_UP))
    forest, accuracy = forests(made)
    assert forest.log_ratio
    assert not accuracy.log_ratio
    assert forest.signed_rank == f"p = {stats.wilcoxon([e.mean for e in forest.effects]).pvalue:.2g}"
    for row, effect in zip(forest.rows, forest.effects, strict=True):
        (cell,) = [c for c in made.cells if all(c.names[name] == row[name] for name in c.names)]
        before = cell.values("baseline", "test/opis_corrected")
        after = cell.values(TCM, "test/opis_corrected")
        logs = [math.log(after[seed] / before[seed]) for seed in before]
        error = np.std(logs, ddof=1) / math.sqrt(len(logs))
        half = stats.t.ppf(0.975, len(logs) - 1) * error
        expected = (np.mean(logs), np.mean(logs) - half, np.mean(logs) + half, error**2)
        assert effect == pytest.approx(expected)
        assert forest.shown(effect.mean) == pytest.approx(100 * (np.exp(np.mean(logs)) - 1))
    assert set(forest_table([forest])["scale"]) == {"log ratio"}
    assert " of the log ratio" in forest_sentences(made)[0]
    assert "corr. +" in forest_sentences(made)[0] or "corr. -" in forest_sentences(made)[0]


def test_one_data_set_or_a_corrected_opis_below_0_is_pooled_as_it_is():
    one = study(rows(datasets=("birds",), losses=("smooth_ap", "triplet")))
    assert not any(forest.log_ratio for forest in forests(one))
    table = rows(**MADE_UP)
    table[0]["test/opis_corrected"] = -1.0e-5
    below = forests(study(table))
    assert not any(forest.log_ratio for forest in below)


def test_the_diamond_of_two_comparisons_is_in_the_table_and_not_drawn():
    found = forests(study(rows(datasets=("birds", "glyphs"), backbones=("vit_tiny",))))
    assert set(found[0].datasets) == {"birds", "glyphs"}
    texts = [t.get_text() for ax in forest_figure(found, 0.95).axes for t in ax.get_yticklabels()]
    assert "all, pooled" in texts
    assert not {"birds, pooled", "glyphs, pooled"} & set(texts)


def test_a_study_of_few_comparisons_has_no_forest():
    few = study(rows(losses=("smooth_ap",)))
    assert forests(few) == []
    assert forest_sentences(few) == []
    assert 'class="forest"' not in report_html(few)
    one_seed = study(rows(seeds=(0,)))
    assert forests(one_seed) == []


def test_the_page_and_the_picture_show_it():
    made = study(rows(**MADE_UP))
    figure = forest_figure(forests(made), 0.95)
    texts = [text.get_text() for ax in figure.axes for text in ax.get_yticklabels()]
    assert "all, pooled" in texts
    assert "birds, pooled" in texts
    assert "OPIS corr., change in %" in figure.axes[0].get_title()
    assert sum(text.startswith("birds resnet10t smooth_ap") for text in texts) == 1
    assert png_bytes(figure, 50).startswith(b"\x89PNG")
    page = report_html(made)
    assert 'class="forest" src="data:image/png;base64,' in page
    assert "Pooled over 8 comparisons" in page
