"""What all figures share: fixed style, plain text (no mathtext), the same bytes for the same input."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dmlcore.config import FigureConfig
from dmlcore.report.names import wrapped

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


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's own defaults and ours, whatever the user's matplotlibrc says."""
    with matplotlib.style.context(["default", STYLE]):
        yield


def colours(names: Sequence[str]) -> dict[str, str]:
    """Name -> colour; more than 7 names take evenly spaced steps of viridis up to its yellow."""
    if len(names) <= len(COLOURS):
        return dict(zip(names, COLOURS, strict=False))
    steps = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, len(names)))
    return {name: matplotlib.colors.to_hex(step) for name, step in zip(names, steps, strict=True)}


def markers(names: Sequence[str]) -> dict[str, str]:
    """Name -> marker; beyond 10 names they repeat."""
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(names)}


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """A figure that knows no window system."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)  # keeps its renderer; without it each measuring of a text makes a new one
    return figure


def add_footer(figure: Figure, text: str) -> None:
    """Print `text` below the axes, each of its lines broken to the figure's width."""
    columns = int(figure.get_figwidth() * 72 / (0.56 * FOOTER_POINTS))
    lines = "\n".join(wrapped(line, columns) for line in text.splitlines())
    figure.supxlabel(lines, fontsize=FOOTER_POINTS, x=0.01, ha="left", color="#444444")


def settle_layout(figure: Figure) -> None:
    """Lay the figure out as it is now, for good."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        with house_style():  # a user's matplotlibrc may ask for another engine
            figure.set_layout_engine(None)


def png_bytes(figure: Figure, config: FigureConfig) -> bytes:
    """The figure as a PNG without the writer's version or a date; it keeps the layout that it has there."""
    buffer = io.BytesIO()
    figure.set_dpi(config.dots_per_inch)
    settle_layout(figure)  # a figure that has an engine is drawn twice
    figure.savefig(buffer, format="png", dpi=config.dots_per_inch, metadata={"Software": None})
    return buffer.getvalue()
