"""The figure of part `margins`: metrics over the grid of the positive and the negative margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from dmlcore.analysis.tuned_settings import Setting, best_setting, selection_seeds, tuned_settings
from dmlcore.metrics.plot import add_footer, house_style, new_figure
from dmlcore.report.figures.panels import add_title

POSITIVE, NEGATIVE = "tcm.positive_margin", "tcm.negative_margin"
PANELS = ("validation/map_at_r", "validation/opis_corrected", "test/map_at_r", "test/opis_corrected")
PANEL_INCHES = 3.1
NOTE = (
    "Number: mean over seeds; bright = better in every panel. Frame: the setting that validation MAP@R chose. "
    "Baseline: the same loss without the regulariser, at its chosen setting. Where other settings were varied too, "
    "the cell shows the one with the highest validation MAP@R."
)


@dataclass(frozen=True)
class MarginGrid:
    """The settings of TCM that a (data set, backbone, loss) tried over both margins."""

    names: tuple[str, ...]
    """Data set, backbone, loss."""
    settings: Sequence[Setting]
    chosen: Setting | None
    baseline: Setting | None
    """The chosen setting of the loss alone."""

    def chosen_cell(self, positive: Sequence[float], negative: Sequence[float]) -> tuple[int, int] | None:
        """Locate the chosen setting: its column and row among these margins."""
        if self.chosen is None or not {POSITIVE, NEGATIVE} <= self.chosen.parameters.keys():
            return None
        at = self.chosen.parameters
        if at[POSITIVE] not in positive or at[NEGATIVE] not in negative:
            return None  # margins from scores have no place on the axes
        return positive.index(at[POSITIVE]), negative.index(at[NEGATIVE])


def margin_grids(study: Study) -> list[MarginGrid]:
    """Find every place of the study whose settings vary both margins."""
    found = tuned_settings(study)
    return [
        MarginGrid(
            place[:3],
            _numeric(tried),
            best_setting(tried),
            best_setting(found.get((*place[:3], BASELINE), [])),
        )
        for place, tried in found.items()
        if len(_numeric(tried)) > 1
        and all(any(name in s.parameters for s in _numeric(tried)) for name in (POSITIVE, NEGATIVE))
    ]


def _numeric(tried: Sequence[Setting]) -> list[Setting]:
    """Leave out the settings whose margins come from scores: another number for each seed."""
    return [s for s in tried if not any(isinstance(s.parameters.get(n), str) for n in (POSITIVE, NEGATIVE))]


def grid_values(
    tried: Sequence[Setting], metric: str
) -> tuple[list[float], list[float], np.ndarray[Any, Any]]:
    """Average `metric` over the seeds at each pair of margins.

    Where other parameters vary too, a pair shows the setting that validation chooses for it.

    Returns:
        positive margins [p] and negative margins [n], rising; values [n, p], NaN where there is none.
    """
    pairs: dict[tuple[float, float], list[Setting]] = {}
    for setting in tried:
        if {POSITIVE, NEGATIVE} <= setting.parameters.keys():
            pairs.setdefault((setting.parameters[POSITIVE], setting.parameters[NEGATIVE]), []).append(setting)
    positive, negative = (
        sorted({s.parameters[name] for s in tried if name in s.parameters}) for name in (POSITIVE, NEGATIVE)
    )
    values = np.full((len(negative), len(positive)), np.nan)
    seeds = selection_seeds(tried)
    for (up, down), group in pairs.items():
        mean = (best_setting(group, seeds) or group[0]).mean(metric)
        values[negative.index(down), positive.index(up)] = np.nan if mean is None else mean
    return positive, negative, values


def heat_map_figure(study: Study) -> Figure:
    """Draw a row a (data set, backbone, loss) whose TCM has two margins; a column a metric."""
    grids = margin_grids(study)
    with house_style():
        figure = new_figure(PANEL_INCHES * len(PANELS) + 0.5, PANEL_INCHES * max(1, len(grids)) + 1.3)
        axes = figure.subplots(max(1, len(grids)), len(PANELS), squeeze=False)
        for row, grid in zip(axes, grids, strict=False):
            for ax, metric in zip(row, PANELS, strict=True):
                _draw_panel(ax, metric, grid)
        if not grids:
            for ax in axes[0]:
                ax.set_axis_off()
            axes[0, 0].text(0.0, 0.5, "no grid of two margins in the plan", transform=axes[0, 0].transAxes)
        add_title(figure, "TCM by its two margins")
        add_footer(figure, f"{NOTE}\n{SELECTION_RULE}\n{protocol_text(study)}")
    return figure


def _draw_panel(ax: Axes, metric: str, grid: MarginGrid) -> None:
    positive, negative, values = grid_values(grid.settings, metric)
    cmap = colormaps["cividis_r" if "opis" in metric else "cividis"]
    ax.grid(False)
    image = ax.imshow(values, origin="lower", cmap=cmap, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        shade = cmap(image.norm(value))[:3] if np.isfinite(value) else (1.0, 1.0, 1.0)
        # relative luminance of the cell decides between black and white digits
        ink = "black" if np.dot(shade, (0.2126, 0.7152, 0.0722)) > 0.45 else "white"
        ax.text(column, row, cell_text(value, metric), ha="center", va="center", fontsize=7, color=ink)
    if at := grid.chosen_cell(positive, negative):
        frame: dict[str, Any] = {"fill": False, "edgecolor": "#D55E00", "linewidth": 2.5, "clip_on": False}
        ax.add_patch(Rectangle((at[0] - 0.5, at[1] - 0.5), 1, 1, zorder=5, **frame))
    ax.set_xticks(range(len(positive)), [f"{value:g}" for value in positive])
    ax.set_yticks(range(len(negative)), [f"{value:g}" for value in negative])
    ax.set_xlabel("positive margin", fontsize=8)
    dataset, backbone, loss = grid.names
    row_label = one_line(f"{dataset} {backbone} {'TCM alone' if loss == 'none' else loss}", 40)
    ax.set_ylabel(f"{row_label}\nnegative margin" if metric == PANELS[0] else "", fontsize=8)
    baseline = "" if grid.baseline is None else f"\nbaseline: {cell_text(grid.baseline.mean(metric), metric)}"
    ax.set_title(f"{metric.split('/')[0]} {metric_label(metric)}{baseline}", fontsize=9)


def cell_text(value: float | None, metric: str) -> str:
    """Write as few digits as tell neighbours apart: a cell has room for about seven characters."""
    if value is None or not np.isfinite(value):
        return "-"
    return format_metric(value, metric) if "opis" in metric else f"{value:.3f}"
