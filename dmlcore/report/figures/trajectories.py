"""The paths of configurations through accuracy x inconsistency while they train, on validation classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, SymmetricalLogLocator

from dmlcore.analysis.metric_labels import one_line, wrap_text
from dmlcore.analysis.study import Cell, Study, baseline_first
from dmlcore.analysis.trajectories import EQUAL_ACCURACY, Path, mean_path, trajectories
from dmlcore.metrics.plot import add_footer, colours, house_style, new_figure
from dmlcore.report.figures.panels import add_title, panel_grid, rows_of, variant_title, write_reason

COLUMNS, MAX_PANELS, PANEL_INCHES = 4, 24, 2.6
NOTE = (
    "Line: mean over seeds at equal accuracy; band: from the lowest to the highest seed. Ring: where a seed ended. A "
    "path below another is more even at the same accuracy."
)
NO_PATH = "no finished trial with curves"


def trajectories_figure(study: Study) -> Figure:
    """Draw a panel a cell, of very many the first, with a line a variant; accuracy rises to the right."""
    cells = study.cells[:MAX_PANELS]
    looks = colours(baseline_first({variant for cell in cells for variant in cell.variants}))
    columns = min(COLUMNS, len(cells))
    with house_style():
        height = PANEL_INCHES * rows_of(len(cells), columns) + 1.6
        figure = new_figure(max(6.0, 2.7 * columns), height)
        axes = panel_grid(figure, len(cells), columns)
        for ax, cell in zip(axes, cells, strict=True):
            _draw_panel(ax, cell, looks)
        figure.supylabel("inconsistency: OPIS corr. on validation", fontsize=9)
        add_title(figure, "Accuracy and inconsistency while a network trains")
        handles = [Line2D([], [], color=c, label=wrap_text(variant_title(v), 60)) for v, c in looks.items()]
        figure.legend(handles=handles, loc="outside upper right", ncols=1, fontsize=7.5, frameon=False)
        cut = f" The first {MAX_PANELS} of {len(study.cells)}." if len(study.cells) > MAX_PANELS else ""
        add_footer(figure, f"{NOTE}{cut}\n{EQUAL_ACCURACY}")
    return figure


def _draw_panel(ax: Axes, cell: Cell, looks: dict[str, str]) -> None:
    drawn = [_draw_path(ax, mean_path(list(trajectories(cell, v).values())), looks[v]) for v in cell.variants]
    head = [one_line(f"{cell.dataset} {cell.backbone}", 34), wrap_text(one_line(cell.loss_text, 60), 34)]
    ax.set_title("\n".join(head), fontsize=7.5)
    ax.tick_params(labelsize=7)
    ax.set_xlabel("MAP@R on validation", fontsize=7.5)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    if not any(drawn):
        write_reason(ax, NO_PATH)
        return
    # OPIS falls several times over while a network learns: on a linear axis all that matters would be one line
    linear = _linear_below(ax.lines)
    ax.set_yscale("symlog", linthresh=linear)
    ax.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=linear, subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())


def _draw_path(ax: Axes, path: Path | None, colour: str) -> bool:
    if path is None:
        return False
    ax.plot(path.accuracy, path.mean, color=colour, linewidth=1.4)
    ax.fill_between(path.accuracy, path.low, path.high, color=colour, alpha=0.2, linewidth=0)
    ax.plot(path.end_accuracy, path.end_opis, "o", color=colour, fillstyle="none", markersize=5)
    return True


def _linear_below(lines: Sequence[Line2D]) -> float:
    """Return where the axis turns from logarithmic to linear: corrected OPIS can be 0 or below."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in lines])
    positive = values[values > 0]
    return float(np.quantile(positive, 0.02)) if positive.size else 1.0
