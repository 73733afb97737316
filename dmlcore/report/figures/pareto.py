"""The figure of part `pareto`: OPIS against accuracy, one point a configuration, each loss named once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from dmlcore.analysis.metric_labels import metric_label, one_line
from dmlcore.analysis.protocol import protocol_text
from dmlcore.analysis.relations import OPIS_METRICS, Point, Relation
from dmlcore.analysis.study import Study
from dmlcore.metrics.plot import add_footer, colours, house_style, markers, new_figure, settle_layout
from dmlcore.report.figures.labels import place_labels
from dmlcore.report.figures.panels import add_title, draw_pareto_front, write_reason
from dmlcore.report.figures.tradeoff import TradeoffPoint, error_bar, error_bar_text, intervals_readable

Looks = Mapping[str, str]
"""Name -> colour or marker."""

WIDTH, ROW_INCHES = 12.0, 5.0
NOTE = (
    "Point: mean over seeds. Bars: {bars}. Thin lines join the settings of a loss. Grey band: Pareto front (no other "
    "configuration is both more accurate and more consistent). Dashed: best line with one bend; solid: straight line."
)


def pareto_figure(study: Study, found: Sequence[Relation]) -> Figure:
    """Draw a row a (data set, backbone); OPIS corrected on the left, raw on the right."""
    accuracy = study.config.accuracy
    places = list(dict.fromkeys(r.group for r in found))
    shades = colours(sorted(set(study.trials["loss"])))
    shapes = markers(list(dict.fromkeys(point.setting for r in found for point in r.points)))
    t_intervals = all(intervals_readable(_tradeoff_points(r, accuracy)) for r in found)
    with house_style():
        figure = new_figure(WIDTH, ROW_INCHES * max(1, len(places)) + 1.0)
        grid = figure.subplots(max(1, len(places)), len(OPIS_METRICS), squeeze=False)
        panels = [(grid[places.index(r.group)][OPIS_METRICS.index(r.metric)], r) for r in found]
        for ax, r in panels:
            _draw_panel(ax, r, accuracy, t_intervals, shades, shapes)
        if not found:
            for ax in grid[0]:
                write_reason(ax, "no finished trial")
        add_title(figure, "Accuracy against inconsistency of one threshold")
        if len(shapes) > 1:
            style: dict[str, Any] = {"linestyle": "", "color": "#333333", "markersize": 6}
            looks = shapes.items()
            entries = [Line2D([], [], marker=m, label=one_line(name, 40), **style) for name, m in looks]
            figure.legend(handles=entries, loc="outside upper right", ncols=5, fontsize=7.5, frameon=False)
        bars = error_bar_text(t_intervals, study.config.confidence)
        add_footer(figure, f"{NOTE.format(bars=bars)}\n{protocol_text(study)}")
        settle_layout(figure)  # labels are placed in pixels, so the axes must have their final size
        for ax, r in panels:
            _name_losses(figure, ax, r, accuracy, shades)
    return figure


def _tradeoff_points(r: Relation, accuracy: str) -> list[TradeoffPoint]:
    return [TradeoffPoint(p.cell, p.variant, p.metrics[accuracy], p.metrics[r.metric]) for p in r.points]


def _means(points: Sequence[Point], r: Relation, accuracy: str) -> NDArray[np.float64]:
    """Return (accuracy, inconsistency), [n, 2]."""
    return np.array([(p.mean(accuracy), p.mean(r.metric)) for p in points]).reshape(-1, 2)


def _draw_panel(
    ax: Axes, r: Relation, accuracy: str, t_intervals: bool, shades: Looks, shapes: Looks
) -> None:
    draw_pareto_front(ax, _means(r.front, r, accuracy), "pre", 13)
    for loss, colour in shades.items():
        settings = _means([p for p in r.points if p.cell.loss == loss], r, accuracy)
        if len(settings):
            ax.plot(settings[:, 0], settings[:, 1], color=colour, linewidth=0.6, alpha=0.6, zorder=2)
    _draw_fits(ax, r, accuracy)
    for point in r.points:
        bars = [error_bar(point.metrics[metric], t_intervals) for metric in (accuracy, r.metric)]
        x, y, colour = point.mean(accuracy), point.mean(r.metric), shades[point.cell.loss]
        ax.errorbar(x, y, bars[1], bars[0], fmt="none", ecolor=colour, elinewidth=0.7, alpha=0.45, zorder=2)
        ax.plot(x, y, shapes[point.setting], color=colour, markersize=6, zorder=4)
    ax.margins(0.1)
    ax.set_xlabel(f"{metric_label(accuracy)}, {accuracy} (higher is better \N{RIGHTWARDS ARROW})")
    ax.set_ylabel(f"{metric_label(r.metric)}, {r.metric} (\N{LEFTWARDS ARROW} lower is better)")
    ax.set_title(f"{' '.join(r.group)}: {_heading(r)}", fontsize=8.5, loc="left")


def _heading(r: Relation) -> str:
    rho = "" if r.overall.rho is None else f"rho {r.overall.rho:+.2f}; "
    if r.breakpoint is None:
        return rho + "too few configurations for a bend"
    bend = f"bend at {r.breakpoint.at:.3f}" if r.has_breakpoint else "no bend found"
    return f"{rho}{bend} (p = {r.breakpoint.p:.2g})"


def _draw_fits(ax: Axes, r: Relation, accuracy: str) -> None:
    """Draw the straight line and the line with one bend that `relations` compares."""
    x, y = _means(r.points, r, accuracy).T
    if np.ptp(x) > 0:
        ends = np.array([x.min(), x.max()])
        line = np.polyval(np.polyfit(x, y, 1), ends)
        ax.plot(ends, line, color="#000000", linewidth=0.8, alpha=0.6, zorder=1)
    if r.breakpoint is not None:
        order = np.argsort(x, kind="stable")
        ax.plot(x[order], r.breakpoint.fitted[order], "--", color="#000000", linewidth=1.0, zorder=1)
        alpha = 0.7 if r.has_breakpoint else 0.2
        ax.axvline(r.breakpoint.at, color="#000000", linewidth=0.7, alpha=alpha, linestyle=":")


def _name_losses(figure: Figure, ax: Axes, r: Relation, accuracy: str, shades: Looks) -> None:
    """Name each loss once, at its most accurate setting."""
    best = {point.cell.loss: point for point in sorted(r.points, key=lambda p: p.mean(accuracy))}
    anchors, points = (_means(group, r, accuracy) for group in (list(best.values()), r.points))
    names = [one_line(loss, 32) for loss in best]
    place_labels(figure, ax, names, anchors, points, [shades[loss] for loss in best])
