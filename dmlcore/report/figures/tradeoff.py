"""The trade-off plot: accuracy against inconsistency, one mark a configuration."""

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
from dmlcore.analysis.statistics import Estimate, t_interval
from dmlcore.analysis.study import BASELINE, Cell, Study
from dmlcore.metrics.plot import COLOURS, add_footer, house_style, new_figure, settle_layout
from dmlcore.report.figures.labels import Legend, draw_legend, legend_of, place_labels

READABLE = 0.25
"""Bars are t-intervals unless their median half-width exceeds this share of the span of the marks; then they are
standard errors. (With 3 seeds the 95 % interval reaches 4.3 standard errors to each side.)"""


WHOLE = ("full", "none")


MOST_ARROWS, MOST_NAMES = 60, 12
"""In a facet; more arrows are drawn as thin lines from `baseline` to on."""


@dataclass(frozen=True)
class Mark:
    """One configuration of the plot."""

    cell: Cell
    variant: str
    x: Estimate
    y: Estimate

    @property
    def xy(self) -> tuple[float, float]:
        return self.x.mean or 0.0, self.y.mean or 0.0


def marks(study: Study, inconsistency: str | None = None) -> list[Mark]:
    """Every (cell, variant) with a finished seed: mean and t-interval of both axes over its seeds.

    `inconsistency` is the column of the horizontal axis; None: that of the study's config.
    """
    config, found = study.config, []
    across = inconsistency or config.inconsistency
    for cell in study.cells:
        for variant in cell.variants:
            x, y = (
                t_interval(list(cell.values(variant, metric).values()), config.confidence)
                for metric in (across, config.accuracy)
            )
            if x.mean is not None and y.mean is not None:
                found.append(Mark(cell, variant, x, y))
    return found


def tradeoff_figure(study: Study) -> Figure:
    """Accuracy (up) against inconsistency (right), one facet a data set, with arrows from `baseline` to each other variant."""
    names, found = sorted(set(study.trials["dataset"])), marks(study)
    width, height = study.config.figure.width_inches, study.config.figure.height_inches
    columns = min(len(names), 2)
    rows = -(-len(names) // columns)
    with house_style():
        figure = new_figure(width, height * (1 + (rows - 1) * 0.75))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        legend, whole = legend_of(study), intervals_readable(found)
        for ax, name in zip(axes, names, strict=False):
            _facet(ax, name, [m for m in found if m.cell.dataset == name], legend, whole, study)
        for ax in axes[len(names) :]:
            ax.set_axis_off()
        swept = list(dict.fromkeys(path for cell in study.cells for path in cell.axes))
        beside = swept if len(legend.colours) <= len(COLOURS) else ["the loss, once"]
        draw_legend(figure, legend, bar_text(whole, study.config.confidence), beside)
        figure.suptitle(
            f"Does one threshold serve every class? {metric_label(study.config.accuracy)} against "
            f"{metric_label(study.config.inconsistency)} on the test classes",
            fontsize=11,
            x=0.01,
            ha="left",
        )
        add_footer(figure, protocol_text(study))
        if len(legend.colours) > len(COLOURS):
            settle_layout(figure)
            for ax, name in zip(axes, names, strict=False):
                _name_losses(figure, ax, [m for m in found if m.cell.dataset == name], legend)
    return figure


def _name_losses(figure: Figure, ax: Axes, found: Sequence[Mark], legend: Legend) -> None:
    """So many losses that their colours are hard to tell apart are named beside their most accurate mark.

    Of a facet's (backbone, loss) the most accurate MOST_NAMES.
    """
    best: dict[tuple[str, str], Mark] = {}
    for mark in sorted(found, key=lambda mark: mark.xy[1]):
        best[mark.cell.backbone, mark.cell.loss] = mark
    for place in sorted(best, key=lambda place: best[place].xy[1], reverse=True)[MOST_NAMES:]:
        del best[place]
    if best:
        names = [one_line(loss, 32) for _, loss in best]
        where, marks_at = (np.array([mark.xy for mark in group]) for group in (best.values(), found))
        place_labels(figure, ax, names, where, marks_at, [legend.colours[loss] for _, loss in best])


def intervals_readable(found: Sequence[Mark]) -> bool:
    """Whether t-intervals, drawn, would leave the marks apart (see READABLE), in the median over marks on both axes."""
    for axis in ("x", "y"):
        means = [getattr(mark, axis).mean for mark in found]
        halves = [h for mark in found if (h := getattr(mark, axis).half_width) is not None]
        if halves and np.median(halves) > READABLE * np.ptp(means):
            return False
    return True


def bar_text(whole: bool, confidence: float) -> str:
    """What the bars are."""
    if whole:
        return f"{format_percent(confidence)} t-interval over seeds"
    return f"±1 standard error over seeds ({format_percent(confidence)} t-intervals, in the tables, would cover the plot)"


def _facet(ax: Axes, name: str, found: Sequence[Mark], legend: Legend, whole: bool, study: Study) -> None:
    ax.set_title(_heading(study, name), fontsize=10)
    ax.set_title("\N{NORTH WEST ARROW} better", loc="left", fontsize=9, color="#555555")
    ax.set_xlabel(
        f"{metric_label(study.config.inconsistency)}, {study.config.inconsistency} (\N{LEFTWARDS ARROW} lower is better)"
    )
    ax.set_ylabel(
        f"{metric_label(study.config.accuracy)}, {study.config.accuracy} (higher is better \N{RIGHTWARDS ARROW})"
    )
    ax.locator_params(nbins=6)
    ax.ticklabel_format(useOffset=False, style="plain")
    ax.margins(0.12)
    if not found:
        ax.text(0.5, 0.5, "no finished trial", ha="center", transform=ax.transAxes)
        return
    _draw_front(ax, found)
    _draw_arrows(ax, found, legend)
    looks: dict[tuple[str, ...], list[Mark]] = {}
    for mark in found:
        half = () if legend.fills[mark.variant] in WHOLE else (mark.cell.loss,)
        looks.setdefault((mark.cell.backbone, mark.variant, *half), []).append(mark)
    for alike in looks.values():
        _draw_marks(ax, alike, legend)
    _draw_bars(ax, found, legend, whole)


def _heading(study: Study, name: str) -> str:
    trials = study.trials.filter(dataset=name)
    done = trials.filter(status="finished").height
    return name if done == trials.height else f"{name} ({done} of {trials.height} trials finished)"


def _draw_front(ax: Axes, found: Sequence[Mark]) -> None:
    points = np.array([mark.xy for mark in found])
    front = points[pareto_front(points[:, 0], points[:, 1])]
    front = front[np.lexsort((front[:, 1], front[:, 0]))]
    ax.step(front[:, 0], front[:, 1], where="post", color="#999999", linewidth=5, alpha=0.35, zorder=1)
    ax.plot(
        front[:, 0], front[:, 1], "o", color="#999999", markersize=17, alpha=0.35, zorder=1, markeredgewidth=0
    )


def _draw_arrows(ax: Axes, found: Sequence[Mark], legend: Legend) -> None:
    starts = {id(mark.cell): mark for mark in found if mark.variant == BASELINE}
    pairs = [
        (starts[id(mark.cell)], mark)
        for mark in found
        if mark.variant != BASELINE and id(mark.cell) in starts
    ]
    shades = [legend.colours[mark.cell.loss] for _, mark in pairs]
    if len(pairs) > MOST_ARROWS:
        lines = [[start.xy, mark.xy] for start, mark in pairs]
        ax.add_collection(LineCollection(lines, colors=shades, linewidths=0.8, alpha=0.4, zorder=1))
        return
    style = {"arrowstyle": "-|>", "shrinkA": 5, "shrinkB": 5, "linewidth": 1.2, "alpha": 0.75}
    for (start, mark), colour in zip(pairs, shades, strict=True):
        ax.annotate("", xy=mark.xy, xytext=start.xy, arrowprops={**style, "color": colour}, zorder=3)


def _draw_bars(ax: Axes, found: Sequence[Mark], legend: Legend, whole: bool) -> None:
    segments: list[Any] = []
    shades: list[str] = []
    for mark in found:
        (x, y), right, up = mark.xy, bar(mark.x, whole), bar(mark.y, whole)
        segments += [[(x - right, y), (x + right, y)]] if right else []
        segments += [[(x, y - up), (x, y + up)]] if up else []
        shades += [legend.colours[mark.cell.loss]] * (len(segments) - len(shades))
    ax.add_collection(LineCollection(segments, colors=shades, linewidths=0.9, alpha=0.55, zorder=2))
    ax.autoscale_view()


def _draw_marks(ax: Axes, alike: Sequence[Mark], legend: Legend) -> None:
    """Marks of one backbone and variant, and where its fill is a half, of one loss."""
    first, (x, y) = alike[0], zip(*(mark.xy for mark in alike), strict=True)
    fill, shades = legend.fills[first.variant], [legend.colours[mark.cell.loss] for mark in alike]
    shape: dict[str, Any] = {"marker": legend.markers[first.cell.backbone], "zorder": 4}
    if fill in WHOLE:
        faces = shades if fill == "full" else "none"
        ax.scatter(x, y, s=8**2, linewidths=1.6, facecolors=faces, edgecolors=shades, **shape)
    else:  # a scatter knows no half
        style: dict[str, Any] = {
            "color": shades[0],
            "fillstyle": fill,
            "markersize": 8,
            "markeredgewidth": 1.6,
        }
        ax.plot(x, y, linestyle="", **style, **shape)
    if first.variant == BASELINE and len(legend.colours) <= len(COLOURS):
        for mark, colour in zip(alike, shades, strict=True):
            _name_axes(ax, mark, colour)


def _name_axes(ax: Axes, mark: Mark, colour: str) -> None:
    if mark.cell.axes:
        text = ", ".join(str(value) for value in mark.cell.axes.values())
        ax.annotate(text, mark.xy, (7, -9), textcoords="offset points", fontsize=6.5, color=colour)


def bar(estimate: Estimate, whole: bool) -> float | None:
    """Half the length of a mark's bar: of the t-interval if `whole`, else one standard error."""
    return estimate.half_width if whole else estimate.standard_error
