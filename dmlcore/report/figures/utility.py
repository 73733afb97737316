"""Utility against threshold: the mean over classes with the band of the class quantiles, one panel a variant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dmlcore.analysis.metric_labels import format_metric, one_line, variant_label, wrap_text
from dmlcore.analysis.protocol import protocol_text
from dmlcore.analysis.study import BASELINE, Cell, Study
from dmlcore.core.io import write_atomically
from dmlcore.metrics.plot import (
    COLOURS,
    add_footer,
    curve_figure,
    draw_utility,
    house_style,
    new_figure,
    png_bytes,
)
from dmlcore.records import CURVE

if TYPE_CHECKING:
    from dmlcore.metrics.evaluation import Evaluation


ROW_INCHES = 1.9


MOST_ROWS, MOST_PANELS = 10, 40
"""Beyond which not every configuration is drawn: rows of panels, panels of one variant."""


COLUMNS = 4
"""Panels in a row where a study has one variant."""


PARTS = ("thresholds", "mean", "low", "high")
LINES = (
    "Line: utility (harmonic mean of sensitivity and specificity) at one threshold, mean over test classes. "
    "Band: 10 % to 90 % quantile over classes, so a narrow band = one threshold serves all classes alike. "
    "Grey: calibration range."
)
SEEDS = "All averaged over seeds at equal positions within each seed's thresholds."


@dataclass(frozen=True)
class Curve:
    """The mean over seeds of a configuration's curve; each [T]."""

    thresholds: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    span: tuple[float, float]
    """The calibration range, mean over seeds."""
    seeds: int


def utility_curve(cell: Cell, variant: str) -> Curve | None:
    """Average the curves of the finished seeds of `variant`; None if there is none.

    The calibration range differs from seed to seed, so thresholds are averaged like the utilities: the t-th of each
    seed. For equal ranges that is the plain mean at each threshold.
    """
    columns = [f"utility/{part}" for part in PARTS]
    finished = cell.finished.get(variant)
    if finished is None or not set(columns) <= set(finished.columns):
        return None
    done = finished.filter(pl.col("utility/thresholds").is_not_null())
    if done.is_empty():
        return None
    thresholds, mean, low, high = (
        np.mean(done[column].explode().to_numpy().reshape(done.height, -1), axis=0) for column in columns
    )
    return Curve(thresholds, mean, low, high, _span(cell, variant, thresholds), done.height)


def utility_figure(study: Study) -> Figure:
    """One row a cell, one column a variant, `baseline` first; rows share their axis. One variant alone: side by side.

    Where there are too many, those that are most accurate on validation.
    """
    variants = study.variants
    cells, cut = _shown(study)
    if len(variants) == 1:
        return _side_by_side(study)
    with house_style():
        figure = new_figure(study.config.figure.width_inches, ROW_INCHES * len(cells) + 1.4)
        grid = figure.subplots(len(cells), len(variants), squeeze=False, sharex="row")
        for cell, row in zip(cells, grid, strict=True):
            for variant, ax in zip(variants, row, strict=True):
                _panel(ax, cell, variant)
            row[0].set_ylabel(_row_label(cell), fontsize=8)
            for ax in row[1:]:
                ax.tick_params(labelleft=False)
        width = int(90 / len(variants))
        for variant, ax in zip(variants, grid[0], strict=True):
            heading = "baseline (no regulariser)" if variant == BASELINE else variant_label(variant)
            ax.set_title(wrap_text(heading, width) + "\n", fontsize=10)
        for ax in grid[-1]:
            ax.set_xlabel("distance threshold (L2)")
        figure.suptitle(f"Utility of one threshold for the test classes{cut}", fontsize=11)
        add_footer(figure, f"{LINES} {SEEDS}\n" + protocol_text(study))
    return figure


def _shown(study: Study) -> tuple[list[Cell], str]:
    """The cells to draw, and what the title says of the others."""
    cells, cut = most_accurate(study, MOST_ROWS if len(study.variants) > 1 else MOST_PANELS)
    return cells, f"\n{cut}" if cut else ""


def most_accurate(study: Study, most: int) -> tuple[list[Cell], str]:
    """The cells that are most accurate on validation, in the order of the study, and a phrase that says so; all cells
    and no phrase where these are not more than `most`.
    """
    if len(study.cells) <= most:
        return study.cells, ""
    order = sorted(range(len(study.cells)), key=lambda i: -_validation_accuracy(study.cells[i]))
    cut = f"the {most} of {len(study.cells)} configurations that are most accurate on validation"
    return [study.cells[i] for i in sorted(order[:most])], cut


def _validation_accuracy(cell: Cell) -> float:
    found = [cell.values(variant, CURVE).values() for variant in cell.variants]
    return max((float(np.mean(list(values))) for values in found if values), default=-math.inf)


def _side_by_side(study: Study) -> Figure:
    (cells, cut), (variant,) = _shown(study), study.variants
    columns = min(COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    with house_style():
        figure = new_figure(study.config.figure.width_inches, ROW_INCHES * rows + 1.2)
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for ax in axes[len(cells) :]:
            ax.set_axis_off()
        for cell, ax in zip(cells, axes, strict=False):
            _panel(ax, cell, variant)
            head = [f"{cell.dataset} {cell.backbone}", cell.loss, *(f"{k}={v}" for k, v in cell.axes.items())]
            ax.set_title(
                "\n".join([*(one_line(line, 30) for line in head), ax.get_title(loc="right")]), fontsize=7
            )
            ax.set_title("", loc="right")
            ax.tick_params(labelsize=7)
        figure.supylabel("utility", fontsize=9)
        figure.suptitle(
            f"Utility of one threshold for the test classes, {variant_label(variant)}{cut}", fontsize=11
        )
        add_footer(figure, f"{LINES} {SEEDS} Across: distance threshold (L2).\n" + protocol_text(study))
    return figure


def save_utility_plot(evaluation: Evaluation, path: Path) -> None:
    """Write utility against threshold of one set of embeddings as PNG.

    Args:
        evaluation: of `dmlcore.metrics.evaluation.evaluate`; its `utility [C, T]` over its `thresholds [T]`.
        path: where to.
    """
    low, high = np.quantile(evaluation.utility, (0.1, 0.9), axis=0)
    thresholds = evaluation.thresholds
    span = (float(thresholds[0]), float(thresholds[-1]))
    title = f"OPIS {format_metric(evaluation.metrics['opis'], 'opis')} over {len(evaluation.utility)} classes"
    with house_style():
        figure = curve_figure(thresholds, evaluation.utility.mean(axis=0), low, high, span=span, title=title)
        figure.set_layout_engine("constrained")  # the footer needs room
        add_footer(figure, LINES)
        write_atomically(path, png_bytes(figure))


def _span(cell: Cell, variant: str, thresholds: NDArray[np.float64]) -> tuple[float, float]:
    ends = []
    for name, end in (("test/distance_min", thresholds[0]), ("test/distance_max", thresholds[-1])):
        values = list(cell.values(variant, name).values())
        ends.append(float(np.mean(values)) if values else float(end))
    return ends[0], ends[1]


def _row_label(cell: Cell) -> str:
    lines = [cell.dataset, cell.backbone, cell.loss, *(f"{k}={v}" for k, v in cell.axes.items()), "utility"]
    return "\n".join(one_line(line, 28) for line in lines)


def _panel(ax: Axes, cell: Cell, variant: str) -> None:
    curve = utility_curve(cell, variant)
    if curve is None:
        reason = "no finished trial" if variant in cell.variants else "not in the plan"
        ax.set_ylim(0.0, 1.02)
        ax.text(0.5, 0.5, reason, ha="center", va="center", transform=ax.transAxes, color="#555555")
        return
    colour = COLOURS[0] if variant == BASELINE else COLOURS[1]
    draw_utility(ax, curve.thresholds, curve.mean, curve.low, curve.high, span=curve.span, colour=colour)
    ax.set_title(_panel_title(cell, variant, curve), fontsize=7.5, loc="right", color="#333333")


def _panel_title(cell: Cell, variant: str, curve: Curve) -> str:
    values = list(cell.values(variant, "test/opis").values())
    opis = float(np.mean(values)) if values else None
    return f"OPIS {format_metric(opis, 'opis')}, {curve.seeds} seed{'s' if curve.seeds != 1 else ''}"
