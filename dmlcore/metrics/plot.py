"""The style of all figures and the utility curve: plain text (no mathtext), the same bytes for the same input."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from dmlcore.extras import require

require("plot", __name__)

import matplotlib  # noqa: E402
import matplotlib.style  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

if TYPE_CHECKING:
    from dmlcore.metrics.evaluation import Evaluation

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colour-blind safe palette, without its yellow, which is unreadable on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
STYLE = {
    "text.parse_math": False,  # a `$` in a name is a dollar
    "font.size": 9.0,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
FOOTER_POINTS = 7.0
UTILITY_LINES = (
    "Line: utility (harmonic mean of sensitivity and specificity) at one threshold, mean over test classes. "
    "Band: 10 % to 90 % quantile over classes, so a narrow band = one threshold serves all classes alike. "
    "Grey: calibration range."
)


@contextmanager
def house_style() -> Iterator[None]:
    """Apply matplotlib's defaults and ours, whatever the user's matplotlibrc says."""
    with matplotlib.style.context(["default", STYLE]):
        yield


def colours(names: Sequence[str]) -> dict[str, str]:
    """Map names to colours; more than 7 names take evenly spaced steps of viridis up to its yellow."""
    if len(names) <= len(COLOURS):
        return dict(zip(names, COLOURS, strict=False))
    steps = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, len(names)))
    return {name: matplotlib.colors.to_hex(step) for name, step in zip(names, steps, strict=True)}


def markers(names: Sequence[str]) -> dict[str, str]:
    """Map names to markers; beyond 10 names they repeat."""
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(names)}


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Make a figure that needs no window system."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)  # keeps its renderer; without it each measuring of a text makes a new one
    return figure


def add_footer(figure: Figure, text: str) -> None:
    """Print `text` below the axes, each of its lines broken to the figure's width."""
    columns = int(figure.get_figwidth() * 72 / (0.56 * FOOTER_POINTS))
    lines = "\n".join(
        textwrap.fill(line, max(columns, 8), break_on_hyphens=False) for line in text.splitlines()
    )
    figure.supxlabel(lines, fontsize=FOOTER_POINTS, x=0.01, ha="left", color="#444444")


def settle_layout(figure: Figure) -> None:
    """Compute the layout of the figure and fix it."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        with house_style():  # a user's matplotlibrc may ask for another engine
            figure.set_layout_engine(None)


def png_bytes(figure: Figure, dots_per_inch: int = 130) -> bytes:
    """Draw the figure as a PNG without the writer's version or a date; the figure keeps that layout."""
    buffer = io.BytesIO()
    figure.set_dpi(dots_per_inch)
    settle_layout(figure)  # a figure that has an engine is drawn twice
    figure.savefig(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return buffer.getvalue()


def draw_utility(
    ax: Axes,
    thresholds: ArrayLike,
    mean: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    span: tuple[float, float],
    colour: str = COLOURS[0],
) -> None:
    """Draw the mean over classes, the band of the class quantiles and the calibration range.

    Args:
        ax: the axes to draw on.
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
    """Draw one utility curve as a figure without a legend: its caller says what the band is.

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


def utility_png(evaluation: Evaluation) -> bytes:
    """Draw utility against threshold of one set of embeddings as PNG.

    Args:
        evaluation: of `dmlcore.metrics.evaluate`; its `utility [C, T]` over its `thresholds [T]`.
    """
    low, high = np.quantile(evaluation.utility, (0.1, 0.9), axis=0)
    thresholds, mean = evaluation.thresholds, evaluation.utility.mean(axis=0)
    title = f"OPIS {evaluation.metrics['opis']:.5f} over {len(evaluation.utility)} classes"
    with house_style():
        span = (float(thresholds[0]), float(thresholds[-1]))
        figure = curve_figure(thresholds, mean, low, high, span=span, title=title)
        figure.set_layout_engine("constrained")  # the footer needs room
        add_footer(figure, UTILITY_LINES)
        return png_bytes(figure)
