"""The trade-off plot: accuracy against inconsistency, one point a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from dmlcore.analysis.metric_labels import format_percent, metric_label, one_line
from dmlcore.analysis.protocol import protocol_text
from dmlcore.analysis.relations import pareto_front
from dmlcore.analysis.statistics import Estimate
from dmlcore.analysis.study import BASELINE, Cell, Study
from dmlcore.metrics.plot import COLOURS, add_footer, house_style, new_figure, settle_layout
from dmlcore.report.figures.labels import Legend, draw_legend, legend_of, place_labels
from dmlcore.report.figures.panels import add_title, draw_pareto_front, panel_grid, rows_of, write_reason

MAX_INTERVAL_SHARE = 0.25
"""Error bars are t-intervals unless their median half-width exceeds this share of the span of the points; then they
are standard errors. (With 3 seeds the 95 % interval reaches 4.3 standard errors to each side.)"""

PLAIN_FILLS = ("full", "none")
"""Marker fills that a scatter can draw; it knows no half-filled markers."""

MAX_ARROWS, MAX_NAMES = 60, 12
"""In a facet; more arrows are drawn as thin lines from baseline to variant."""


@dataclass(frozen=True)
class TradeoffPoint:
    """One configuration: inconsistency (x) and accuracy (y) over its finished seeds."""

    cell: Cell
    variant: str
    x: Estimate
    y: Estimate

    @property
    def xy(self) -> tuple[float, float]:
        return self.x.mean or 0.0, self.y.mean or 0.0


def tradeoff_points(study: Study, inconsistency: str | None = None) -> list[TradeoffPoint]:
    """Estimate both metrics of every (cell, variant) with a finished seed.

    Args:
        study: its config names the metrics and the level of the intervals.
        inconsistency: column of the horizontal axis; None: that of the config.
    """
    config, found = study.config, []
    metrics = (inconsistency or config.inconsistency, config.accuracy)
    for cell in study.cells:
        for variant in cell.variants:
            x, y = (cell.estimate(variant, m, config.confidence) for m in metrics)
            if x.mean is not None and y.mean is not None:
                found.append(TradeoffPoint(cell, variant, x, y))
    return found


def intervals_readable(points: Sequence[TradeoffPoint]) -> bool:
    """Judge whether t-intervals leave the points apart (MAX_INTERVAL_SHARE), in the median on both axes."""
    for axis in ("x", "y"):
        means = [getattr(point, axis).mean for point in points]
        halves = [half for point in points if (half := getattr(point, axis).half_width) is not None]
        if halves and np.median(halves) > MAX_INTERVAL_SHARE * np.ptp(means):
            return False
    return True


def error_bar(estimate: Estimate, t_intervals: bool) -> float | None:
    """Return half the length of an error bar: of the t-interval, or else one standard error."""
    return estimate.half_width if t_intervals else estimate.standard_error


def error_bar_text(t_intervals: bool, confidence: float) -> str:
    """Say what the error bars are."""
    interval = f"{format_percent(confidence)} t-interval"
    if t_intervals:
        return f"{interval} over seeds"
    return f"±1 standard error over seeds ({interval}s, in the tables, would cover the plot)"


def tradeoff_figure(study: Study) -> Figure:
    """Draw accuracy (up) against inconsistency (right): a facet a data set, arrows from baseline to variant."""
    points, config = tradeoff_points(study), study.config
    names = sorted(set(study.trials["dataset"]))
    facets = {name: [p for p in points if p.cell.dataset == name] for name in names}
    height = config.figure.height_inches * (1 + (rows_of(len(facets), 2) - 1) * 0.75)
    with house_style():
        figure = new_figure(config.figure.width_inches, height)
        axes = panel_grid(figure, len(facets), 2)
        legend, t_intervals = legend_of(study), intervals_readable(points)
        for ax, (name, mine) in zip(axes, facets.items(), strict=True):
            _draw_facet(ax, name, mine, legend, t_intervals, study)
        name_losses = len(legend.colours) > len(COLOURS)
        swept = list(dict.fromkeys(path for cell in study.cells for path in cell.axes))
        bars = error_bar_text(t_intervals, config.confidence)
        draw_legend(figure, legend, bars, ["the loss, once"] if name_losses else swept)
        axes_text = f"{metric_label(config.accuracy)} against {metric_label(config.inconsistency)}"
        add_title(figure, f"Does one threshold serve every class? {axes_text} on the test classes")
        add_footer(figure, protocol_text(study))
        if name_losses:
            settle_layout(figure)  # labels are placed in pixels, so the axes must have their final size
            for ax, mine in zip(axes, facets.values(), strict=True):
                _name_losses(figure, ax, mine, legend)
    return figure


def _draw_facet(
    ax: Axes, name: str, points: Sequence[TradeoffPoint], legend: Legend, t_intervals: bool, study: Study
) -> None:
    trials, config = study.trials.filter(dataset=name), study.config
    done = trials.filter(status="finished").height
    count = "" if done == trials.height else f" ({done} of {trials.height} trials finished)"
    ax.set_title(name + count, fontsize=10)
    ax.set_title("\N{NORTH WEST ARROW} better", loc="left", fontsize=9, color="#555555")
    x, y = (f"{metric_label(metric)}, {metric}" for metric in (config.inconsistency, config.accuracy))
    ax.set_xlabel(f"{x} (\N{LEFTWARDS ARROW} lower is better)")
    ax.set_ylabel(f"{y} (higher is better \N{RIGHTWARDS ARROW})")
    ax.locator_params(nbins=6)
    ax.ticklabel_format(useOffset=False, style="plain")
    ax.margins(0.12)
    if not points:
        write_reason(ax, "no finished trial")
        return
    xy = np.array([point.xy for point in points])
    front = xy[pareto_front(xy[:, 0], xy[:, 1])]
    draw_pareto_front(ax, front[np.lexsort((front[:, 1], front[:, 0]))], "post", 17)
    _draw_arrows(ax, points, legend)
    _draw_markers(ax, points, legend)
    _draw_error_bars(ax, points, legend, t_intervals)


def _draw_arrows(ax: Axes, points: Sequence[TradeoffPoint], legend: Legend) -> None:
    starts = {id(point.cell): point.xy for point in points if point.variant == BASELINE}
    moved = [point for point in points if point.variant != BASELINE and id(point.cell) in starts]
    ends = [(starts[id(point.cell)], point.xy) for point in moved]
    colours = [legend.colours[point.cell.loss] for point in moved]
    if len(ends) > MAX_ARROWS:  # one artist in place of so many annotations
        ax.add_collection(LineCollection(ends, colors=colours, linewidths=0.8, alpha=0.4, zorder=1))
        return
    style = {"arrowstyle": "-|>", "shrinkA": 5, "shrinkB": 5, "linewidth": 1.2, "alpha": 0.75}
    for (start, end), colour in zip(ends, colours, strict=True):
        ax.annotate("", xy=end, xytext=start, arrowprops={**style, "color": colour}, zorder=3)


def _draw_error_bars(ax: Axes, points: Sequence[TradeoffPoint], legend: Legend, t_intervals: bool) -> None:
    segments: list[Any] = []
    colours: list[str] = []
    for point in points:
        (x, y), right, up = point.xy, error_bar(point.x, t_intervals), error_bar(point.y, t_intervals)
        segments += [[(x - right, y), (x + right, y)]] if right else []
        segments += [[(x, y - up), (x, y + up)]] if up else []
        colours += [legend.colours[point.cell.loss]] * (len(segments) - len(colours))
    ax.add_collection(LineCollection(segments, colors=colours, linewidths=0.9, alpha=0.55, zorder=2))
    ax.autoscale_view()  # a collection does not widen the limits by itself


def _draw_markers(ax: Axes, points: Sequence[TradeoffPoint], legend: Legend) -> None:
    """Draw points of one look as one artist: of one shape and fill, and where the fill is a half, of one colour."""
    looks: dict[tuple[str, ...], list[TradeoffPoint]] = {}
    style: dict[str, Any]
    for point in points:
        marker, fill = legend.markers[point.cell.backbone], legend.fills[point.variant]
        colour = () if fill in PLAIN_FILLS else (point.cell.loss,)
        looks.setdefault((marker, point.variant, fill, *colour), []).append(point)
    for (marker, variant, fill, *_), alike in looks.items():
        x, y = zip(*(point.xy for point in alike), strict=True)
        colours = [legend.colours[point.cell.loss] for point in alike]
        if fill in PLAIN_FILLS:
            style = {"linewidths": 1.6, "facecolors": colours if fill == "full" else "none"}
            ax.scatter(x, y, 8**2, marker=marker, edgecolors=colours, zorder=4, **style)
        else:
            style = {"fillstyle": fill, "markersize": 8, "markeredgewidth": 1.6}
            ax.plot(x, y, linestyle="", marker=marker, color=colours[0], zorder=4, **style)
        if variant == BASELINE and len(legend.colours) <= len(COLOURS):
            _name_swept_values(ax, alike, colours)


def _name_swept_values(ax: Axes, points: Sequence[TradeoffPoint], colours: Sequence[str]) -> None:
    for point, colour in zip(points, colours, strict=True):
        if point.cell.axes:
            text = ", ".join(str(value) for value in point.cell.axes.values())
            ax.annotate(text, point.xy, (7, -9), textcoords="offset points", fontsize=6.5, color=colour)


def _name_losses(figure: Figure, ax: Axes, points: Sequence[TradeoffPoint], legend: Legend) -> None:
    """Name losses next to their most accurate points: so many losses have colours that are hard to tell apart.

    Of a facet's (backbone, loss) the most accurate MAX_NAMES.
    """
    by_accuracy = sorted(points, key=lambda point: point.xy[1])
    best = {(point.cell.backbone, point.cell.loss): point for point in by_accuracy}
    for key in sorted(best, key=lambda key: best[key].xy[1], reverse=True)[MAX_NAMES:]:
        del best[key]
    if best:
        losses = [loss for _, loss in best]
        anchors, taken = (np.array([point.xy for point in group]) for group in (best.values(), points))
        names = [one_line(loss, 32) for loss in losses]
        place_labels(figure, ax, names, anchors, taken, [legend.colours[loss] for loss in losses])
