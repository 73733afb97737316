"""The first screen: what was asked, and the answer in two sentences made from the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from dmlcore.analysis.columns import judgement
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
from dmlcore.analysis.verdict import verdict

Row = Mapping[str, Any]


MOST_VARIANTS = 4
"""Variants that get sentences of their own; more are counted together."""


LEVEL = 0.05


@dataclass(frozen=True)
class Score:
    """What became of one metric over the comparisons of a variant."""

    metric: str
    comparisons: int
    better: int
    worse: int
    relative: tuple[float, float, float] | None
    """Smallest, median and largest relative change."""
    change: tuple[float, float, float]
    sure_better: int
    sure_worse: int
    corrected: int | None
    """Comparisons with p < 0.05 after Holm's correction."""
    overall: str

    @property
    def name(self) -> str:
        return "accuracy" if METRICS[self.metric].higher_is_better else "inconsistency"

    @property
    def label(self) -> str:
        return metric_label(self.metric)

    @property
    def direction(self) -> str:
        return "higher is better" if METRICS[self.metric].higher_is_better else "lower is better"

    @property
    def helped(self) -> bool:
        """As often better as worse, or more often."""
        return self.better >= self.worse

    @property
    def most(self) -> str:
        """How many comparisons went the way that most did."""
        count = self.better if self.helped else self.worse
        return f"{count} of {self.comparisons} comparison{'' if self.comparisons == 1 else 's'}"

    @property
    def size(self) -> str:
        """The median change, as a share where there is one."""
        return (
            _share(self.relative[1])
            if self.relative
            else format_metric(self.change[1], self.metric, signed=True)
        )

    @property
    def span(self) -> str:
        """The smallest and the largest change."""
        if self.relative:
            low, _, high = (_share(value) for value in self.relative)
        else:
            low, _, high = (format_metric(value, self.metric, signed=True) for value in self.change)
        return low if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class Answer:
    """Of one variant, or of all together."""

    headline: str
    sentences: tuple[str, str]
    scores: tuple[Score, Score]

    @property
    def tone(self) -> str:
        """For the style sheet."""
        helped = {score.helped for score in self.scores}
        return "mixed" if len(helped) > 1 else ("better" if True in helped else "worse")


def question(rows: Sequence[Row]) -> str:
    """What was asked."""
    who = _name([row["variant"] for row in rows if row["variant"] != BASELINE])
    if not who:
        return "How evenly does one distance threshold serve every class, and how accurate is the search?"
    verb = "Does" if who.startswith("TCM") else "Do"
    return f"{verb} {who} make one distance threshold serve every class, and what does it cost in accuracy?"


def inconsistency(rows: Sequence[Row]) -> str:
    """The corrected OPIS, or the raw one where none was measured."""
    known = any(row["test/opis_corrected/baseline/mean"] is not None for row in rows)
    return "opis_corrected" if known else "opis"


def answers(rows: Sequence[Row], confidence: float) -> list[Answer]:
    """An answer a variant; one for all variants together where they are many; none without a comparison."""
    metrics = (inconsistency(rows), "map_at_r")
    compared = [row for row in rows if all(row[f"test/{m}/difference/mean"] is not None for m in metrics)]
    variants = list(dict.fromkeys(row["variant"] for row in compared))
    groups = [[row for row in compared if row["variant"] == variant] for variant in variants]
    return [
        _answer(group, metrics, confidence)
        for group in (groups if len(variants) <= MOST_VARIANTS else [compared])
    ]


def no_answer(rows: Sequence[Row], confidence: float) -> str:
    """Why there is no answer."""
    return verdict(rows, confidence)


def _answer(rows: Sequence[Row], metrics: Sequence[str], confidence: float) -> Answer:
    name = _name([row["variant"] for row in rows])
    first, second = (_score(rows, metric) for metric in metrics)
    return Answer(
        _headline(name, first, second),
        (_sentence(first, name, confidence), _sentence(second, name, confidence)),
        (first, second),
    )


def _score(rows: Sequence[Row], metric: str) -> Score:
    means = [row[f"test/{metric}/difference/mean"] for row in rows]
    shares = [row[f"test/{metric}/difference/relative"] for row in rows]
    words = [judgement(row, metric) for row in rows]
    known = [share for share in shares if share is not None]
    return Score(
        metric=metric,
        comparisons=len(rows),
        better=sum((mean > 0) == METRICS[metric].higher_is_better for mean in means if mean != 0),
        worse=sum((mean > 0) != METRICS[metric].higher_is_better for mean in means if mean != 0),
        relative=_range(known) if len(known) == len(rows) else None,
        change=_range(means),
        sure_better=words.count("better"),
        sure_worse=words.count("worse"),
        corrected=_below_level(rows, metric),
        overall=_overall(means),
    )


def _range(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), median(values), max(values)


def _below_level(rows: Sequence[Row], metric: str) -> int | None:
    p_values = [row[f"test/{metric}/difference/p_holm"] for row in rows]
    known = [p for p in p_values if p is not None]
    return sum(p < LEVEL for p in known) if known else None


def _overall(means: Sequence[float]) -> str:
    found = overall_test(means)
    if found.p_value is None:
        return found.note or "-"
    return f"p = {found.p_value:.2g}"


def _headline(name: str, even: Score, accurate: Score) -> str:
    evenly, height = "more" if even.helped else "less", "higher" if accurate.helped else "lower"
    first = f"one threshold serves the classes {evenly} evenly in {even.most}"
    return f"{_capital(name)}: {first}, accuracy is {height} in {accurate.most.partition(' comparison')[0]}"


def _sentence(score: Score, name: str, confidence: float) -> str:
    verb = "raised" if METRICS[score.metric].higher_is_better == score.helped else "lowered"
    text = f"{_capital(name)} {verb} {score.name} ({score.label}) in {score.most}, "
    text += f"with a median change of {score.size}" + (
        f" (from {score.span})" if " to " in score.span else ""
    )
    return f"{text}; sure, by its {format_percent(confidence)} interval, in {_certainty(score)}."


def _certainty(score: Score) -> str:
    sure = score.sure_better + score.sure_worse
    notes = [f"{score.sure_worse} of them worse"] if score.sure_worse else []
    notes += [] if score.corrected is None else [f"{score.corrected} after Holm's correction"]
    return f"{sure} of {score.comparisons}" + (f" ({', '.join(notes)})" if notes else "")


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]


def _name(variants: Sequence[str]) -> str:
    kinds = list(dict.fromkeys(variant.partition("(")[0] for variant in variants))
    if kinds == ["tcm"]:
        return "TCM"
    return (
        variant_label(kinds[0]).replace("_", " ")
        if len(kinds) == 1
        else ("the regularisers" if kinds else "")
    )


def _share(value: float) -> str:
    return f"{100 * (round_significant(value) or 0.0):+.0f}\N{NO-BREAK SPACE}%".replace("-", "\N{MINUS SIGN}")
