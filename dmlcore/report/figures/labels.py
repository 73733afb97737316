"""The legend, and names written next to their points, each where it covers least."""

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
from dmlcore.report.figures.panels import FRONT_STYLE

Floats = NDArray[np.float64]
FONT_POINTS, MARKER_POINTS = 6.5, 7.0

RINGS = (7.0, 13.0, 20.0, 28.0, 38.0, 50.0)
"""Distances from point to label that are tried, in points; beyond the first a thin line joins the two."""

ANGLES = tuple(range(0, 360, 30))

FILLS = ("none", "left", "right", "top", "bottom")
"""Markers of the variants other than the baseline (which is full); with more variants than these, all are hollow."""


@dataclass(frozen=True)
class Legend:
    """Loss -> colour, backbone -> marker, variant -> fill."""

    colours: dict[str, str]
    markers: dict[str, str]
    fills: dict[str, str]


def legend_of(study: Study) -> Legend:
    """Choose looks by the plan, so that a point looks the same whatever has finished."""
    losses, backbones = (list(dict.fromkeys(study.trials[c].sort())) for c in ("loss", "backbone"))
    others = [variant for variant in study.variants if variant != BASELINE]
    fills = {variant: FILLS[i] if len(others) <= len(FILLS) else "none" for i, variant in enumerate(others)}
    return Legend(colours(losses), markers(backbones), {BASELINE: "full", **fills})


def draw_legend(figure: Figure, legend: Legend, error_bars: str, labels: Sequence[str]) -> None:
    """Write the legend to the right of the axes, where it covers nothing.

    Args:
        figure: where to.
        legend: what the looks mean.
        error_bars: what the error bars are.
        labels: what is written next to points.
    """
    groups = {
        "Loss (colour)": [_entry(name, color=c, marker="o") for name, c in legend.colours.items()],
        "Backbone (shape)": [_entry(name, marker=m) for name, m in legend.markers.items()],
        "Regulariser (fill)": _fill_entries(legend),
        "Reading": [
            _entry("Pareto front of the means", linestyle="-", **FRONT_STYLE),
            _entry("point: mean over seeds"),
            _entry(f"bar: {error_bars}"),
            _entry("arrow or line: from baseline to variant, same loss and backbone"),
            *([_entry("next to a point: " + ", ".join(labels))] if labels else []),
        ],
    }
    handles = [entry for heading, entries in groups.items() for entry in (_entry(heading), *entries)]
    drawn = figure.legend(handles=handles, loc="outside right upper", fontsize=7.5, frameon=False)
    for text in drawn.get_texts():
        if text.get_text() in groups:
            text.set_fontweight("bold")


def _fill_entries(legend: Legend) -> list[Line2D]:
    fills = list(legend.fills.items())
    if len(fills) - 1 > len(FILLS):
        others = _entry(f"any of {len(fills) - 1} variants", marker="o", fillstyle="none")
        return [_entry(BASELINE, marker="o", fillstyle="full"), others]
    return [_entry(variant_label(variant), marker="o", fillstyle=fill) for variant, fill in fills]


def _entry(text: str, **style: Any) -> Line2D:
    shape = {"linestyle": "", "color": "#333333", "markersize": 7, **style}
    return Line2D([], [], label=wrap_text(text, 24), **shape)


def place_labels(
    figure: Figure, ax: Axes, names: Sequence[str], anchors: Floats, points: Floats, colours: Sequence[str]
) -> None:
    """Write each name near its anchor, in the box that covers least; of equals the nearest.

    To be called when the axes have their final limits, once `settle_layout` has given them their size.
    Names are placed from the top down, each keeping clear of those before it; the 72 boxes of a name are scored
    against all points and names as arrays.

    Args:
        figure: the figure of `ax`.
        ax: where to.
        names: [n].
        anchors: [n, 2], data coordinates of the points that are named.
        points: [m, 2], all points to keep clear of.
        colours: [n], of the texts.
    """
    ax.autoscale(False)
    scale = figure.dpi / 72
    frame = np.array(ax.get_window_extent().extents)
    pixels, half = ax.transData.transform(points), MARKER_POINTS / 2 * scale
    taken = list(np.hstack([pixels - half, pixels + half]))
    pixels = ax.transData.transform(anchors)
    for i in np.argsort(-pixels[:, 1], kind="stable"):
        boxes, rings = _candidates(pixels[i], _text_size(figure, names[i]), scale)
        box = boxes[np.argmin(_costs(boxes, rings, np.array(taken), frame, scale))]
        taken.append(box)
        _write(ax, names[i], pixels[i], box, colours[i], scale)


def _text_size(figure: Figure, name: str) -> Floats:
    """Measure a text in pixels; matplotlib knows its extent only once it is part of a figure."""
    text = figure.text(0, 0, name, fontsize=FONT_POINTS)
    extent = text.get_window_extent()
    text.remove()
    return np.array([extent.width, extent.height])


def _candidates(at: Floats, size: Floats, scale: float) -> tuple[Floats, Floats]:
    """Return boxes around a point, [k, 4], nearest first, and the distance of each in points, [k]."""
    rings, angles = (grid.ravel() for grid in np.meshgrid(RINGS, np.radians(ANGLES), indexing="ij"))
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # half of the box in this direction on top of the ring, so that the gap to the point is the same all around
    centres = at + directions * (rings[:, None] * scale + np.abs(directions) * size / 2)
    return np.hstack([centres - size / 2, centres + size / 2]), rings


def _costs(boxes: Floats, rings: Floats, taken: Floats, frame: Floats, scale: float) -> Floats:
    """Score boxes: the area that each covers in square points, 100 a point outside the axes, 0.2 a point of distance.

    Args:
        boxes, taken: [k, 4] and [t, 4], as (left, bottom, right, top) in pixels.
        rings: [k], distances in points.
        frame: [4], the axes.
        scale: pixels a point.
    """
    low = np.maximum(boxes[:, None, :2], taken[:, :2])
    high = np.minimum(boxes[:, None, 2:], taken[:, 2:])
    covered = np.maximum(high - low, 0).prod(axis=2).sum(axis=1) / scale**2
    beyond = np.maximum(frame[:2] - boxes[:, :2], 0) + np.maximum(boxes[:, 2:] - frame[2:], 0)
    return covered + 100 * beyond.sum(axis=1) / scale + 0.2 * rings


def _write(ax: Axes, name: str, at: Floats, box: Floats, colour: str, scale: float) -> None:
    centre = (box[:2] + box[2:]) / 2
    nearest = np.clip(at, box[:2], box[2:])
    style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "zorder": 6}
    (x, y), (right, up) = ax.transData.inverted().transform(at), (centre - at) / scale
    text = ax.annotate(name, (x, y), (right, up), fontsize=FONT_POINTS, color=_darker(colour), **style)
    text.set_path_effects([withStroke(linewidth=2.0, foreground="white")])
    if np.hypot(*(nearest - at)) > (RINGS[0] + 1) * scale:
        ends = ax.transData.inverted().transform(np.stack([at, nearest]))
        ax.plot(ends[:, 0], ends[:, 1], color=colour, linewidth=0.5, alpha=0.7, zorder=1)


def _darker(colour: str) -> tuple[float, ...]:
    """Darken a marker's colour for text: light markers can be seen, light text cannot be read."""
    return tuple(0.65 * part for part in to_rgb(colour))
