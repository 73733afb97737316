"""Validation MAP@R by epoch: a line a trial, a panel a (data set, backbone, loss) or, of many, a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dmlcore.analysis.convergence import CONVERGENCE_RULE, has_converged, validation_curves
from dmlcore.analysis.metric_labels import one_line, variant_label, wrap_text
from dmlcore.analysis.study import Cell, Study, baseline_first
from dmlcore.analysis.tuned_settings import REGULARIZERS_COLUMN, regularizer_family
from dmlcore.metrics.plot import COLOURS, add_footer, colours, house_style, new_figure
from dmlcore.report.figures.panels import add_title, panel_grid, rows_of

COLUMNS, PANEL_INCHES, WIDE_INCHES, LEAST_INCHES = 4, 2.1, 2.4, 5.5

MAX_PANELS = 24
"""Beyond which a panel is a data set."""

MANY_LINES = 30
"""Lines in a panel beyond which they are drawn thinner."""

LINE_STYLES = ("-", "--", ":", "-.")
NOTE = (
    "One line a trial (of one colour: seeds, or settings too). Ring at its end: not converged. Epoch 0: before "
    "training."
)
Panel = tuple[str, ...]
"""Data set, backbone and loss of its trials; or the data set alone."""


def convergence_figure(study: Study) -> Figure:
    """Draw small multiples with families of regularisers as colours, and the rule of convergence below."""
    panels = _panels(study)
    looks = _Look(study)
    columns, count = min(COLUMNS, len(panels)), len(panels)
    with house_style():
        height = PANEL_INCHES * rows_of(count, columns) + 1.5
        figure = new_figure(max(LEAST_INCHES, WIDE_INCHES * columns), height)
        axes = panel_grid(figure, count, columns, sharex=True)
        for index, (ax, (panel, cells)) in enumerate(zip(axes, panels.items(), strict=True)):
            _draw_panel(ax, panel, cells, looks)
            lowest = index + columns >= count
            ax.tick_params(labelbottom=lowest)
            ax.set_xlabel("epoch" if lowest else "", fontsize=8)
        _share_heights(axes, list(panels))
        figure.supylabel("validation MAP@R", fontsize=9)
        add_title(figure, "Validation MAP@R by epoch")
        legend: dict[str, Any] = {"loc": "outside upper right", "ncols": 6, "fontsize": 7.5, "frameon": False}
        figure.legend(handles=looks.legend(), **legend)
        add_footer(figure, f"{NOTE}\n{CONVERGENCE_RULE}")
    return figure


def _panels(study: Study) -> dict[Panel, list[Cell]]:
    """Divide the cells into panels."""
    fine = len({tuple(cell.names.values()) for cell in study.cells}) <= MAX_PANELS
    panels: dict[Panel, list[Cell]] = {}
    for cell in study.cells:
        panels.setdefault(tuple(cell.names.values()) if fine else (cell.dataset,), []).append(cell)
    return panels


class _Look:
    """Variant, or its family where there are many -> colour; swept axes -> line style, where there are few enough."""

    def __init__(self, study: Study) -> None:
        variants = {variant for cell in study.cells for variant in cell.variants}
        self.by_family = len(variants) > len(COLOURS)
        names = {self._name(cell, variant) for cell in study.cells for variant in cell.variants}
        self.colours = colours(baseline_first(names))
        axes = list(dict.fromkeys(cell.axes_text for cell in study.cells))
        self.styles = dict(zip(axes, LINE_STYLES, strict=False)) if 1 < len(axes) <= len(LINE_STYLES) else {}

    def of(self, cell: Cell, variant: str) -> tuple[str, str]:
        return self.colours[self._name(cell, variant)], self.styles.get(cell.axes_text, "-")

    def _name(self, cell: Cell, variant: str) -> str:
        return _family(cell, variant) if self.by_family else variant

    def legend(self) -> list[Line2D]:
        handles = [
            Line2D([], [], color=c, label=wrap_text(variant_label(name), 40))
            for name, c in self.colours.items()
        ]
        for name, style in self.styles.items():
            look: dict[str, Any] = {"linestyle": style, "label": one_line(name, 40)}
            handles.append(Line2D([], [], color="#333333", **look))
        return handles


def _family(cell: Cell, variant: str) -> str:
    trials = cell.variants[variant]
    known = REGULARIZERS_COLUMN in trials.columns
    return regularizer_family(trials[REGULARIZERS_COLUMN][0]) if known else variant


def _draw_panel(ax: Axes, panel: Panel, cells: Sequence[Cell], looks: _Look) -> None:
    lines: dict[tuple[str, str], list[list[float | None]]] = {}
    for cell in cells:
        for variant in cell.variants:
            lines.setdefault(looks.of(cell, variant), []).extend(validation_curves(cell.finished[variant]))
    width = 0.8 if sum(map(len, lines.values())) <= MANY_LINES else 0.45
    flat = [known for look, found in lines.items() for known in _draw_lines(ax, found, *look, width)]
    count = f"{flat.count(True)} of {len(flat)} converged"
    head = [one_line(" ".join(panel[:2]), 30), *(wrap_text(one_line(name, 44), 30) for name in panel[2:])]
    ax.set_title("\n".join([*head, count if flat else "no finished trial with a curve"]), fontsize=7.5)
    ax.locator_params(axis="x", integer=True, nbins=5)
    ax.locator_params(axis="y", nbins=5)
    ax.tick_params(labelsize=7)


def _draw_lines(
    ax: Axes, found: Sequence[list[float | None]], colour: str, style: str, width: float
) -> list[bool]:
    """Draw all curves of one look as one artist (thousands of artists would take minutes), parted by NaN.

    Returns:
        Whether each curve that can be judged was flat at its end; the other ends get a ring.
    """
    if not found:
        return []
    gap = [math.nan]
    values = np.concatenate([np.array([*curve, *gap], dtype=np.float64) for curve in found])
    epochs = np.concatenate([[*range(len(curve)), *gap] for curve in found])
    ax.plot(epochs, values, style, color=colour, linewidth=width, alpha=0.75)
    judged = [(curve, flat) for curve in found if (flat := has_converged(curve)) is not None]
    ends = [(len(curve) - 1, curve[-1]) for curve, flat in judged if not flat]
    if ends:
        ax.plot(*zip(*ends, strict=True), "o", color=colour, fillstyle="none", markersize=4.5)
    return [flat for _, flat in judged]


def _share_heights(axes: Sequence[Axes], panels: Sequence[Panel]) -> None:
    """Give panels of one data set one height, so that its losses can be compared across them."""
    for name in {panel[0] for panel in panels}:
        mine = [ax for ax, panel in zip(axes, panels, strict=True) if panel[0] == name]
        tops = (float(np.nanmax(line.get_ydata(), initial=0.0)) for ax in mine for line in ax.lines)
        top = max(tops, default=0.0)
        for ax in mine:
            ax.set_ylim(0.0, 1.06 * top or 1.0)
