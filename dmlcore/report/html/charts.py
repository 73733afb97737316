"""What the page's script draws: trade-off points, utility curves, heat maps, the map of the embeddings."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dmlcore.analysis.metric_labels import (
    METRICS,
    format_metric,
    format_percent,
    metric_label,
    round_significant,
)
from dmlcore.analysis.relations import pareto_front
from dmlcore.analysis.study import BASELINE, CELL_COLUMNS, Cell, Study
from dmlcore.analysis.trajectories import mean_path, trajectories
from dmlcore.report.figures.heat_maps import PANELS, MarginGrid, cell_text, grid_values, margin_grids
from dmlcore.report.figures.labels import legend_of
from dmlcore.report.figures.panels import variant_title
from dmlcore.report.figures.tradeoff import (
    TradeoffPoint,
    error_bar,
    error_bar_text,
    intervals_readable,
    tradeoff_points,
)
from dmlcore.report.figures.utility import curve_note, most_accurate, utility_curve
from dmlcore.report.html.stored import DatasetImages, Floats, PairedEmbeddings, extreme_classes

SYMBOLS = {
    "o": ("circle", "\N{BLACK CIRCLE}"),
    "s": ("square", "\N{BLACK SQUARE}"),
    "^": ("triangle-up", "\N{BLACK UP-POINTING TRIANGLE}"),
    "D": ("diamond", "\N{BLACK DIAMOND}"),
    "v": ("triangle-down", "\N{BLACK DOWN-POINTING TRIANGLE}"),
    "P": ("cross", "\N{HEAVY GREEK CROSS}"),
    "X": ("x", "\N{HEAVY MULTIPLICATION X}"),
    "*": ("star", "\N{BLACK STAR}"),
    "<": ("triangle-left", "\N{BLACK LEFT-POINTING TRIANGLE}"),
    ">": ("triangle-right", "\N{BLACK RIGHT-POINTING TRIANGLE}"),
}
"""Marker of the PNG -> plotly's, and a character for the legend."""

FILLED, HOLLOW = "\N{BLACK CIRCLE}", "\N{WHITE CIRCLE}"

MAX_CURVES = 100
"""Configurations whose utility curves the page holds."""

MAP_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "x")
BACKGROUND = 1_000
"""Images of other classes, every n-th, drawn small and grey: as many as a browser draws at once without a delay."""


def plot_text(text: object) -> str:
    """Escape `text` for a plot: plotly reads its texts as HTML, so a name's `<` must be an entity."""
    return html.escape(" ".join(str(text).split()))


def tradeoff_data(study: Study, metric: str, run_link: str | None) -> dict[str, Any]:
    """Describe each point of the trade-off plot with all that the page draws and says of it.

    Args:
        study: what to show.
        metric: of the horizontal axis, `opis_corrected` or `opis`.
        run_link: address of a run with `{trial_key}` in it, or None.
    """
    points, legend = tradeoff_points(study, f"test/{metric}"), legend_of(study)
    t_intervals, front = intervals_readable(points), _front(points)
    cells = {id(cell): position for position, cell in enumerate(study.cells)}
    described = []
    for point in points:
        cell, baseline = point.cell, point.variant == BASELINE
        described.append(
            {
                **cell.names,
                "variant": point.variant,
                "baseline": baseline,
                "cell": cells[id(cell)],
                "x": round_significant(point.x.mean),
                "y": round_significant(point.y.mean),
                "dx": round_significant(error_bar(point.x, t_intervals)),
                "dy": round_significant(error_bar(point.y, t_intervals)),
                "colour": legend.colours[cell.loss],
                "symbol": SYMBOLS[legend.markers[cell.backbone]][0] + ("" if baseline else "-open"),
                "front": id(point) in front,
                "lines": _hover_lines(study, point),
                "runs": _runs(point, run_link),
            }
        )
    axes = {"x": plot_text(metric_label(metric)), "y": plot_text(metric_label(study.config.accuracy))}
    return {"points": described, "bars": error_bar_text(t_intervals, study.config.confidence), "axes": axes}


def _front(points: Sequence[TradeoffPoint]) -> set[int]:
    """Find the ids of the points that no other one of the same data set beats in both metrics."""
    kept: set[int] = set()
    for dataset in {point.cell.dataset for point in points}:
        group = [point for point in points if point.cell.dataset == dataset]
        on_front = pareto_front([p.xy[0] for p in group], [p.xy[1] for p in group])
        kept |= {id(point) for point in compress(group, on_front)}
    return kept


def _hover_lines(study: Study, point: TradeoffPoint) -> list[str]:
    """Write the configuration and its numbers, as plain text."""
    cell, level = point.cell, study.config.confidence
    lines = [cell.title, variant_title(point.variant)]
    for metric in METRICS:
        found = cell.estimate(point.variant, f"test/{metric}", level)
        mean, low, high = (format_metric(value, metric) for value in (found.mean, found.low, found.high))
        lines.append(f"{metric_label(metric)} {mean}" + ("" if found.low is None else f" ({low} to {high})"))
    planned = cell.variants[point.variant].height
    return [*lines, f"{point.y.seeds} of {planned} seeds; {format_percent(level)} intervals"]


def _runs(point: TradeoffPoint, run_link: str | None) -> list[tuple[str, str]]:
    if run_link is None:
        return []
    rows = point.cell.variants[point.variant].select("seed", "trial_key").iter_rows()
    return [(f"seed {seed}", run_link.replace("{trial_key}", key)) for seed, key in rows]


def legend_entries(study: Study) -> dict[str, list[tuple[str, str, str]]]:
    """Return heading -> (character, colour, name) for the legend next to the plot."""
    legend = legend_of(study)
    losses = [(FILLED, colour, name) for name, colour in legend.colours.items()]
    shapes = [(SYMBOLS[marker][1], "currentColor", name) for name, marker in legend.markers.items()]
    fills = [(FILLED if v == BASELINE else HOLLOW, "currentColor", variant_title(v)) for v in study.variants]
    return {"Colour: loss": losses, "Shape: backbone": shapes, "Fill: regulariser": fills}


def utility_data(study: Study) -> tuple[list[dict[str, Any]], str]:
    """Describe the utility curves of each cell.

    Returns:
        One entry a cell: its names, and of each variant the curve (mean over seeds) or why there is none; and which
        cells these are, empty where all are: of very many the most accurate on validation.
    """
    cells, cut = most_accurate(study, MAX_CURVES)
    entries = [
        {**cell.names, "title": cell.title, "variants": [_curve(cell, variant) for variant in cell.variants]}
        for cell in cells
    ]
    return entries, cut


def _curve(cell: Cell, variant: str) -> dict[str, Any]:
    entry = {"heading": plot_text(variant_title(variant)), "baseline": variant == BASELINE}
    curve = utility_curve(cell, variant)
    if curve is None:
        return entry | {"missing": "no finished trial"}
    lines = {name: _four_decimals(getattr(curve, name)) for name in ("thresholds", "mean", "low", "high")}
    span = [round_significant(end) for end in curve.span]
    return entry | {"note": curve_note(cell, variant, curve), **lines, "span": span}


def _four_decimals(values: ArrayLike) -> list[float]:
    """Round to less than a pixel of the plot, which is 0.005: a page holds thousands of these."""
    return [round(float(value), 4) for value in np.asarray(values)]


def trajectories_data(study: Study) -> list[dict[str, Any]]:
    """Describe the path of each variant through accuracy x inconsistency, one entry a cell that has one."""
    cells, _ = most_accurate(study, MAX_CURVES)
    entries = []
    for cell in cells:
        paths = {v: mean_path(list(trajectories(cell, v).values())) for v in cell.variants}
        drawn = [
            {
                "heading": plot_text(variant_title(variant)),
                "baseline": variant == BASELINE,
                **{name: [float(f"{v:.4g}") for v in values] for name, values in path._asdict().items()},
            }
            for variant, path in paths.items()
            if path is not None
        ]
        if drawn:
            entries.append({**cell.names, "title": cell.title, "variants": drawn})
    return entries


def heat_map_data(study: Study) -> list[dict[str, Any]]:
    """Describe one heat map a metric and (data set, backbone, loss) with a grid of margins."""
    return [_heat_map(grid, metric) for grid in margin_grids(study) for metric in PANELS]


def _heat_map(grid: MarginGrid, metric: str) -> dict[str, Any]:
    positive, negative, values = grid_values(grid.settings, metric)
    base = grid.baseline and f"without TCM: {format_metric(grid.baseline.mean(metric), metric)}"
    return {
        **dict(zip(CELL_COLUMNS, grid.names, strict=True)),
        "title": f"{' '.join(grid.names)}: {metric.split('/')[0]} {metric_label(metric)}",
        "baseline": base or "",
        "x": [plot_text(f"{value:g}") for value in positive],
        "y": [plot_text(f"{value:g}") for value in negative],
        "z": [[round_significant(float(value)) for value in row] for row in values],
        "text": [[cell_text(float(value), metric) for value in row] for row in values],
        "low_is_good": "opis" in metric,
        "chosen": grid.chosen_cell(positive, negative),
    }


def principal_components(points: Floats) -> tuple[Floats, float]:
    """Project on the two directions of greatest variance.

    Args:
        points: [N, D].

    Returns:
        [N, 2] coordinates about the mean; the share of the variance that they keep.
    """
    centred = points - points.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    kept = directions[:, ::-1][:, :2]
    # an eigenvector is known up to its sign: a positive largest entry makes the map the same on every machine
    signs = np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    total = float(variances.sum())
    return centred @ (kept * signs), float(variances[-2:].sum()) / total if total > 0 else 0.0


def map_data(pair: PairedEmbeddings, images: DatasetImages) -> dict[str, Any]:
    """Project baseline and variant: the extreme classes by name, of the other images every n-th as background."""
    classes = extreme_classes(pair)
    others = np.flatnonzero(~np.isin(pair.labels, [label for _, label in classes]))
    others = others[:: max(1, -(-len(others) // BACKGROUND))]
    trials = []
    for trial in (pair.baseline, pair.variant):
        points, share = principal_components(trial.embeddings)
        groups = []
        for i, (kind, label) in enumerate(classes):
            members = np.flatnonzero(pair.labels == label)
            name = plot_text(f"{kind}: {images.class_name(pair, members[0])}")
            symbol = MAP_SYMBOLS[i % len(MAP_SYMBOLS)]
            groups.append({"name": name, "kind": kind, "symbol": symbol, **_xy(points[members])})
        heading = f"{plot_text(variant_title(trial.variant))}<br>{100 * share:.0f} % of the variance"
        trials.append({"heading": heading, "others": _xy(points[others]), "groups": groups})
    return {"trials": trials}


def _xy(points: Floats) -> dict[str, list[float]]:
    """Three decimals: of a unit sphere a pixel."""
    return {"x": np.round(points[:, 0], 3).tolist(), "y": np.round(points[:, 1], 3).tolist()}
