"""The marks of the trade-off plot: accuracy against corrected OPIS, with what the plot says of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dmlcore.analysis.metric_labels import (
    METRICS,
    format_metric,
    format_percent,
    metric_label,
    round_significant,
    variant_label,
)
from dmlcore.analysis.relations import pareto_front
from dmlcore.analysis.statistics import Estimate, t_interval
from dmlcore.analysis.study import BASELINE, Study
from dmlcore.report.figures.labels import legend_of
from dmlcore.report.figures.tradeoff import Mark, bar_text, intervals_readable, marks
from dmlcore.report.html.escaping import plot_text

SYMBOLS = {
    "o": ("circle", "\N{BLACK CIRCLE}"),
    "s": ("square", "\N{BLACK SQUARE}"),
    "^": ("triangle-up", "\N{BLACK UP-POINTING TRIANGLE}"),
    "D": ("diamond", "\N{BLACK DIAMOND}"),
    "v": ("triangle-down", "\N{BLACK DOWN-POINTING TRIANGLE}"),
    "P": ("cross", "\N{HEAVY GREEK CROSS}"),
    "X": ("x", "\N{HEAVY MULTIPLICATION X}"),
    "*": ("star", "\N{BLACK STAR}"),
    "<": ("triangle-left", "\N{BLACK LEFT-POINTING TRIANGLE}"),
    ">": ("triangle-right", "\N{BLACK RIGHT-POINTING TRIANGLE}"),
}
"""Marker of the PNG -> plotly's, and a character for the legend."""


FILLED, HOLLOW = "\N{BLACK CIRCLE}", "\N{WHITE CIRCLE}"


def tradeoff_data(study: Study, metric: str, run_link: str | None) -> dict[str, Any]:
    """The marks with all that the page draws and says of them.

    Args:
        metric: of the horizontal axis, `opis_corrected` or `opis`.
        run_link: address of a run with `{trial_key}` in it, or None.
    """
    found, legend = marks(study, f"test/{metric}"), legend_of(study)
    whole, front = intervals_readable(found), _front(found)
    places = {id(cell): place for place, cell in enumerate(study.cells)}
    drawn = []
    for mark in found:
        symbol = SYMBOLS[legend.markers[mark.cell.backbone]][0] + (
            "" if mark.variant == BASELINE else "-open"
        )
        style = {"colour": legend.colours[mark.cell.loss], "symbol": symbol, "front": id(mark) in front}
        drawn.append(
            _mark(study, mark, whole) | style | {"cell": places[id(mark.cell)], "runs": _runs(mark, run_link)}
        )
    axes = {
        "x": plot_text(metric_label(f"test/{metric}")),
        "y": plot_text(metric_label(study.config.accuracy)),
    }
    return {"marks": drawn, "bars": bar_text(whole, study.config.confidence), "axes": axes}


def legend_entries(study: Study) -> dict[str, list[tuple[str, str, str]]]:
    """Heading -> (character, colour, name) for the legend beside the plot."""
    legend = legend_of(study)
    losses = [(FILLED, colour, name) for name, colour in legend.colours.items()]
    shapes = [(SYMBOLS[marker][1], "currentColor", name) for name, marker in legend.markers.items()]
    variants = [
        (FILLED if variant == BASELINE else HOLLOW, "currentColor", variant_text(variant))
        for variant in study.variants
    ]
    return {"Colour: loss": losses, "Shape: backbone": shapes, "Fill: regulariser": variants}


def variant_text(variant: str) -> str:
    return "baseline (no regulariser)" if variant == BASELINE else variant_label(variant)


def _front(found: Sequence[Mark]) -> set[int]:
    """The marks that no other one of the same data set beats in both metrics."""
    kept: set[int] = set()
    for dataset in {mark.cell.dataset for mark in found}:
        group = [mark for mark in found if mark.cell.dataset == dataset]
        best = pareto_front([m.xy[0] for m in group], [m.xy[1] for m in group])
        kept |= {id(mark) for mark, on in zip(group, best, strict=True) if on}
    return kept


def _mark(study: Study, mark: Mark, whole: bool) -> dict[str, Any]:
    cell = mark.cell
    return {
        "dataset": cell.dataset,
        "backbone": cell.backbone,
        "loss": cell.loss,
        "variant": mark.variant,
        "baseline": mark.variant == BASELINE,
        "x": round_significant(mark.x.mean),
        "y": round_significant(mark.y.mean),
        "dx": round_significant(_bar(mark.x, whole)),
        "dy": round_significant(_bar(mark.y, whole)),
        "lines": _lines(study, mark),
    }


def _bar(estimate: Estimate, whole: bool) -> float | None:
    return estimate.half_width if whole else estimate.standard_error


def _lines(study: Study, mark: Mark) -> list[str]:
    """What the plot says of a mark, plain text: the configuration, then its numbers."""
    cell, level = mark.cell, study.config.confidence
    planned = cell.variants[mark.variant].height
    lines = [
        f"{cell.dataset}, {cell.backbone}, {cell.loss_text}",
        variant_text(mark.variant),
    ]
    for metric in METRICS:
        values = cell.values(mark.variant, f"test/{metric}")
        lines.append(f"{metric_label(metric)} {_interval(t_interval(list(values.values()), level), metric)}")
    return [*lines, f"{mark.y.seeds} of {planned} seeds; {format_percent(level)} intervals"]


def _interval(found: Estimate, metric: str) -> str:
    ends = (
        ""
        if found.low is None
        else f" ({format_metric(found.low, metric)} to {format_metric(found.high, metric)})"
    )
    return format_metric(found.mean, metric) + ends


def _runs(mark: Mark, run_link: str | None) -> list[tuple[str, str]]:
    if run_link is None:
        return []
    rows: Iterable[tuple[int, str]] = mark.cell.variants[mark.variant].select("seed", "trial_key").iter_rows()
    return [(f"seed {seed}", run_link.replace("{trial_key}", key)) for seed, key in rows]
