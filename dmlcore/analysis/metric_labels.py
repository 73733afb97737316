"""The metrics of the reports: their labels, directions and decimals; and how names and numbers are written."""

from __future__ import annotations

import math
import re
import textwrap
from typing import NamedTuple


class Metric(NamedTuple):
    """How reports name, judge and round a metric."""

    label: str
    higher_is_better: bool = True
    decimals: int = 4


METRICS = {
    "map_at_r": Metric("MAP@R"),
    "recall_at_1": Metric("R@1"),
    "opis": Metric("OPIS", higher_is_better=False, decimals=5),
    "opis_corrected": Metric("OPIS corr.", higher_is_better=False, decimals=5),
    "opis_validation_range": Metric("OPIS val.", higher_is_better=False, decimals=5),
}
"""The metrics of every table. One line here adds one to the terminal, Markdown, LaTeX, HTML and CSV tables."""

OTHER_METRICS = {
    "r_precision": Metric("R-precision"),
    "epsilon_opis": Metric("epsilon-OPIS", higher_is_better=False, decimals=5),
}
"""Metrics in no table, which `aggregate.accuracy` and `aggregate.inconsistency` may choose as axes of the plots."""

RATE = re.compile(r"share_of_(positives|negatives):([0-9.]+)")
"""A margin from the scores of the baseline (dmlcore/sweep/score_margins.py)."""

SIGNIFICANT_DIGITS = 6
"""Of numbers in the files: far below the spread over seeds, above what the order of a sum can change."""

LEGEND = (
    "OPIS: variance of utility over the classes, at the thresholds of the calibration range on test; OPIS corr.: the "
    "same without the part that few images a class cause; OPIS val.: at the thresholds taken from validation."
)


def describe_metric(metric: str) -> Metric:
    """Return the entry of `metric`, with or without its split (`test/`); an unlisted metric is labelled by its key."""
    stem = metric.rsplit("/", 1)[-1]
    return METRICS.get(stem) or OTHER_METRICS.get(stem) or Metric(stem, decimals=5 if "opis" in stem else 4)


def metric_label(metric: str) -> str:
    """Return what people call `metric`: `test/map_at_r` -> `MAP@R`."""
    return describe_metric(metric).label


def format_metric(value: float | None, metric: str, signed: bool = False) -> str:
    """Return `value` with the decimals of `metric`; `-` for a missing or infinite value."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:{'+' if signed else ''}.{describe_metric(metric).decimals}f}"


def round_significant(value: float | None) -> float | None:
    """Round `value` to SIGNIFICANT_DIGITS; None where it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def format_percent(share: float) -> str:
    """Return `share` in percent: 0.95 -> `95 %`."""
    return f"{100 * share:g} %"


def value_text(value: object) -> str:
    """Return the value of a setting without trailing zeros."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def one_line(text: object, width: int = 100) -> str:
    """Return `text` on one line, cut to `width` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= width else line[: width - 3] + "..."


def variant_label(variant: str) -> str:
    """Return `variant` with room to break after its commas, and rates of scores in words.

    `tcm(a=1,b=2)` -> `tcm(a=1, b=2)`, `b=share_of_positives:0.5` -> `b=at 50 % of positives`.
    """
    text = RATE.sub(lambda found: f"at {100 * float(found[2]):g} % of {found[1]}", variant)
    return one_line(text.replace(",", ", "), 200)


def wrap_text(text: str, width: int) -> str:
    """Break `text` into lines of at most `width` characters."""
    return textwrap.fill(text, max(width, 8), break_on_hyphens=False)
