"""Names written beside their marks, each where it covers least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FONT_POINTS = 6.5
RINGS = (7.0, 13.0, 20.0, 28.0, 38.0, 50.0)
"""Distances from mark to label that are tried, in points; beyond the first a thin line joins the two."""
ANGLES = tuple(range(0, 360, 30))
MARK_POINTS = 7.0


def settle_layout(figure: Figure) -> None:
    """Lay the figure out as it is now, for good."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def place_labels(
    figure: Figure, ax: Axes, names: Sequence[str], anchors: Floats, marks: Floats, shades: Sequence[str]
) -> None:
    """Write each name near its anchor: the first free place, nearest ring first; else the one that covers least.

    To be called when the axes have their final limits, once `settle_layout` has given them their size.

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
        size = _size(figure, names[i])
        boxes = _candidates(pixels[i], size, scale)
        box = min(boxes, key=lambda item: _cost(item[0], item[1], taken, frame, scale))[0]
        taken.append(box)
        _write(ax, names[i], pixels[i], box, shades[i], scale)


def _size(figure: Figure, name: str) -> Floats:
    text = figure.text(0, 0, name, fontsize=FONT_POINTS)
    extent = text.get_window_extent()
    text.remove()
    return np.array([extent.width, extent.height])


def _candidates(at: Floats, size: Floats, scale: float) -> list[tuple[Floats, float]]:
    """Boxes around a mark, each with its distance in points."""
    boxes = []
    for ring in RINGS:
        for angle in np.radians(ANGLES):
            way = np.array([np.cos(angle), np.sin(angle)])
            centre = at + way * (ring * scale + np.abs(way) * size / 2)
            boxes.append((np.concatenate([centre - size / 2, centre + size / 2]), ring))
    return boxes


def _cost(box: Floats, ring: float, taken: Sequence[Floats], frame: Floats, scale: float) -> float:
    """Area covered in square points, far more outside the axes, and a little for distance."""
    others = np.array(taken)
    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    covered = float(np.sum(np.maximum(width, 0) * np.maximum(height, 0))) / scale**2
    beyond = np.sum(np.maximum(frame[:2] - box[:2], 0)) + np.sum(np.maximum(box[2:] - frame[2:], 0))
    return covered + 100 * float(beyond) / scale + 0.2 * ring


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
