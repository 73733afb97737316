"""Utility against threshold, the arms of a cell side by side, as the page draws it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dmlcore.report.html.text import plot_text, rounded
from dmlcore.report.html.tradeoff import arm_text
from dmlcore.report.names import number
from dmlcore.report.study import OFF, Cell, Study
from dmlcore.report.utility import most_accurate, utility_curve

MOST_CELLS = 100


def utility_data(study: Study) -> list[dict[str, Any]]:
    """One entry a cell: its names, and of each arm the curve (mean over seeds) or why there is none.

    Of very many cells the most accurate on validation, as `utility_cut` says.
    """
    return [
        {
            "dataset": cell.dataset,
            "backbone": cell.backbone,
            "loss": cell.loss,
            "title": f"{cell.dataset}, {cell.backbone}, {cell.loss_text}",
            "arms": [_arm(cell, arm) for arm in cell.arms],
        }
        for cell in most_accurate(study, MOST_CELLS)[0]
    ]


def utility_cut(study: Study) -> str:
    """Which cells have their curves in the page; empty where all have."""
    return most_accurate(study, MOST_CELLS)[1]


def _arm(cell: Cell, arm: str) -> dict[str, Any]:
    heading = plot_text(arm_text(arm))
    curve = utility_curve(cell, arm)
    if curve is None:
        return {"heading": heading, "off": arm == OFF, "missing": "no finished trial"}
    values = list(cell.values(arm, "test/opis").values())
    opis = number(sum(values) / len(values) if values else None, "opis")
    seeds = f"{curve.seeds} seed{'s' if curve.seeds != 1 else ''}"
    return {
        "heading": heading,
        "note": f"OPIS {opis}, {seeds}",
        "off": arm == OFF,
        "thresholds": _short(curve.thresholds),
        "mean": _short(curve.mean),
        "low": _short(curve.low),
        "high": _short(curve.high),
        "span": [rounded(end) for end in curve.span],
    }


def _short(values: Iterable[float]) -> list[float]:
    """Four decimals: a pixel of the plot is 0.005."""
    return [round(float(value), 4) for value in values]
