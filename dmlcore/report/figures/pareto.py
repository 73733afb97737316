"""The picture of part `pareto`: OPIS against accuracy, one mark a configuration, the losses named beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dmlcore.analysis.metric_labels import metric_label, one_line
from dmlcore.analysis.protocol import protocol_text
from dmlcore.analysis.relations import OPIS_METRICS, Point, Relation
from dmlcore.analysis.study import Study
from dmlcore.metrics.plot import add_footer, colours, house_style, markers, new_figure, settle_layout
from dmlcore.report.figures.labels import place_labels
from dmlcore.report.figures.tradeoff import Mark, bar, bar_text, intervals_readable

WIDTH, ROW_INCHES = 12.0, 5.0
NOTE = (
    "Mark: mean over seeds. Bars: {bars}. Thin lines join the settings of a loss. Grey band: Pareto front (no other "
    "configuration is both more accurate and more consistent). Dashed: best line with one bend; solid: straight line."
)


def pareto_figure(study: Study, found: Sequence[Relation]) -> Figure:
    """A row a (data set, backbone); OPIS corrected on the left, raw on the right."""
    accuracy = study.config.accuracy
    places = list(dict.fromkeys(r.group for r in found))
    with house_style():
        figure = new_figure(WIDTH, ROW_INCHES * max(1, len(places)) + 1.0)
        grid = figure.subplots(max(1, len(places)), len(OPIS_METRICS), squeeze=False)
        losses = sorted(set(study.trials["loss"]))
        shades, shapes, whole = colours(losses), _shapes(found), _whole(found, accuracy)
        for r in found:
            _panel(
                grid[places.index(r.group)][OPIS_METRICS.index(r.metric)], r, accuracy, whole, shades, shapes
            )
        if not found:
            for ax in grid[0]:
                ax.text(0.5, 0.5, "no finished trial", ha="center", transform=ax.transAxes)
        figure.suptitle("Accuracy against inconsistency of one threshold", fontsize=11, x=0.01, ha="left")
        if len(shapes) > 1:
            figure.legend(
                handles=_entries(shapes), loc="outside upper right", ncols=5, fontsize=7.5, frameon=False
            )
        bars = bar_text(whole, study.config.confidence)
        add_footer(figure, f"{NOTE.format(bars=bars)}\n{protocol_text(study)}")
        settle_layout(figure)
        for r in found:
            _label(figure, grid[places.index(r.group)][OPIS_METRICS.index(r.metric)], r, accuracy, shades)
    return figure


def _shapes(found: Sequence[Relation]) -> dict[str, str]:
    return markers(list(dict.fromkeys(point.setting for r in found for point in r.points)))


def _entries(shapes: Mapping[str, str]) -> list[Line2D]:
    style: dict[str, Any] = {"linestyle": "", "color": "#333333", "markersize": 6}
    return [Line2D([], [], marker=shape, label=one_line(name, 40), **style) for name, shape in shapes.items()]


def _panel(
    ax: Axes, r: Relation, accuracy: str, whole: bool, shades: Mapping[str, str], shapes: Mapping[str, str]
) -> None:
    _lines(ax, r, accuracy, shades)
    for point in r.points:
        bars = [bar(point.metrics[metric], whole) for metric in (accuracy, r.metric)]
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
    return (
        rho
        + (f"bend at {r.breakpoint.at:.3f}" if r.has_breakpoint else "no bend found")
        + f" (p = {r.breakpoint.p:.2g})"
    )


def _lines(ax: Axes, r: Relation, accuracy: str, shades: Mapping[str, str]) -> None:
    front = np.array([(p.mean(accuracy), p.mean(r.metric)) for p in r.front])
    ax.step(front[:, 0], front[:, 1], where="pre", color="#999999", linewidth=5, alpha=0.35, zorder=1)
    ax.plot(
        front[:, 0], front[:, 1], "o", color="#999999", markersize=13, alpha=0.35, zorder=1, markeredgewidth=0
    )
    for loss, colour in shades.items():
        mine = np.array([(p.mean(accuracy), p.mean(r.metric)) for p in r.points if p.cell.loss == loss])
        if len(mine):
            ax.plot(mine[:, 0], mine[:, 1], color=colour, linewidth=0.6, alpha=0.6, zorder=2)
    x = np.array([p.mean(accuracy) for p in r.points])
    y = np.array([p.mean(r.metric) for p in r.points])
    if np.ptp(x) > 0:
        ends = np.array([x.min(), x.max()])
        ax.plot(
            ends, np.polyval(np.polyfit(x, y, 1), ends), color="#000000", linewidth=0.8, alpha=0.6, zorder=1
        )
    if r.breakpoint is not None:
        order = np.argsort(x, kind="stable")
        ax.plot(x[order], r.breakpoint.fitted[order], "--", color="#000000", linewidth=1.0, zorder=1)
        ax.axvline(
            r.breakpoint.at,
            color="#000000",
            linewidth=0.7,
            alpha=0.7 if r.has_breakpoint else 0.2,
            linestyle=":",
        )


def _whole(found: Sequence[Relation], accuracy: str) -> bool:
    """Whether whole t-intervals leave the marks of every panel apart."""
    panels = [
        [Mark(p.cell, p.variant, p.metrics[accuracy], p.metrics[r.metric]) for p in r.points] for r in found
    ]
    return all(intervals_readable(panel) for panel in panels)


def _label(figure: Figure, ax: Axes, r: Relation, accuracy: str, shades: Mapping[str, str]) -> None:
    """Each loss once, at its most accurate setting."""
    best: dict[str, Point] = {}
    for point in sorted(r.points, key=lambda p: p.mean(accuracy)):
        best[point.cell.loss] = point
    where = [(p.mean(accuracy), p.mean(r.metric)) for p in best.values()]
    marks = np.array([(p.mean(accuracy), p.mean(r.metric)) for p in r.points])
    names = [one_line(loss, 32) for loss in best]
    place_labels(figure, ax, names, np.array(where), marks, [shades[loss] for loss in best])
