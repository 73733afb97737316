"""What the comparisons say: in one sentence made from the numbers, and the effects of each variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from dmlcore.analysis.columns import Row, judgement
from dmlcore.analysis.metric_labels import (
    METRICS,
    format_metric,
    format_percent,
    metric_label,
    round_significant,
    variant_label,
)
from dmlcore.analysis.paired_tests import overall_test
from dmlcore.analysis.study import BASELINE

MAX_VARIANTS = 4
"""Variants that get sentences of their own; more are counted together."""

SIGNIFICANCE = 0.05


def verdict(rows: Sequence[Row], confidence: float) -> str:
    """Say how often OPIS fell, how sure that is, and what accuracy did.

    Args:
        rows: of `comparisons`, as dicts.
        confidence: level of their intervals.
    """
    compared = with_difference(rows, "opis")
    if rows and all(row["variant"] == BASELINE for row in rows):
        return "One variant alone (baseline): nothing to compare."
    if not compared:
        return "No comparison yet: no seed finished both with and without the regulariser."
    name = "TCM" if all(row["variant"].startswith("tcm") for row in compared) else "The regularisers"
    first = (
        f"{name} lowered OPIS in {_count_lowered(compared, 'opis')} comparison{'s' if len(compared) > 1 else ''} "
        f"({format_percent(confidence)} interval of the paired difference {_interval_signs(compared, 'opis')})"
    )
    if corrected := with_difference(rows, "opis_corrected"):
        lowered, signs = (count(corrected, "opis_corrected") for count in (_count_lowered, _interval_signs))
        first += f", OPIS corrected for its small-class floor in {lowered} ({signs})"
    return "; ".join([first, *(_range_of_changes(compared, m) for m in ("map_at_r", "recall_at_1"))]) + "."


def with_difference(rows: Sequence[Row], metric: str) -> list[Row]:
    return [row for row in rows if row[f"test/{metric}/difference/mean"] is not None]


def _count_lowered(rows: Sequence[Row], metric: str) -> str:
    return f"{sum(row[f'test/{metric}/difference/mean'] < 0 for row in rows)} of {len(rows)}"


def _interval_signs(rows: Sequence[Row], metric: str) -> str:
    lows = [row[f"test/{metric}/difference/low"] for row in rows]
    highs = [row[f"test/{metric}/difference/high"] for row in rows]
    below = sum(high is not None and high < 0 for high in highs)
    above = sum(low is not None and low > 0 for low in lows)
    return f"below 0 in {below}, above 0 in {above}"


def _range_of_changes(rows: Sequence[Row], metric: str) -> str:
    found = with_difference(rows, metric)
    if not found:
        return f"{metric_label(metric)} was not measured"
    means = [row[f"test/{metric}/difference/mean"] for row in found]
    ends = list(dict.fromkeys(format_metric(end, metric, signed=True) for end in (min(means), max(means))))
    signs = _interval_signs(found, metric)
    return f"{metric_label(metric)} changed by {' to '.join(ends)} (interval {signs})"


@dataclass(frozen=True)
class Effect:
    """What a variant did to one metric over its comparisons with the baseline."""

    metric: str
    comparisons: int
    better: int
    worse: int
    size: str
    """The median change, relative where the baseline is not zero."""
    span: str
    """The smallest and the largest change."""
    clearly_better: int
    """Comparisons whose interval of the paired difference excludes zero."""
    clearly_worse: int
    significant: int | None
    """Comparisons with p < SIGNIFICANCE after Holm's correction."""
    overall: str
    """The signed-rank test over all comparisons."""

    @property
    def higher_is_better(self) -> bool:
        return METRICS[self.metric].higher_is_better

    @property
    def name(self) -> str:
        return "accuracy" if self.higher_is_better else "inconsistency"

    @property
    def label(self) -> str:
        return metric_label(self.metric)

    @property
    def helped(self) -> bool:
        """Whether it was better at least as often as worse."""
        return self.better >= self.worse

    @property
    def rose(self) -> bool:
        return self.higher_is_better == self.helped

    @property
    def majority(self) -> str:
        """How many comparisons went the way that most did."""
        return f"{self.better if self.helped else self.worse} of {self.comparisons}"

    @property
    def clear(self) -> str:
        """In how many comparisons the interval excludes zero."""
        return f"{self.clearly_better + self.clearly_worse} of {self.comparisons}"


@dataclass(frozen=True)
class VariantEffects:
    """What the headline of one variant, or of all together, is made of."""

    name: str
    inconsistency: Effect
    accuracy: Effect

    @property
    def effects(self) -> tuple[Effect, Effect]:
        return self.inconsistency, self.accuracy

    @property
    def tone(self) -> str:
        """The class of the headline in the style sheet."""
        helped = {effect.helped for effect in self.effects}
        return "mixed" if len(helped) > 1 else ("better" if True in helped else "worse")


def question(rows: Sequence[Row]) -> str:
    """Ask what the study asks."""
    name = _name([row["variant"] for row in rows if row["variant"] != BASELINE])
    if not name:
        return "How evenly does one distance threshold serve every class, and how accurate is the search?"
    verb = "Does" if name.startswith("TCM") else "Do"
    return f"{verb} {name} make one distance threshold serve every class, and what does it cost in accuracy?"


def opis_metric(rows: Sequence[Row]) -> str:
    """Choose the corrected OPIS, or the raw one where no corrected one was measured."""
    known = any(row["test/opis_corrected/baseline/mean"] is not None for row in rows)
    return "opis_corrected" if known else "opis"


def variant_effects(rows: Sequence[Row]) -> list[VariantEffects]:
    """Summarise each variant, or all together where they are more than MAX_VARIANTS; none without a comparison."""
    metrics = (opis_metric(rows), "map_at_r")
    compared = [row for row in rows if all(row[f"test/{m}/difference/mean"] is not None for m in metrics)]
    variants = list(dict.fromkeys(row["variant"] for row in compared))
    groups = [[row for row in compared if row["variant"] == variant] for variant in variants]
    if len(variants) > MAX_VARIANTS:
        groups = [compared]
    return [
        VariantEffects(_name([row["variant"] for row in group]), *(_effect(group, m) for m in metrics))
        for group in groups
    ]


def _effect(rows: Sequence[Row], metric: str) -> Effect:
    means, shares, p_values = (
        [row[f"test/{metric}/difference/{part}"] for row in rows] for part in ("mean", "relative", "p_holm")
    )
    words, sign = [judgement(row, metric) for row in rows], 1 if METRICS[metric].higher_is_better else -1
    relative = None not in shares
    changes = shares if relative else means
    ends = (min(changes), median(changes), max(changes))
    low, size, high = (_share(end) if relative else format_metric(end, metric, signed=True) for end in ends)
    corrected = [p for p in p_values if p is not None]
    overall = overall_test(means)
    return Effect(
        metric=metric,
        comparisons=len(rows),
        better=sum(sign * mean > 0 for mean in means),
        worse=sum(sign * mean < 0 for mean in means),
        size=size,
        span=low if low == high else f"{low} to {high}",
        clearly_better=words.count("better"),
        clearly_worse=words.count("worse"),
        significant=sum(p < SIGNIFICANCE for p in corrected) if corrected else None,
        overall=(overall.note or "-") if overall.p_value is None else f"p = {overall.p_value:.2g}",
    )


def _share(change: float) -> str:
    share = f"{100 * (round_significant(change) or 0.0):+.0f}\N{NO-BREAK SPACE}%"
    return share.replace("-", "\N{MINUS SIGN}")


def _name(variants: Sequence[str]) -> str:
    """Name the regulariser that the variants share; an empty text without variants."""
    families = list(dict.fromkeys(variant.partition("(")[0] for variant in variants))
    if len(families) > 1:
        return "the regularisers"
    return "TCM" if families == ["tcm"] else variant_label("".join(families)).replace("_", " ")
