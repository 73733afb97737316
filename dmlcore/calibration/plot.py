"""The plot of a calibration: how the error rates of one threshold spread over the classes, and how they drifted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dmlcore.calibration import Calibration, Rate, SplitRates
from dmlcore.metrics.plot import COLOURS, add_footer, house_style, new_figure, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"far": "False accepts (FAR)", "frr": "False rejects (FRR)"}
READING = (
    "Line: the classes, sorted by their rate; a flat line = one threshold serves all classes alike. Bands: pooled "
    "rate of the split with its 95 % interval, so a gap between two is the drift."
)


def calibration_png(found: Calibration, limits: Mapping[str, float]) -> bytes:
    """Draw the plot as PNG, one panel each for FAR and FRR.

    Args:
        found: the result of `dmlcore.calibration.calibrate`.
        limits: `far`, `frr` -> the largest rate that a class may have.
    """
    with house_style():
        return png_bytes(_figure(found, limits))


def _figure(found: Calibration, limits: Mapping[str, float]) -> Figure:
    figure = new_figure(9.0, 4.4)
    for kind, ax in zip(("far", "frr"), figure.subplots(1, 2), strict=True):
        ax.set_title(TITLES[kind], fontsize=10)
        _classes(ax, found.final, kind, list(found.splits)[-1])
        for (name, rates), colour in zip(found.splits.items(), (COLOURS[1], COLOURS[0]), strict=False):
            _band(ax, getattr(rates, kind), name, colour)
        if kind == found.target.kind:
            _level(ax, found.target.rate, "target", COLOURS[6], ":")
        if kind in limits:
            _level(ax, limits[kind], "limit for a class", COLOURS[3], "--")
        ax.legend(fontsize=7.5, frameon=False, loc="upper left")
    target = f"{found.target.kind.upper()} of {100 * found.target.rate:g} % on validation"
    figure.suptitle(f"One threshold, distance {found.threshold.distance:.4f}, set for {target}", fontsize=11)
    add_footer(figure, READING)
    return figure


def _classes(ax: Axes, split: SplitRates, kind: str, name: str) -> None:
    rates = split.class_far if kind == "far" else split.class_frr
    known = np.sort(rates[np.isfinite(rates)])
    ax.plot((np.arange(len(known)) + 0.5) / len(known), known, color="#333333", linewidth=1.6)
    ax.set_xlim(0.0, 1.0)
    ax.set_ylim(0.0, max(1.05 * float(known[-1]), 1.0e-6))
    ax.set_xlabel(f"share of the {len(known)} {name} classes")
    ax.set_ylabel("rate of the class")


def _band(ax: Axes, rate: Rate, name: str, colour: str) -> None:
    ax.axhspan(rate.low, rate.high, color=colour, alpha=0.2, linewidth=0)
    ax.axhline(rate.value, color=colour, linewidth=1.2, label=f"{name}: {100 * rate.value:.3g} %")


def _level(ax: Axes, rate: float, name: str, colour: str, style: str) -> None:
    ax.axhline(rate, color=colour, linestyle=style, label=f"{name}: {100 * rate:g} %")
