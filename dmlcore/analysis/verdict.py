"""The verdict of a study: what its comparisons decide, what they leave open and why. Nothing else words one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from dmlcore.analysis.columns import Row
from dmlcore.analysis.effects import (
    UNDECIDED,
    Effect,
    effect_of,
    format_share,
    outcomes_at_equal_accuracy,
)
from dmlcore.analysis.metric_labels import format_percent, variant_label
from dmlcore.analysis.study import BASELINE, Study

MAX_VARIANTS = 4
"""Variants that get a verdict of their own; more get one together."""


@dataclass(frozen=True)
class VariantVerdict:
    """What the study decides about one variant, or about all together."""

    name: str
    inconsistency: Effect
    accuracy: Effect
    matched: str
    """What OPIS did at equal accuracy; empty where it was not measured."""
    below_features: str
    """Where a trained head is less accurate than the features that it was trained on; empty where nowhere."""

    @property
    def effects(self) -> tuple[Effect, Effect]:
        return self.inconsistency, self.accuracy

    @property
    def tone(self) -> str:
        """The class of the headline in the style sheet."""
        return self.inconsistency.tone

    @property
    def headline(self) -> str:
        """The verdict in one sentence: on consistency first, then on accuracy."""
        even, accurate = self.inconsistency.sentence(), self.accuracy.sentence()
        if even == accurate:
            return f"{_capital(even)} ({self.name}, consistency and accuracy alike)"
        said = accurate if self.accuracy.tone != UNDECIDED else f"accuracy {accurate}"
        return f"{_capital(self.inconsistency.sentence(self.name))}; {said}"

    @property
    def counted(self) -> str:
        """What was counted besides, in one sentence."""
        return (
            "Counts, which do not enter the verdict: "
            + "; ".join(effect.counted for effect in self.effects)
            + "."
        )

    @property
    def details(self) -> str:
        """What goes with the headline, in sentences."""
        return " ".join(part for part in (self.below_features, self.matched, self.counted) if part)


def verdict(study: Study, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Word the verdict of a study: for each variant the headline of what is decided, then the details.

    Args:
        study: the results.
        rows: its `comparisons`, as dicts.
    """
    if rows and all(row["variant"] == BASELINE for row in rows):
        return [("One variant alone (baseline): nothing to compare.", "")]
    found = variant_verdicts(rows, study.config.confidence)
    if not found:
        return [("Undecided: no seed finished both with and without the regulariser.", "")]
    return [(f"{variant.headline}.", variant.details) for variant in found]


def with_difference(rows: Sequence[Row], metric: str) -> list[Row]:
    return [row for row in rows if row[f"test/{metric}/difference/mean"] is not None]


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


def variant_verdicts(rows: Sequence[Row], confidence: float) -> list[VariantVerdict]:
    """Judge each variant, or all together where they are more than MAX_VARIANTS; none without a comparison."""
    metrics = (opis_metric(rows), "map_at_r")
    compared = [row for row in rows if all(row[f"test/{m}/difference/mean"] is not None for m in metrics)]
    variants = list(dict.fromkeys(row["variant"] for row in compared))
    groups = [[row for row in compared if row["variant"] == variant] for variant in variants]
    if len(variants) > MAX_VARIANTS:
        groups = [compared]
    return [_variant_verdict(group, len(groups), metrics, confidence) for group in groups]


def _variant_verdict(
    rows: Sequence[Row],
    variants: int,
    metrics: tuple[str, str],
    confidence: float,
) -> VariantVerdict:
    inconsistency, accuracy = (effect_of(rows, metric) for metric in metrics)
    labels = list(dict.fromkeys(row["variant"] for row in rows))
    # One variant among several is named with its parameters
    name = _name(labels) if variants == 1 else variant_label(labels[0]).replace("tcm", "TCM", 1)
    return VariantVerdict(
        name, inconsistency, accuracy, _matched_sentence(rows, confidence), _features_sentence(rows)
    )


def _matched_sentence(rows: Sequence[Row], confidence: float) -> str:
    """Say what OPIS did where both sides are equally accurate; empty where no seed could be compared so."""
    name = "matched/opis_corrected/difference/relative"
    known = outcomes_at_equal_accuracy(rows)
    if not known:
        return ""
    shares = [row[name] for row in rows if row.get(name) is not None]
    change = f"median change of corrected OPIS {format_share(median(shares))}, " if shares else ""
    return (
        f"At equal accuracy on validation: {change}by the {format_percent(confidence)} interval lower in "
        f"{known['better']} of {known.total()}, higher in {known['worse']}, open in {known[UNDECIDED]}."
    )


def _features_sentence(rows: Sequence[Row]) -> str:
    """Say where training made a pretrained network less accurate than its own features are without a head."""
    worse = [
        (features, trained)
        for row in rows
        for side in ("baseline", "variant")
        if (features := row.get("features/recall_at_1")) is not None
        and (trained := row[f"test/recall_at_1/{side}/mean"]) is not None
        and trained < features
    ]
    if not worse:
        return ""
    features, trained = max(worse, key=lambda pair: pair[0] - pair[1])
    sides = 2 * sum(row.get("features/recall_at_1") is not None for row in rows)
    return (
        f"In {len(worse)} of {sides} configurations the trained network is less accurate than its pretrained features "
        f"without a head (R@1 {trained:.3f} for {features:.3f})."
    )


def _name(variants: Sequence[str]) -> str:
    """Name the regulariser that the variants share; an empty text without variants."""
    families = list(dict.fromkeys(variant.partition("(")[0] for variant in variants))
    if len(families) > 1:
        return "the regularisers"
    return "TCM" if families == ["tcm"] else variant_label("".join(families)).replace("_", " ")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
