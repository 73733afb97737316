"""The figure of part `embedding`: clouds and directions in two dimensions, and each class's utility below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dmlcore.analysis.embedding import Floats, TrialEmbeddings, far_range, metrics_text
from dmlcore.analysis.metric_labels import wrap_text
from dmlcore.analysis.protocol import protocol_text
from dmlcore.analysis.study import Study
from dmlcore.metrics.plot import add_footer, house_style, new_figure
from dmlcore.report.figures.panels import add_title, variant_title

CLASS_COLOURS = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933"),
    *("#DDCC77", "#CC6677", "#882255", "#AA4499", "#000000"),
)
"""Tol's muted palette, safe for the colour-blind, for up to ten classes."""

RING_RADIUS, NAME_RADIUS = 1.2, 1.36
"""Of the ring of directions and of the class names; the cloud ends at about 1."""

NAME_GAP_DEGREES = 9.0
COLUMN_INCHES, ROW_INCHES = 4.4, 6.6
THRESHOLDS = 201
NOTE = (
    "Above: test images by class, first finished seed. Cloud: the embeddings as they are, scaled so that 95 % of them "
    "are within the circle. Ring: their directions, all that the normalised embeddings keep and that distances see. "
    "Below: utility of one distance threshold, a line a class in its colour; grey: the calibration "
    "range that OPIS averages over."
)


def embedding_figure(study: Study, drawn: Sequence[TrialEmbeddings]) -> Figure:
    """Draw a column a variant; a pair of rows (cloud, utility) a cell."""
    cells = list({id(p.cell): p.cell for p in drawn}.values())
    variants = [variant for variant in study.variants if any(p.variant == variant for p in drawn)]
    with house_style():
        figure = new_figure(COLUMN_INCHES * max(2, len(variants)), ROW_INCHES * len(cells) + 1.0)
        ratios = [1.6, 1.0] * len(cells)
        grid = figure.subplots(len(ratios), len(variants), squeeze=False, height_ratios=ratios)
        for ax in grid.ravel():
            ax.set_visible(False)
        for picture in drawn:
            row = 2 * next(i for i, cell in enumerate(cells) if cell is picture.cell)
            cloud, utility = grid[row : row + 2, variants.index(picture.variant)]
            _draw_cloud(cloud, picture)
            _draw_utility(utility, picture, _thresholds([p for p in drawn if p.cell is picture.cell]))
        add_title(figure, "Embeddings of the test images in two dimensions")
        add_footer(figure, f"{NOTE}\n{protocol_text(study)}")
    return figure


def class_colours(labels: Sequence[int]) -> dict[int, str]:
    if len(labels) <= len(CLASS_COLOURS):
        return dict(zip(labels, CLASS_COLOURS, strict=False))
    steps = colormaps["turbo"](np.linspace(0.05, 0.95, len(labels)))
    return {label: to_hex(step) for label, step in zip(labels, steps, strict=True)}


def spread(angles: Floats, apart: float) -> Floats:
    """Move angles until neighbours are `apart` degrees from each other, in the same order round the circle.

    Args:
        angles: [n] degrees.
        apart: degrees; capped at 360 / n.

    Returns:
        [n] degrees, close to `angles`.
    """
    order = np.argsort(angles, kind="stable")
    moved = angles[order].astype(np.float64)
    gap = min(apart, 360.0 / max(len(angles), 1))
    # Each round shares a gap that is too narrow between its two sides, and so narrows others
    for _ in range(200):
        behind = np.roll(moved, 1)
        behind[:1] -= 360.0
        short = np.maximum(0.0, gap - (moved - behind))
        moved += short / 2 - np.roll(short, -1) / 2
    result = np.empty_like(moved)
    result[order] = moved
    return result


def _draw_cloud(ax: Axes, picture: TrialEmbeddings) -> None:
    ax.set_visible(True)
    norms = np.linalg.norm(picture.embeddings, axis=1)
    points = picture.embeddings / np.quantile(norms, 0.95)
    directions = picture.embeddings / np.maximum(norms, 1e-12)[:, None]
    colours = class_colours(sorted(set(picture.labels.tolist())))
    circle = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(circle), np.sin(circle), color="#999999", linewidth=0.8)
    for label, colour in colours.items():
        mine = picture.labels == label
        ax.scatter(points[mine, 0], points[mine, 1], s=5, color=colour, alpha=0.5, linewidths=0)
        ends = np.stack([directions[mine] * (RING_RADIUS - 0.05), directions[mine] * (RING_RADIUS + 0.05)])
        ax.plot(ends[..., 0], ends[..., 1], color=colour, linewidth=0.6, alpha=0.35)
    _write_names(ax, directions, picture.labels, colours)
    ax.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), xticks=[], yticks=[], aspect="equal")
    ax.grid(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    cell, variant = picture.cell, wrap_text(variant_title(picture.variant), 48)
    ax.set_title(f"{cell.dataset} {cell.backbone} {cell.loss_text}\n{variant}", fontsize=9)


def _write_names(ax: Axes, directions: Floats, labels: NDArray[np.int64], colours: Mapping[int, str]) -> None:
    means = np.array([directions[labels == label].mean(axis=0) for label in colours])
    angles = np.radians(spread(np.degrees(np.arctan2(means[:, 1], means[:, 0])), NAME_GAP_DEGREES))
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9, "fontweight": "bold"}
    for (label, colour), angle in zip(colours.items(), angles, strict=True):
        x, y = NAME_RADIUS * np.cos(angle), NAME_RADIUS * np.sin(angle)
        ax.text(x, y, str(label), color=colour, **style)


def _thresholds(drawn: Sequence[TrialEmbeddings]) -> tuple[float, float]:
    """Span the calibration ranges of all variants and some room, so that these can be compared."""
    low = min(p.row["test/distance_min"] for p in drawn)
    high = max(p.row["test/distance_max"] for p in drawn)
    return max(low - (high - low), low / 4), min(2 * high - low, 2.0)


def _draw_utility(ax: Axes, picture: TrialEmbeddings, span: tuple[float, float]) -> None:
    # Imports torch, which the other parts of the stage do without
    from dmlcore.metrics.evaluation import evaluate

    ax.set_visible(True)
    row, labels = picture.row, picture.labels
    options: dict[str, Any] = {"num_thresholds": THRESHOLDS, "distance_range": span}
    found = evaluate(picture.embeddings, labels, far_range=far_range(row), **options)
    colours = class_colours(sorted(set(labels.tolist())))
    ax.axvspan(row["test/distance_min"], row["test/distance_max"], color="#000000", alpha=0.09, linewidth=0)
    for label, curve in zip(found.class_labels.tolist(), found.utility, strict=True):
        ax.plot(found.thresholds, curve, color=colours[label], linewidth=1.2)
    ax.set_ylim(0.0, 1.02)
    ax.set_xlabel("distance threshold (L2)", fontsize=8)
    ax.set_ylabel("utility", fontsize=8)
    ax.set_title(metrics_text(row), fontsize=8)
