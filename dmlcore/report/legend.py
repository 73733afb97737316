"""Which colour, marker and fill of the trade-off plot stands for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dmlcore.report.figures import colours, markers
from dmlcore.report.names import short_arm, wrapped
from dmlcore.report.study import OFF, Study

FILLS = ("none", "left", "right", "top", "bottom")
"""Marks of the arms other than `off` (which is full); with more arms than these, all are hollow."""
FRONT = {"linestyle": "-", "linewidth": 5, "alpha": 0.35, "color": "#999999"}


@dataclass(frozen=True)
class Legend:
    """Loss -> colour, backbone -> marker, arm -> fill."""

    colours: dict[str, str]
    markers: dict[str, str]
    fills: dict[str, str]


def legend_of(study: Study) -> Legend:
    """The same marks for the same study, whatever has finished."""
    losses, backbones = (list(dict.fromkeys(study.trials[c].sort())) for c in ("loss", "backbone"))
    others = [arm for arm in study.arms if arm != OFF]
    fills = {arm: FILLS[i] if len(others) <= len(FILLS) else "none" for i, arm in enumerate(others)}
    return Legend(colours(losses), markers(backbones), {OFF: "full", **fills})


def draw_legend(figure: Figure, legend: Legend, bars: str, axes: Sequence[str]) -> None:
    """Write the legend to the right of the axes, where it covers nothing.

    Args:
        bars: what the error bars are.
        axes: the swept config paths whose values stand beside the marks.
    """
    parts: list[Line2D] = []
    parts += [_entry("Loss (colour)"), *(_entry(n, color=c, marker="o") for n, c in legend.colours.items())]
    parts += [_entry("Backbone (shape)"), *(_entry(n, marker=m) for n, m in legend.markers.items())]
    parts += [_entry("Regulariser (fill)"), *_fills(legend)]
    parts += [_entry("Reading"), _entry("Pareto front of the means", **FRONT)]
    parts += [_entry("mark: mean over seeds"), _entry(f"bar: {bars}")]
    parts += [_entry("arrow or line: from off to on, same loss and backbone")]
    if axes:
        parts += [_entry("beside a mark: " + ", ".join(axes))]
    drawn = figure.legend(handles=parts, loc="outside right upper", fontsize=7.5, frameon=False)
    for text in drawn.get_texts():
        if text.get_text() in ("Loss (colour)", "Backbone (shape)", "Regulariser (fill)", "Reading"):
            text.set_fontweight("bold")


def _fills(legend: Legend) -> list[Line2D]:
    entries = [_entry(short_arm(arm), marker="o", fillstyle=fill) for arm, fill in legend.fills.items()]
    if len(entries) - 1 > len(FILLS):
        return [entries[0], _entry(f"on: any of {len(entries) - 1} others", marker="o", fillstyle="none")]
    return entries


def _entry(text: str, **style: Any) -> Line2D:
    shape = {"linestyle": "", "color": "#333333", "markersize": 7, **style}
    return Line2D([], [], label=wrapped(text, 24), **shape)
