"""The picture of part `margins`: metrics over the grid of the positive and the negative margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dmlcore.analysis.margins import SELECTION_RULE
from dmlcore.analysis.metric_labels import format_metric, metric_label, one_line
from dmlcore.analysis.protocol import protocol_text
from dmlcore.analysis.study import BASELINE, Study
from dmlcore.analysis.tuned_settings import FamilyKey, Setting, best_setting, selection_seeds, tuned_settings
from dmlcore.metrics.plot import add_footer, house_style, new_figure

POSITIVE, NEGATIVE = "tcm.positive_margin", "tcm.negative_margin"
PANELS = ("validation/map_at_r", "validation/opis_corrected", "test/map_at_r", "test/opis_corrected")
PANEL_INCHES = 3.1
NOTE = (
    "Number: mean over seeds; bright = better in every panel. Frame: the setting that validation MAP@R chose. "
    "Base: the same loss without regulariser, at its own chosen setting. Where other settings were varied too, the "
    "cell shows the one with the highest validation MAP@R."
)


def heat_map_figure(study: Study) -> Figure:
    """A row a (data set, backbone, loss) whose TCM has two margins; a column a metric."""
    found = tuned_settings(study)
    grids = {place: tried for place, tried in found.items() if is_grid(tried)}
    with house_style():
        figure = new_figure(PANEL_INCHES * len(PANELS) + 0.5, PANEL_INCHES * max(1, len(grids)) + 1.3)
        axes = figure.subplots(max(1, len(grids)), len(PANELS), squeeze=False)
        for row, (place, tried) in zip(axes, grids.items(), strict=False):
            base = best_setting(found.get((*place[:3], BASELINE), []))
            for ax, metric in zip(row, PANELS, strict=True):
                _panel(ax, metric, place, tried, base)
        if not grids:
            for ax in axes[0]:
                ax.set_axis_off()
            axes[0, 0].text(0.0, 0.5, "no grid of two margins in the plan", transform=axes[0, 0].transAxes)
        figure.suptitle("TCM by its two margins", fontsize=11, x=0.01, ha="left")
        add_footer(figure, f"{NOTE}\n{SELECTION_RULE}\n{protocol_text(study)}")
    return figure


def grid_values(
    tried: Sequence[Setting], metric: str
) -> tuple[list[float], list[float], np.ndarray[Any, Any]]:
    """The margins and the mean of `metric` at each pair.

    Returns:
        positive margins [p] and negative margins [n], rising; values [n, p], NaN where there is none.
    """
    ups, downs = (
        sorted({s.parameters[name] for s in tried if name in s.parameters}) for name in (POSITIVE, NEGATIVE)
    )
    values = np.full((len(downs), len(ups)), np.nan)
    for (up, down), setting in _best_by_margins(tried).items():
        mean = setting.mean(metric)
        values[downs.index(down), ups.index(up)] = np.nan if mean is None else mean
    return ups, downs, values


def is_grid(tried: Sequence[Setting]) -> bool:
    return len(tried) > 1 and all(any(name in s.parameters for s in tried) for name in (POSITIVE, NEGATIVE))


def _best_by_margins(tried: Sequence[Setting]) -> Mapping[tuple[float, float], Setting]:
    groups: dict[tuple[float, float], list[Setting]] = {}
    for setting in tried:
        if {POSITIVE, NEGATIVE} <= setting.parameters.keys():
            groups.setdefault((setting.parameters[POSITIVE], setting.parameters[NEGATIVE]), []).append(
                setting
            )
    seeds = selection_seeds(tried)
    return {pair: best_setting(group, seeds) or group[0] for pair, group in groups.items()}


def _panel(ax: Axes, metric: str, place: FamilyKey, tried: Sequence[Setting], base: Setting | None) -> None:
    ups, downs, values = grid_values(tried, metric)
    colours = colormaps["cividis_r" if "opis" in metric else "cividis"]
    ax.grid(False)
    image = ax.imshow(values, origin="lower", cmap=colours, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        shade = colours(image.norm(value))[:3] if np.isfinite(value) else (1.0, 1.0, 1.0)
        ink = "black" if np.dot(shade, (0.2126, 0.7152, 0.0722)) > 0.45 else "white"
        ax.text(column, row, _digits(value, metric), ha="center", va="center", fontsize=7, color=ink)
    best = best_setting(tried)
    if best is not None and {POSITIVE, NEGATIVE} <= best.parameters.keys():
        at = (ups.index(best.parameters[POSITIVE]) - 0.5, downs.index(best.parameters[NEGATIVE]) - 0.5)
        ax.add_patch(
            Rectangle(at, 1, 1, fill=False, edgecolor="#D55E00", linewidth=2.5, clip_on=False, zorder=5)
        )
    ax.set_xticks(range(len(ups)), [f"{value:g}" for value in ups])
    ax.set_yticks(range(len(downs)), [f"{value:g}" for value in downs])
    ax.set_xlabel("positive margin", fontsize=8)
    loss = "TCM alone" if place[2] == "none" else place[2]
    row = f"{one_line(' '.join((*place[:2], loss)), 40)}\nnegative margin"
    ax.set_ylabel(row if metric == PANELS[0] else "", fontsize=8)
    against = "" if base is None else f"\nbase: {_digits(base.mean(metric), metric)}"
    ax.set_title(f"{metric.split('/')[0]} {metric_label(metric)}{against}", fontsize=9)


def _digits(value: float | None, metric: str) -> str:
    """As few digits as tell neighbours apart: a cell has room for five characters."""
    if value is None or not np.isfinite(value):
        return "-"
    return format_metric(value, metric) if "opis" in metric else f"{value:.3f}"
