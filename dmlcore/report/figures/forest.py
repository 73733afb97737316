"""The forest plot: a row a comparison with its interval and weight, the pooled effect as a diamond."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dmlcore.analysis.meta_analysis import MIN_POOLED, Forest
from dmlcore.analysis.metric_labels import format_percent, metric_label, one_line, wrap_text
from dmlcore.analysis.random_effects import Pooled
from dmlcore.metrics.plot import COLOURS, add_footer, house_style, new_figure
from dmlcore.report.figures.panels import add_title, variant_title

MAX_ROWS = 60
"""Comparisons of a variant that are drawn; the tables have all."""
ROW_INCHES, PANEL_INCHES = 0.22, 5.4
NOTE = (
    "Square: paired difference, variant - baseline, its area the weight; line: its interval over seeds. OPIS of "
    "several data sets: per cent of the baseline, pooled as logarithms. Filled diamond: all, pooled by random effects "
    f"(Paule-Mandel, Hartung-Knapp), hollow: those of a data set with at least {MIN_POOLED}. "
    "What is decided is said by the verdict."
)


def forest_figure(found: Sequence[Forest], confidence: float) -> Figure:
    """Draw a column a metric and a panel a variant.

    Args:
        found: from `forests`, at least one.
        confidence: of the intervals.
    """
    metrics = list(dict.fromkeys(forest.metric for forest in found))
    variants = list(dict.fromkeys(forest.variant for forest in found))
    heights = {v: max(_lines(forest) for forest in found if forest.variant == v) for v in variants}
    with house_style():
        height = sum(ROW_INCHES * lines + 0.9 for lines in heights.values()) + 1.1
        figure = new_figure(PANEL_INCHES * len(metrics), height)
        grid = figure.subplots(
            len(variants), len(metrics), squeeze=False, height_ratios=[heights[v] + 3 for v in variants]
        )
        for row, variant in zip(grid, variants, strict=True):
            for ax, metric in zip(row, metrics, strict=True):
                here = [f for f in found if (f.variant, f.metric) == (variant, metric)]
                _draw_panel(ax, here[0] if here else None, named=metric == metrics[0])
        add_title(figure, "Paired differences of all comparisons")
        add_footer(figure, f"{NOTE} Intervals: {format_percent(confidence)}.")
    return figure


def _lines(forest: Forest) -> int:
    return min(len(forest.rows), MAX_ROWS) + len(_subtotals(forest)) + (forest.pooled is not None)


def _subtotals(forest: Forest) -> dict[str, Pooled]:
    """Return those of data sets with enough comparisons: the interval of two is wider than the picture."""
    counts = Counter(row["dataset"] for row in forest.rows)
    return {name: pooled for name, pooled in forest.datasets.items() if counts[name] >= MIN_POOLED}


def _draw_panel(ax: Axes, forest: Forest | None, *, named: bool) -> None:
    if forest is None:
        ax.set_axis_off()
        return
    weights = forest.pooled.weights if forest.pooled else (1.0 / len(forest.rows),) * len(forest.rows)
    labels, place, last = list[str](), 0, ""
    for row, effect, weight in list(zip(forest.rows, forest.effects, weights, strict=True))[:MAX_ROWS]:
        if last and row["dataset"] != last:
            place = _draw_subtotal(ax, forest, last, place, labels)
        last = row["dataset"]
        mean, low, high = map(forest.shown, effect[:3])
        ax.plot((low, high), (-place, -place), color=COLOURS[0], linewidth=1.0)
        ax.scatter(mean, -place, s=8 + 60 * weight, marker="s", color=COLOURS[0], zorder=3)
        labels.append(one_line(f"{row['dataset']} {row['backbone']} {row['loss']}", 52))
        if forest.pooled:
            share, right = f"{100 * weight:.0f} %", ax.get_yaxis_transform()
            ax.text(1.01, -place, share, transform=right, va="center", fontsize=6.5)
        place += 1
    place = _draw_subtotal(ax, forest, last, place, labels)
    if forest.pooled is not None:
        _diamond(ax, forest, forest.pooled, place, filled=True)
        labels.append("all, pooled")
    ax.axvline(0.0, color="#555555", linewidth=0.8, linestyle=":")
    ax.set_yticks([-i for i in range(len(labels))], labels if named else [""] * len(labels), fontsize=7)
    ax.set_ylim(-len(labels) + 0.4, 0.6)
    ax.tick_params(axis="x", labelsize=7)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(_summary(forest), fontsize=6.5)
    label = metric_label(forest.metric) + (", change in %" if forest.log_ratio else "")
    ax.set_title(wrap_text(f"{label}: {one_line(variant_title(forest.variant), 120)}", 72), fontsize=8)


def _draw_subtotal(ax: Axes, forest: Forest, dataset: str, place: int, labels: list[str]) -> int:
    """Draw the diamond of a data set below its rows, if it has one, and return the next place."""
    if (pooled := _subtotals(forest).get(dataset)) is None:
        return place
    _diamond(ax, forest, pooled, place, filled=False)
    labels.append(one_line(f"{dataset}, pooled", 44))
    return place + 1


def _diamond(ax: Axes, forest: Forest, pooled: Pooled, place: int, *, filled: bool) -> None:
    low, mean, high = map(forest.shown, (pooled.low, pooled.mean, pooled.high))
    corners = ((low, 0.0), (mean, 0.35), (high, 0.0), (mean, -0.35))
    x, y = [corner[0] for corner in corners], [corner[1] - place for corner in corners]
    ax.fill(x, y, facecolor=COLOURS[1] if filled else "white", edgecolor=COLOURS[1], zorder=3)


def _summary(forest: Forest) -> str:
    """Write below a panel what its diamond says in numbers."""
    text = f"{forest.heterogeneity()}; signed-rank test: {forest.signed_rank}"
    if (pooled := forest.pooled) is not None:
        ends = map(forest.text, (pooled.mean, pooled.low, pooled.high))
        text = "pooled {} ({} to {}); ".format(*ends) + text
    return wrap_text(text, 86)
