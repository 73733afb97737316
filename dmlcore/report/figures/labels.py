"""Names written beside their marks, each where it covers least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from dmlcore.analysis.metric_labels import variant_label, wrap_text
from dmlcore.analysis.study import BASELINE, Study
from dmlcore.metrics.plot import colours, markers

Floats = NDArray[np.float64]
FONT_POINTS = 6.5


RINGS = (7.0, 13.0, 20.0, 28.0, 38.0, 50.0)
"""Distances from mark to label that are tried, in points; beyond the first a thin line joins the two."""


ANGLES = tuple(range(0, 360, 30))
MARK_POINTS = 7.0


def place_labels(
    figure: Figure, ax: Axes, names: Sequence[str], anchors: Floats, marks: Floats, shades: Sequence[str]
) -> None:
    """Write each name near its anchor: the first free place, nearest ring first; else the one that covers least.

    To be called when the axes have their final limits, once `figures.settle_layout` has given them their size.

    Args:
        names: [n].
        anchors: [n, 2], data coordinates of the marks that are named.
        marks: [m, 2], all marks to keep clear of.
        shades: [n], colours of the texts.
    """
    ax.autoscale(False)
    scale = figure.dpi / 72
    frame = np.array(ax.get_window_extent().extents)
    dots = ax.transData.transform(marks)
    half = MARK_POINTS / 2 * scale
    taken = [np.array([x - half, y - half, x + half, y + half]) for x, y in dots]
    pixels = ax.transData.transform(anchors)
    for i in np.argsort(-pixels[:, 1], kind="stable"):
        boxes, rings = _candidates(pixels[i], _size(figure, names[i]), scale)
        box = boxes[np.argmin(_costs(boxes, rings, np.array(taken), frame, scale))]
        taken.append(box)
        _write(ax, names[i], pixels[i], box, shades[i], scale)


def _size(figure: Figure, name: str) -> Floats:
    text = figure.text(0, 0, name, fontsize=FONT_POINTS)
    extent = text.get_window_extent()
    text.remove()
    return np.array([extent.width, extent.height])


def _candidates(at: Floats, size: Floats, scale: float) -> tuple[Floats, Floats]:
    """Boxes around a mark, [k, 4], and the distance of each in points, [k]."""
    rings, angles = (grid.ravel() for grid in np.meshgrid(RINGS, np.radians(ANGLES), indexing="ij"))
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    centres = at + ways * (rings[:, None] * scale + np.abs(ways) * size / 2)
    return np.hstack([centres - size / 2, centres + size / 2]), rings


def _costs(boxes: Floats, rings: Floats, taken: Floats, frame: Floats, scale: float) -> Floats:
    """Of each box the area that it covers in square points, far more outside the axes, and a little for distance."""
    low = np.maximum(boxes[:, None, :2], taken[:, :2])
    high = np.minimum(boxes[:, None, 2:], taken[:, 2:])
    covered = np.maximum(high - low, 0).prod(axis=2).sum(axis=1) / scale**2
    beyond = np.maximum(frame[:2] - boxes[:, :2], 0) + np.maximum(boxes[:, 2:] - frame[2:], 0)
    return covered + 100 * beyond.sum(axis=1) / scale + 0.2 * rings


def _write(ax: Axes, name: str, at: Floats, box: Floats, shade: str, scale: float) -> None:
    centre = (box[:2] + box[2:]) / 2
    nearest = np.clip(at, box[:2], box[2:])
    style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "zorder": 6}
    (x, y), (right, up) = ax.transData.inverted().transform(at), (centre - at) / scale
    text = ax.annotate(name, (x, y), (right, up), fontsize=FONT_POINTS, color=_darker(shade), **style)
    text.set_path_effects([withStroke(linewidth=2.0, foreground="white")])
    if np.hypot(*(nearest - at)) > (RINGS[0] + 1) * scale:
        ends = ax.transData.inverted().transform(np.stack([at, nearest]))
        ax.plot(ends[:, 0], ends[:, 1], color=shade, linewidth=0.5, alpha=0.7, zorder=1)


def _darker(shade: str) -> tuple[float, ...]:
    """Light marks can be seen, light texts cannot be read."""
    return tuple(0.65 * part for part in to_rgb(shade))


FILLS = ("none", "left", "right", "top", "bottom")
"""Marks of the variants other than `baseline` (which is full); with more variants than these, all are hollow."""


FRONT = {"linestyle": "-", "linewidth": 5, "alpha": 0.35, "color": "#999999"}


@dataclass(frozen=True)
class Legend:
    """Loss -> colour, backbone -> marker, variant -> fill."""

    colours: dict[str, str]
    markers: dict[str, str]
    fills: dict[str, str]


def legend_of(study: Study) -> Legend:
    """The same marks for the same study, whatever has finished."""
    losses, backbones = (list(dict.fromkeys(study.trials[c].sort())) for c in ("loss", "backbone"))
    others = [variant for variant in study.variants if variant != BASELINE]
    fills = {variant: FILLS[i] if len(others) <= len(FILLS) else "none" for i, variant in enumerate(others)}
    return Legend(colours(losses), markers(backbones), {BASELINE: "full", **fills})


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
    parts += [_entry("arrow or line: from baseline to variant, same loss and backbone")]
    if axes:
        parts += [_entry("beside a mark: " + ", ".join(axes))]
    drawn = figure.legend(handles=parts, loc="outside right upper", fontsize=7.5, frameon=False)
    for text in drawn.get_texts():
        if text.get_text() in ("Loss (colour)", "Backbone (shape)", "Regulariser (fill)", "Reading"):
            text.set_fontweight("bold")


def _fills(legend: Legend) -> list[Line2D]:
    entries = [
        _entry(variant_label(variant), marker="o", fillstyle=fill) for variant, fill in legend.fills.items()
    ]
    if len(entries) - 1 > len(FILLS):
        return [entries[0], _entry(f"on: any of {len(entries) - 1} others", marker="o", fillstyle="none")]
    return entries


def _entry(text: str, **style: Any) -> Line2D:
    shape = {"linestyle": "", "color": "#333333", "markersize": 7, **style}
    return Line2D([], [], label=wrap_text(text, 24), **shape)
