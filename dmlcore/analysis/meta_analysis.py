"""The comparisons of a study pooled as a systematic review pools trials: random effects, heterogeneity, forest plot.

What is pooled are the paired differences of the comparisons, each with the variance of its mean over seeds. OPIS of two
data sets may differ twenty-fold: over several of them the differences are those of its logarithm, shown as per cent. It
decides nothing: the verdict does. Comparisons that share a data set share its test classes, so that an interval over
few data sets is too narrow for a new one; and a variance from few seeds is itself uncertain, as is then a weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl
from scipy import special

from dmlcore.analysis.columns import Row
from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.metric_labels import format_metric, format_percent, metric_label, variant_label
from dmlcore.analysis.paired_tests import overall_test
from dmlcore.analysis.random_effects import Pooled, random_effects
from dmlcore.analysis.statistics import paired_difference
from dmlcore.analysis.study import BASELINE, CELL_COLUMNS, Cell, Study, cached_per_study
from dmlcore.analysis.tuned_settings import displayed_study
from dmlcore.analysis.verdict import opis_metric

Names = frozenset[tuple[str, str]]
"""Of a cell: data set, backbone, loss and its own axes, each as (column, value)."""
MIN_POOLED = 3
"""Below, the spread between comparisons cannot be told from nothing."""


class RowEffect(NamedTuple):
    """The paired difference of a comparison, or that of its logarithms: mean over seeds and t-interval."""

    mean: float
    low: float
    high: float
    variance: float
    """Of the mean."""


@dataclass(frozen=True)
class Forest:
    """The comparisons of one variant in one metric, with what they come to together."""

    variant: str
    metric: str
    rows: tuple[Row, ...]
    """Of `comparisons`, those with an interval of a difference that varies over seeds; by data set."""
    effects: tuple[RowEffect, ...]
    """Of the rows."""
    log_ratio: bool
    """Whether the effects are of ln(variant / baseline), not of variant - baseline."""
    pooled: Pooled | None
    """None below MIN_POOLED comparisons."""
    datasets: dict[str, Pooled]
    """Of each data set with at least two comparisons, where there are several data sets."""
    between: Pooled | None
    """Over the effects of the data sets, where each has one: do they disagree?"""

    def shown(self, effect: float) -> float:
        """Return an effect as it is drawn: a log ratio as a change in per cent."""
        return 100.0 * math.expm1(effect) if self.log_ratio else effect

    def text(self, effect: float) -> str:
        """Return an effect as it is written."""
        return (
            f"{self.shown(effect):+.0f} %"
            if self.log_ratio
            else format_metric(effect, self.metric, signed=True)
        )

    @property
    def signed_rank(self) -> str:
        """Wilcoxon's test over the comparisons."""
        found = overall_test([effect.mean for effect in self.effects])
        return (found.note or "-") if found.p_value is None else f"p = {found.p_value:.2g}"

    def heterogeneity(self) -> str:
        """Word how far the comparisons disagree, and the data sets among them."""
        if self.pooled is None:
            return f"fewer than {MIN_POOLED} comparisons with an interval: not pooled"
        p = self.pooled
        text = (
            f"heterogeneity Q = {p.q:.3g} on {len(self.rows) - 1} df ({_p_text(p.q_p_value)}), "
            f"I\N{SUPERSCRIPT TWO} = {100 * p.i_squared:.0f} %, \N{GREEK SMALL LETTER TAU} = "
            f"{format_metric(math.sqrt(p.tau_squared), '' if self.log_ratio else self.metric)}"
        )
        if self.between is not None:
            b = self.between
            text += " of the log ratio" if self.log_ratio else ""
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
            cells = {_names({**cell.names, **cell.axis_columns}): cell for cell in shown.cells}
            found += [_forest(usable, cells, variant, metric, level) for variant in variants]
    return found


def _forest(
    usable: Sequence[Row], cells: Mapping[Names, Cell], variant: str, metric: str, confidence: float
) -> Forest:
    rows = sorted((row for row in usable if row["variant"] == variant), key=lambda row: row["dataset"])
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    several = len(names) > 1
    effects, ratios = [_difference(row, metric, confidence) for row in rows], list[RowEffect]()
    if several and metric.startswith("opis"):
        found = [_log_ratio(cells[_names(row)], variant, metric, confidence) for row in rows]
        ratios = [ratio for ratio in found if ratio is not None]
    log_ratio = len(ratios) == len(rows)
    if log_ratio:
        effects = ratios
    if len(rows) < MIN_POOLED:
        return Forest(variant, metric, tuple(rows), tuple(effects), log_ratio, None, {}, None)
    groups = {n: [e for e, row in zip(effects, rows, strict=True) if row["dataset"] == n] for n in names}
    datasets = {n: _pool(group, confidence) for n, group in groups.items() if several and len(group) > 1}
    between = _between(datasets, confidence) if len(datasets) == len(names) else None
    pooled = _pool(effects, confidence)
    return Forest(variant, metric, tuple(rows), tuple(effects), log_ratio, pooled, datasets, between)


def _names(row: Row) -> Names:
    """Return what names the cell of a row; another cell's axes are null in it."""
    named = (*CELL_COLUMNS, *(name for name in row if name.startswith("axis/")))
    return frozenset((name, row[name]) for name in named if row[name] is not None)


def _difference(row: Row, metric: str, confidence: float) -> RowEffect:
    mean, low, high = (row[f"test/{metric}/difference/{part}"] for part in ("mean", "low", "high"))
    return RowEffect(mean, low, high, _variance(low, high, row["seeds/paired"], confidence))


def _log_ratio(cell: Cell, variant: str, metric: str, confidence: float) -> RowEffect | None:
    """Return the effect on the logarithm; None where a value has none, or where it does not vary over seeds."""
    sides = [cell.values(side, f"test/{metric}") for side in (BASELINE, variant)]
    if any(value <= 0 for side in sides for value in side.values()):
        return None
    before, after = ({seed: math.log(value) for seed, value in side.items()} for side in sides)
    paired = paired_difference(before, after, confidence)
    mean, low, high = paired.difference.mean, paired.difference.low, paired.difference.high
    if mean is None or low is None or high is None or not high > low:
        return None
    return RowEffect(mean, low, high, _variance(low, high, len(paired.values), confidence))


def _pool(effects: Sequence[RowEffect], confidence: float) -> Pooled:
    return random_effects([e.mean for e in effects], [e.variance for e in effects], confidence)


def _between(datasets: dict[str, Pooled], confidence: float) -> Pooled | None:
    if len(datasets) < 2:
        return None
    found = list(datasets.values())
    return random_effects([p.mean for p in found], [p.standard_error**2 for p in found], confidence)


def _variance(low: float, high: float, pairs: int, confidence: float) -> float:
    """Return the squared standard error of a mean, from its t-interval."""
    quantile = float(special.stdtrit(pairs - 1, (1.0 + confidence) / 2.0))
    return ((high - low) / 2 / quantile) ** 2


def _has_spread(row: Row, metric: str) -> bool:
    low, high = (row[f"test/{metric}/difference/{end}"] for end in ("low", "high"))
    return low is not None and high is not None and high > low


def forest_table(found: Sequence[Forest]) -> pl.DataFrame:
    """Return the rows of forests: each comparison with its weight, then what they come to.

    Columns: `metric`, `variant`, `scale` (`difference`, or `log ratio`: of `mean`, `low`, `high`, `tau_squared` and
    `standard_error`), `kind` (`comparison`, `data set` or `all`), `dataset`, `backbone`, `loss`, `mean`,
    `low`, `high`, `weight` (of the comparison, sum 1), and of `data set` and `all` `q`, `q_p_value`, `i_squared`,
    `tau_squared`, `standard_error`.
    """
    rows = [row for forest in found for row in _table_rows(forest)]
    return pl.DataFrame(rows, infer_schema_length=None)


def _table_rows(forest: Forest) -> list[Row]:
    head = {"metric": f"test/{forest.metric}", "variant": forest.variant}
    head["scale"] = "log ratio" if forest.log_ratio else "difference"
    weights = forest.pooled.weights if forest.pooled else (None,) * len(forest.rows)
    rows: list[Row] = []
    for row, (mean, low, high, _), weight in zip(forest.rows, forest.effects, weights, strict=True):
        names = {name: row[name] for name in CELL_COLUMNS}
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
        mean, low, high = map(forest.text, (pooled.mean, pooled.low, pooled.high))
        found.append(
            f"Pooled over {len(forest.rows)} comparisons of {variant_label(forest.variant)}, whatever the verdict: "
            f"{metric_label(forest.metric)} {mean} ({level} interval {low} to {high}, random effects); "
            f"{forest.heterogeneity()}; signed-rank test: {forest.signed_rank}."
        )
    return found
