"""The metrics that every table shows, and how names are written for people."""

from __future__ import annotations

import math
import textwrap

METRICS: dict[str, bool] = {
    "map_at_r": True,
    "recall_at_1": True,
    "opis": False,
    "opis_corrected": False,
    "opis_validation_range": False,
}
"""Metric -> whether higher is better."""


LABELS = {
    "map_at_r": "MAP@R",
    "recall_at_1": "R@1",
    "r_precision": "R-precision",
    "opis": "OPIS",
    "opis_corrected": "OPIS corr.",
    "opis_validation_range": "OPIS val.",
    "epsilon_opis": "epsilon-OPIS",
}

LEGEND = (
    "OPIS: spread of utility over classes, range of thresholds from the test negatives (raw); OPIS corr.: less its "
    "floor from few images a class; OPIS val.: over the range carried over from validation."
)


def label(metric: str) -> str:
    """What people call `metric` (with or without its `test/`): `test/map_at_r` -> `MAP@R`."""
    stem = metric.rsplit("/", 1)[-1]
    return LABELS.get(stem, stem)


def one_line(text: object, width: int = 100) -> str:
    """`text` on one line, cut to `width` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= width else line[: width - 3] + "..."


def short_variant(variant: str) -> str:
    """`variant` with room to break after its commas: `tcm(a=1,b=2)` -> `tcm(a=1, b=2)`."""
    return one_line(variant.replace(",", ", "), 200)


def wrapped(text: str, width: int) -> str:
    """`text` broken into lines of at most `width` characters."""
    return textwrap.fill(text, max(width, 8), break_on_hyphens=False)


def number(value: float | None, metric: str, signed: bool = False) -> str:
    """`value` with the decimals that suit `metric`: 4 for accuracies, 5 for OPIS; `-` for no value."""
    if value is None or not math.isfinite(value):
        return "-"
    decimals = 5 if "opis" in metric else 4
    return f"{value:{'+' if signed else ''}.{decimals}f}"


def percent(share: float) -> str:
    return f"{100 * share:g} %"
