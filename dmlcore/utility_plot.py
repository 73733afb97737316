"""Utility against threshold: drawn alike for a run in MLflow, for embeddings of one's own and in studies."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

COLOUR = "#0072B2"


def draw_utility(
    ax: Axes,
    thresholds: ArrayLike,
    mean: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    span: tuple[float, float],
    colour: str = COLOUR,
) -> None:
    """Draw the mean over classes, the band of the class quantiles and the calibration range.

    Args:
        ax: where to.
        thresholds, mean, low, high: [T].
        span: the two ends of the calibration range.
        colour: of line and band.
    """
    ax.set_ylim(0.0, 1.02)
    ax.axvspan(*span, color="#000000", alpha=0.07, linewidth=0)
    ax.fill_between(thresholds, low, high, color=colour, alpha=0.3, linewidth=0)
    ax.plot(thresholds, mean, color=colour, linewidth=1.6)
    ax.margins(x=0.08)


def curve_figure(
    thresholds: ArrayLike,
    mean: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    span: tuple[float, float],
    title: str,
) -> Figure:
    """One such curve as a figure of its own, without a legend: its caller says what the band is.

    Args:
        thresholds, mean, low, high: [T].
        span: the two ends of the calibration range.
        title: printed above.
    """
    # margins by hand: finding them takes as long as drawing, and each trial's run has such a figure
    figure = Figure(figsize=(6.0, 4.0))
    ax = figure.subplots(gridspec_kw={"left": 0.11, "right": 0.97, "bottom": 0.13, "top": 0.87})
    draw_utility(ax, thresholds, mean, low, high, span=span)
    ax.set_xlabel("distance threshold (L2)")
    ax.set_ylabel("utility")
    ax.set_title(title, fontsize=10)
    return figure
