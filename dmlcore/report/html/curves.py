"""Utility against threshold, the variants of a cell side by side, as the page draws it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dmlcore.analysis.metric_labels import format_metric, round_significant
from dmlcore.analysis.study import BASELINE, Cell, Study
from dmlcore.report.figures.utility import most_accurate, utility_curve
from dmlcore.report.html.escaping import plot_text
from dmlcore.report.html.tradeoff import variant_text

MOST_CELLS = 100


def utility_data(study: Study) -> list[dict[str, Any]]:
    """One entry a cell: its names, and of each variant the curve (mean over seeds) or why there is none.

    Of very many cells the most accurate on validation, as `utility_cut` says.
    """
    return [
        {
            "dataset": cell.dataset,
            "backbone": cell.backbone,
            "loss": cell.loss,
            "title": f"{cell.dataset}, {cell.backbone}, {cell.loss_text}",
            "variants": [_variant(cell, variant) for variant in cell.variants],
        }
        for cell in most_accurate(study, MOST_CELLS)[0]
    ]


def utility_cut(study: Study) -> str:
    """Which cells have their curves in the page; empty where all have."""
    return most_accurate(study, MOST_CELLS)[1]


def _variant(cell: Cell, variant: str) -> dict[str, Any]:
    heading = plot_text(variant_text(variant))
    curve = utility_curve(cell, variant)
    if curve is None:
        return {"heading": heading, "baseline": variant == BASELINE, "missing": "no finished trial"}
    values = list(cell.values(variant, "test/opis").values())
    opis = format_metric(sum(values) / len(values) if values else None, "opis")
    seeds = f"{curve.seeds} seed{'s' if curve.seeds != 1 else ''}"
    return {
        "heading": heading,
        "note": f"OPIS {opis}, {seeds}",
        "baseline": variant == BASELINE,
        "thresholds": _short(curve.thresholds),
        "mean": _short(curve.mean),
        "low": _short(curve.low),
        "high": _short(curve.high),
        "span": [round_significant(end) for end in curve.span],
    }


def _short(values: Iterable[float]) -> list[float]:
    """Four decimals: a pixel of the plot is 0.005."""
    return [round(float(value), 4) for value in values]
