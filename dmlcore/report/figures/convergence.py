"""Validation MAP@R by epoch: a panel a (data set, backbone, loss), a data set where those are many; a line a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from dmlcore.analysis.convergence import CONVERGENCE_RULE, still_rising, validation_curves
from dmlcore.analysis.metric_labels import one_line, wrap_text
from dmlcore.analysis.study import Cell, Study
from dmlcore.analysis.tuned_settings import REGULARIZERS_COLUMN, regularizer_family
from dmlcore.metrics.plot import add_footer, colours, house_style, new_figure

COLUMNS, PANEL_INCHES, WIDE_INCHES, LEAST_INCHES = 4, 2.1, 2.4, 5.5


MOST_PANELS = 24
"""Beyond which a panel is a data set."""


MANY = 30
"""Lines in a panel beyond which they are drawn thinner."""


LINE_STYLES = ("-", "--", ":", "-.")
NOTE = "One line a trial (seeds and settings of one colour alike). Ring at its end: not converged. Epoch 0: untrained."
Place = tuple[str, ...]
Floats = NDArray[np.float64]


def convergence_figure(study: Study) -> Figure:
    """Small multiples with the variants' families as colours; the rule of convergence stands below."""
    places = _places(study)
    shades, strokes = colours(_families(study)), _strokes(study)
    columns = min(COLUMNS, len(places))
    rows = -(-len(places) // columns)
    with house_style():
        figure = new_figure(max(LEAST_INCHES, WIDE_INCHES * columns), PANEL_INCHES * rows + 1.5)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
        for ax, place in zip(axes, places, strict=False):
            _panel(ax, place, places[place], shades, strokes)
        for ax in axes[len(places) :]:
            ax.set_axis_off()
        for index, ax in enumerate(axes[: len(places)]):
            lowest = index + columns >= len(places)
            ax.tick_params(labelbottom=lowest)
            ax.set_xlabel("epoch" if lowest else "", fontsize=8)
        _share_heights(list(axes[: len(places)]), list(places))
        figure.supylabel("validation MAP@R", fontsize=9)
        figure.suptitle("Validation MAP@R by epoch", fontsize=11, x=0.01, ha="left")
        figure.legend(
            handles=_entries(shades, strokes), loc="outside upper right", ncols=6, fontsize=7.5, frameon=False
        )
        add_footer(figure, f"{NOTE}\n{CONVERGENCE_RULE}")
    return figure


def _places(study: Study) -> dict[Place, list[Cell]]:
    """The cells of each panel."""
    fine: dict[Place, list[Cell]] = {}
    coarse: dict[Place, list[Cell]] = {}
    for cell in study.cells:
        fine.setdefault((cell.dataset, cell.backbone, cell.loss), []).append(cell)
        coarse.setdefault((cell.dataset,), []).append(cell)
    return fine if len(fine) <= MOST_PANELS else coarse


def _families(study: Study) -> list[str]:
    if REGULARIZERS_COLUMN not in study.trials.columns:
        return study.variants
    names = {regularizer_family(text) for text in study.trials[REGULARIZERS_COLUMN]}
    return sorted(names, key=lambda name: (name != "baseline", name))


def _strokes(study: Study) -> dict[str, str]:
    """Swept axes -> line style, where there are few enough to tell apart."""
    texts = list(dict.fromkeys(cell.axes_text for cell in study.cells))
    return dict(zip(texts, LINE_STYLES, strict=False)) if 1 < len(texts) <= len(LINE_STYLES) else {}


def _panel(
    ax: Axes, place: Place, cells: Sequence[Cell], shades: Mapping[str, str], strokes: Mapping[str, str]
) -> None:
    drawn: dict[tuple[str, str], list[list[float | None]]] = {}
    for cell in cells:
        for variant in cell.variants:
            look = (shades[_shade(cell, variant)], strokes.get(cell.axes_text, "-"))
            drawn.setdefault(look, []).extend(validation_curves(cell, variant).values())
    width = 0.8 if sum(map(len, drawn.values())) <= MANY else 0.45
    judged = [rising for look, found in drawn.items() for rising in _lines(ax, found, *look, width)]
    count = (
        f"{judged.count(False)} of {len(judged)} converged" if judged else "no finished trial with a curve"
    )
    head = [
        one_line(" ".join(place[:2]), 30),
        *(wrap_text(one_line(name, 44), 30) for name in place[2:]),
        count,
    ]
    ax.set_title("\n".join(head), fontsize=7.5)
    ax.locator_params(axis="x", integer=True, nbins=5)
    ax.locator_params(axis="y", nbins=5)
    ax.tick_params(labelsize=7)


def _shade(cell: Cell, variant: str) -> str:
    trials = cell.variants[variant]
    return (
        regularizer_family(trials[REGULARIZERS_COLUMN][0])
        if REGULARIZERS_COLUMN in trials.columns
        else variant
    )


def _lines(
    ax: Axes, found: Sequence[list[float | None]], colour: str, stroke: str, width: float
) -> list[bool]:
    """All curves of one look as one artist (thousands would take minutes), a ring at each end that is still rising."""
    if not found:
        return []
    gap = [math.nan]
    values = np.concatenate([np.array([*curve, *gap], dtype=np.float64) for curve in found])
    epochs = np.concatenate([[*range(len(curve)), *gap] for curve in found])
    ax.plot(epochs, values, stroke, color=colour, linewidth=width, alpha=0.75)
    judged = [(curve, rising) for curve in found if (rising := still_rising(curve)) is not None]
    ends = [(len(curve) - 1, curve[-1]) for curve, rising in judged if rising]
    if ends:
        ax.plot(*zip(*ends, strict=True), "o", color=colour, fillstyle="none", markersize=4.5)
    return [rising for _, rising in judged]


def _share_heights(axes: Sequence[Axes], places: Sequence[Place]) -> None:
    """One height a data set, so that its losses can be compared across panels."""
    for name in {place[0] for place in places}:
        mine = [ax for ax, place in zip(axes, places, strict=True) if place[0] == name]
        top = max(
            (float(np.nanmax(line.get_ydata(), initial=0.0)) for ax in mine for line in ax.lines), default=0.0
        )
        for ax in mine:
            ax.set_ylim(0.0, 1.06 * top or 1.0)


def _entries(shades: Mapping[str, str], strokes: Mapping[str, str]) -> list[Line2D]:
    lines = [Line2D([], [], color=colour, label=wrap_text(name, 40)) for name, colour in shades.items()]
    for name, stroke in strokes.items():
        style: dict[str, Any] = {"color": "#333333", "linestyle": stroke, "label": one_line(name, 40)}
        lines.append(Line2D([], [], **style))
    return lines
