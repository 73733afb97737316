"""Utility against threshold: the mean over classes with the band of the class quantiles, one panel a variant."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dmlcore.analysis.metric_labels import format_metric, one_line, variant_label, wrap_text
from dmlcore.analysis.protocol import protocol_text
from dmlcore.analysis.study import BASELINE, Cell, Study
from dmlcore.metrics.plot import (
    COLOURS,
    UTILITY_LINES,
    add_footer,
    draw_utility,
    house_style,
    new_figure,
)
from dmlcore.records import CURVE
from dmlcore.report.figures.panels import panel_grid, rows_of, variant_title, write_reason

ROW_INCHES = 1.9

MAX_ROWS, MAX_PANELS = 10, 40
"""Beyond which not every configuration is drawn: rows of panels, panels of one variant."""

COLUMNS = 4
"""Panels in a row where a study has one variant."""

PARTS = ("thresholds", "mean", "low", "high")
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
    ends = [cell.mean(variant, f"test/distance_{end}") for end in ("min", "max")]
    span = [float(edge) if end is None else end for end, edge in zip(ends, thresholds[[0, -1]], strict=True)]
    return Curve(thresholds, mean, low, high, (span[0], span[1]), done.height)


def curve_note(cell: Cell, variant: str, curve: Curve) -> str:
    """Write OPIS and the number of seeds behind a curve."""
    opis = format_metric(cell.mean(variant, "test/opis"), "opis")
    return f"OPIS {opis}, {curve.seeds} seed{'s' if curve.seeds != 1 else ''}"


def most_accurate(study: Study, most: int) -> tuple[list[Cell], str]:
    """Choose the cells that are most accurate on validation, in the order of the study.

    Returns:
        The cells, and a phrase that says so; all cells and no phrase where these are not more than `most`.
    """
    if len(study.cells) <= most:
        return study.cells, ""

    means = [[cell.mean(variant, CURVE) for variant in cell.variants] for cell in study.cells]
    accuracy = [max((m for m in found if m is not None), default=-math.inf) for found in means]
    order = np.argsort(-np.array(accuracy), kind="stable")
    cut = f"the {most} of {len(study.cells)} configurations that are most accurate on validation"
    return [study.cells[i] for i in sorted(order[:most])], cut


def utility_figure(study: Study) -> Figure:
    """Draw one row a cell, one column a variant, `baseline` first; one variant alone: its cells side by side.

    Where cells are too many, those that are most accurate on validation.
    """
    with house_style():
        return _variant_columns(study) if len(study.variants) > 1 else _side_by_side(study)


def _variant_columns(study: Study) -> Figure:
    cells, cut = most_accurate(study, MAX_ROWS)
    figure = new_figure(study.config.figure.width_inches, ROW_INCHES * len(cells) + 1.4)
    grid = figure.subplots(len(cells), len(study.variants), squeeze=False, sharex="row")
    for cell, row in zip(cells, grid, strict=True):
        for variant, ax in zip(study.variants, row, strict=True):
            _draw_panel(ax, cell, variant)
            ax.tick_params(labelleft=ax is row[0])
        row[0].set_ylabel("\n".join(one_line(line, 28) for line in [*_names(cell), "utility"]), fontsize=8)
    for variant, ax in zip(study.variants, grid[0], strict=True):
        width = int(90 / len(study.variants))
        ax.set_title(wrap_text(variant_title(variant), width) + "\n", fontsize=10)
    for ax in grid[-1]:
        ax.set_xlabel("distance threshold (L2)")
    _add_texts(figure, study, "", cut, "")
    return figure


def _side_by_side(study: Study) -> Figure:
    (cells, cut), (variant,) = most_accurate(study, MAX_PANELS), study.variants
    height = ROW_INCHES * rows_of(len(cells), COLUMNS) + 1.2
    figure = new_figure(study.config.figure.width_inches, height)
    for cell, ax in zip(cells, panel_grid(figure, len(cells), COLUMNS, sharey=True), strict=True):
        _draw_panel(ax, cell, variant)
        dataset, backbone, *rest = _names(cell)
        head = [one_line(line, 30) for line in (f"{dataset} {backbone}", *rest)]
        ax.set_title("\n".join([*head, ax.get_title(loc="right")]), fontsize=7)
        ax.set_title("", loc="right")
        ax.tick_params(labelsize=7)
    figure.supylabel("utility", fontsize=9)
    _add_texts(figure, study, f", {variant_label(variant)}", cut, " Across: distance threshold (L2).")
    return figure


def _add_texts(figure: Figure, study: Study, variant: str, cut: str, note: str) -> None:
    title = f"Utility of one threshold for the test classes{variant}" + (f"\n{cut}" if cut else "")
    figure.suptitle(title, fontsize=11)
    add_footer(figure, f"{UTILITY_LINES} {SEEDS}{note}\n{protocol_text(study)}")


def _names(cell: Cell) -> list[str]:
    return [*cell.names.values(), *(f"{path}={value}" for path, value in cell.axes.items())]


def _draw_panel(ax: Axes, cell: Cell, variant: str) -> None:
    curve = utility_curve(cell, variant)
    if curve is None:
        ax.set_ylim(0.0, 1.02)
        write_reason(ax, "no finished trial" if variant in cell.variants else "not in the plan")
        return
    colour = COLOURS[0] if variant == BASELINE else COLOURS[1]
    draw_utility(ax, curve.thresholds, curve.mean, curve.low, curve.high, span=curve.span, colour=colour)
    ax.set_title(curve_note(cell, variant, curve), fontsize=7.5, loc="right", color="#333333")
