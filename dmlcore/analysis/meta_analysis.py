"""The comparisons of a study pooled as a systematic review pools trials: random effects, heterogeneity, forest plot.

What is pooled are the paired differences of the comparisons, each with the variance of its mean over seeds. It decides
nothing: the verdict does. Comparisons that share a data set share its test classes, so that an interval over few data
sets is too narrow for a new one; and a variance from few seeds is itself uncertain, as is then a weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy import special, stats
from statsmodels.stats.meta_analysis import combine_effects

from dmlcore.analysis.columns import Row
from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.metric_labels import format_metric, format_percent, metric_label, variant_label
from dmlcore.analysis.paired_tests import overall_test
from dmlcore.analysis.study import BASELINE, Study, cached_per_study
from dmlcore.analysis.tuned_settings import displayed_study
from dmlcore.analysis.verdict import opis_metric

MIN_POOLED = 3
"""Below, the spread between comparisons cannot be told from nothing."""


class Pooled(NamedTuple):
    """The pooled effect of k comparisons, and how far they disagree beyond their own noise."""

    mean: float
    low: float
    high: float
    standard_error: float
    weights: tuple[float, ...]
    """[k], sum 1."""
    q: float
    """Cochran's Q, chi-squared with k - 1 degrees of freedom where all effects are one."""
    q_p_value: float
    i_squared: float
    """The share of Q beyond chance, max(0, (Q - k + 1) / Q)."""
    tau_squared: float
    """The variance of the true effects."""


def random_effects(effects: Sequence[float], variances: Sequence[float], confidence: float) -> Pooled:
    """Pool effects that may truly differ, with Paule and Mandel's tau^2 and Hartung and Knapp's interval.

    mean = sum w y / sum w with w = 1 / (v + tau^2), tau^2 such that sum w (y - mean)^2 = k - 1, or 0. Interval: mean +-
    t sqrt(h / sum w) with k - 1 degrees of freedom, h = max(1, sum w (y - mean)^2 / (k - 1)): never narrower than
    that of the normal theory.

    Args:
        effects: y, [k >= 2].
        variances: v, [k], above 0.
        confidence: of the interval.

    Reference: Paule & Mandel, Consensus values and weighting factors, 1982; Knapp & Hartung, Improved tests for a
    random effects meta-regression with a single covariate, 2003; Cochran 1954; Higgins & Thompson 2002.
    """
    # Scaled to variances of about 1: statsmodels stops at an absolute tolerance, and OPIS differs by 0.001
    scale = math.sqrt(float(np.mean(variances)))
    y, v = np.asarray(effects) / scale, np.asarray(variances) / scale**2
    found = combine_effects(y, v, method_re="iterated")
    error = float(found.sd_eff_w_re) * math.sqrt(max(1.0, float(found.scale_hksj_re))) * scale
    half = error * float(special.stdtrit(len(y) - 1, (1.0 + confidence) / 2.0))
    mean, q = float(found.mean_effect_re) * scale, float(found.q)
    return Pooled(
        mean,
        mean - half,
        mean + half,
        error,
        tuple(float(weight) for weight in found.weights_rel_re),
        q,
        float(stats.chi2.sf(q, len(y) - 1)),
        max(0.0, (q - (len(y) - 1)) / q) if q > 0 else 0.0,
        float(found.tau2) * scale**2,
    )


@dataclass(frozen=True)
class Forest:
    """The comparisons of one variant in one metric, with what they come to together."""

    variant: str
    metric: str
    rows: tuple[Row, ...]
    """Of `comparisons`, those with an interval of a difference that varies over seeds; by data set."""
    pooled: Pooled | None
    """None below MIN_POOLED comparisons."""
    datasets: dict[str, Pooled]
    """Of each data set with at least two comparisons, where there are several data sets."""
    between: Pooled | None
    """Over the effects of the data sets, where each has one: do they disagree?"""

    def difference(self, row: Row) -> tuple[float, float, float]:
        """Return mean, low and high of a row's paired difference."""
        mean, low, high = (row[f"test/{self.metric}/difference/{part}"] for part in ("mean", "low", "high"))
        return mean, low, high

    @property
    def signed_rank(self) -> str:
        """Wilcoxon's test over the comparisons."""
        found = overall_test([self.difference(row)[0] for row in self.rows])
        return (found.note or "-") if found.p_value is None else f"p = {found.p_value:.2g}"

    def heterogeneity(self) -> str:
        """Word how far the comparisons disagree, and the data sets among them."""
        if self.pooled is None:
            return f"fewer than {MIN_POOLED} comparisons with an interval: not pooled"
        p = self.pooled
        text = (
            f"heterogeneity Q = {p.q:.3g} on {len(self.rows) - 1} df ({_p_text(p.q_p_value)}), "
            f"I\N{SUPERSCRIPT TWO} = {100 * p.i_squared:.0f} %, \N{GREEK SMALL LETTER TAU} = "
            f"{format_metric(math.sqrt(p.tau_squared), self.metric)}"
        )
        if self.between is not None:
            b = self.between
            text += f"; between {len(self.datasets)} data sets Q = {b.q:.3g} ({_p_text(b.q_p_value)})"
        return text


def _p_text(p: float) -> str:
    return "p < 0.0001" if p < 1.0e-4 else f"p = {p:.2g}"


@cached_per_study
def forests(study: Study) -> list[Forest]:
    """Return a forest for each variant and each of corrected OPIS and MAP@R; none below MIN_POOLED comparisons."""
    shown = displayed_study(study)
    rows, level = comparisons(shown).to_dicts(), study.config.confidence
    found = []
    for metric in (opis_metric(rows), "map_at_r"):
        usable = [row for row in rows if row["variant"] != BASELINE and _has_spread(row, metric)]
        if len(usable) >= MIN_POOLED:
            variants = dict.fromkeys(row["variant"] for row in usable)
            found += [_forest(usable, variant, metric, level) for variant in variants]
    return found


def _forest(usable: Sequence[Row], variant: str, metric: str, confidence: float) -> Forest:
    rows = sorted((row for row in usable if row["variant"] == variant), key=lambda row: row["dataset"])
    if len(rows) < MIN_POOLED:
        return Forest(variant, metric, tuple(rows), None, {}, None)
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    groups = {name: [row for row in rows if row["dataset"] == name] for name in names}
    several = len(names) > 1
    datasets = {n: _pool(g, metric, confidence) for n, g in groups.items() if several and len(g) > 1}
    between = _between(datasets, confidence) if len(datasets) == len(names) else None
    return Forest(variant, metric, tuple(rows), _pool(rows, metric, confidence), datasets, between)


def _pool(rows: Sequence[Row], metric: str, confidence: float) -> Pooled:
    means = [row[f"test/{metric}/difference/mean"] for row in rows]
    return random_effects(means, [_variance(row, metric, confidence) for row in rows], confidence)


def _between(datasets: dict[str, Pooled], confidence: float) -> Pooled | None:
    if len(datasets) < 2:
        return None
    found = list(datasets.values())
    return random_effects([p.mean for p in found], [p.standard_error**2 for p in found], confidence)


def _variance(row: Row, metric: str, confidence: float) -> float:
    """Return the squared standard error of a row's difference, from its t-interval."""
    half = (row[f"test/{metric}/difference/high"] - row[f"test/{metric}/difference/low"]) / 2
    quantile = float(special.stdtrit(row["seeds/paired"] - 1, (1.0 + confidence) / 2.0))
    return (half / quantile) ** 2


def _has_spread(row: Row, metric: str) -> bool:
    low, high = (row[f"test/{metric}/difference/{end}"] for end in ("low", "high"))
    return low is not None and high is not None and high > low


def forest_table(found: Sequence[Forest]) -> pl.DataFrame:
    """Return the rows of forests: each comparison with its weight, then what they come to.

    Columns: `metric`, `variant`, `kind` (`comparison`, `data set` or `all`), `dataset`, `backbone`, `loss`, `mean`,
    `low`, `high`, `weight` (of the comparison, sum 1), and of `data set` and `all` `q`, `q_p_value`, `i_squared`,
    `tau_squared`, `standard_error`.
    """
    rows = [row for forest in found for row in _table_rows(forest)]
    return pl.DataFrame(rows, infer_schema_length=None)


def _table_rows(forest: Forest) -> list[Row]:
    head = {"metric": f"test/{forest.metric}", "variant": forest.variant}
    weights = forest.pooled.weights if forest.pooled else (None,) * len(forest.rows)
    rows: list[Row] = []
    for row, weight in zip(forest.rows, weights, strict=True):
        mean, low, high = forest.difference(row)
        names = {name: row[name] for name in ("dataset", "backbone", "loss")}
        rows.append(
            {**head, "kind": "comparison", **names, "mean": mean, "low": low, "high": high, "weight": weight}
        )
    pooled: list[tuple[str, str | None, Pooled]] = [("data set", n, p) for n, p in forest.datasets.items()]
    pooled += [("all", None, forest.pooled)] if forest.pooled else []
    for kind, dataset, found in pooled:
        numbers = {k: v for k, v in found._asdict().items() if k != "weights"}
        rows.append({**head, "kind": kind, "dataset": dataset, **numbers})
    return rows


def forest_sentences(study: Study) -> list[str]:
    """Say of each forest what its comparisons come to; none where none was pooled."""
    level, found = format_percent(study.config.confidence), []
    for forest in forests(study):
        if (pooled := forest.pooled) is None:
            continue
        mean, low, high = (
            format_metric(v, forest.metric, signed=True) for v in (pooled.mean, pooled.low, pooled.high)
        )
        found.append(
            f"Pooled over {len(forest.rows)} comparisons of {variant_label(forest.variant)}, whatever the verdict: "
            f"{metric_label(forest.metric)} {mean} ({level} interval {low} to {high}, random effects); "
            f"{forest.heterogeneity()}; signed-rank test: {forest.signed_rank}."
        )
    return found
