"""What the figures of a study share: a grid of panels, titles, the Pareto front."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dmlcore.analysis.metric_labels import variant_label
from dmlcore.analysis.study import BASELINE

Floats = NDArray[np.float64]
FRONT_STYLE: dict[str, Any] = {"color": "#999999", "linewidth": 5, "alpha": 0.35}


def panel_grid(figure: Figure, count: int, columns: int, **options: Any) -> list[Axes]:
    """Add `count` axes in rows of at most `columns`; the rest of the last row stays empty."""
    columns = min(columns, count)
    axes = figure.subplots(rows_of(count, columns), columns, squeeze=False, **options).ravel()
    for ax in axes[count:]:
        ax.set_axis_off()
    return list(axes[:count])


def rows_of(count: int, columns: int) -> int:
    return -(-count // min(columns, count))


def add_title(figure: Figure, text: str) -> None:
    figure.suptitle(text, fontsize=11, x=0.01, ha="left")


def variant_title(variant: str) -> str:
    return "baseline (no regulariser)" if variant == BASELINE else variant_label(variant)


def write_reason(ax: Axes, reason: str) -> None:
    """Say in an empty panel why it is empty."""
    ax.text(0.5, 0.5, reason, ha="center", va="center", transform=ax.transAxes, color="#555555")


def draw_pareto_front(ax: Axes, front: Floats, where: str, size: float) -> None:
    """Draw a grey staircase behind the points of the front.

    Args:
        front: [n, 2], rising in x.
        where: the side on which a step changes its height, as `Axes.step` has it.
        size: of the discs behind the points, larger than their markers.
    """
    ax.step(front[:, 0], front[:, 1], where=where, zorder=1, **FRONT_STYLE)  # type: ignore[arg-type]
    disc = {"color": FRONT_STYLE["color"], "alpha": FRONT_STYLE["alpha"], "markeredgewidth": 0}
    ax.plot(front[:, 0], front[:, 1], "o", markersize=size, zorder=1, **disc)
