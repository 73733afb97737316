"""The figure of part `search`: the settings that each search tried, its Pareto front, and where TCM's margins lay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dmlcore.analysis.columns import Row
from dmlcore.analysis.metric_labels import metric_label, one_line
from dmlcore.analysis.protocol import protocol_text
from dmlcore.analysis.relations import pareto_front
from dmlcore.analysis.searches import SEARCH_METRICS, search_results
from dmlcore.analysis.study import BASELINE, SEARCH_PREFIX, Study
from dmlcore.metrics.plot import add_footer, colours, house_style, new_figure
from dmlcore.report.figures.panels import add_title, panel_grid, rows_of, write_reason

ACCURACY, INCONSISTENCY = (f"validation/{metric}" for metric in SEARCH_METRICS)
MARGINS = tuple(f"{SEARCH_PREFIX}regularizers.tcm.params.{name}_margin" for name in ("positive", "negative"))
COLUMNS, PANEL_INCHES = 3, 4.4
NOTE = (
    "Each point: a setting that a search tried, at the seed of the search, on validation classes. Steps: the settings "
    "that no other of the same search beats in both (Pareto front). Ring: the chosen setting, which alone is compared."
)

Families = Mapping[str, Sequence[Row]]
"""Loss and regulariser -> its settings."""


def search_figure(study: Study) -> Figure:
    """Draw a panel a (data set, backbone) with all its searches, and one a search that varied both margins of TCM."""
    places = _places(study)
    panels: list[tuple[str, str | None]] = [(place, None) for place in places]
    panels += [
        (place, name) for place, families in places.items() for name in families if _margins(families[name])
    ]
    with house_style():
        count = max(1, len(panels))
        figure = new_figure(
            PANEL_INCHES * min(COLUMNS, count) + 0.5, PANEL_INCHES * rows_of(count, COLUMNS) + 1.0
        )
        axes = panel_grid(figure, count, COLUMNS)
        for ax, (place, family) in zip(axes, panels, strict=False):
            if family is None:
                _draw_searches(ax, place, places[place])
            else:
                _draw_margins(ax, f"{place}: {family}", _margins(places[place][family]))
        if not panels:
            write_reason(axes[0], "no search in the plan")
        add_title(figure, "What the searches tried, and what they chose")
        add_footer(figure, f"{NOTE}\n{protocol_text(study)}")
    return figure


def _places(study: Study) -> dict[str, dict[str, list[Row]]]:
    """Return data set and backbone -> family -> its settings with both scores."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in search_results(study).drop_nulls([ACCURACY, INCONSISTENCY]).to_dicts():
        families = found.setdefault(f"{row['dataset']} {row['backbone']}", {})
        families.setdefault(_family(row), []).append(row)
    return found


def _family(row: Row) -> str:
    if row["variant"] == BASELINE:
        return str(row["loss"])
    return f"{row['variant']} alone" if row["loss"] == "none" else f"{row['loss']} + {row['variant']}"


def _margins(rows: Sequence[Row]) -> list[Row]:
    """Leave the settings whose search varied both margins."""
    return [row for row in rows if all(row.get(name) is not None for name in MARGINS)]


def _draw_searches(ax: Axes, place: str, families: Families) -> None:
    shades = colours(list(families))
    points = {
        name: np.array([(r[INCONSISTENCY], r[ACCURACY]) for r in rows]) for name, rows in families.items()
    }
    fronts = {name: front(values) for name, values in points.items()}
    for name, rows in families.items():
        ax.plot(*points[name].T, "o", color=shades[name], markersize=4, alpha=0.5, markeredgewidth=0)
        ax.step(*fronts[name].T, where="post", color=shades[name], linewidth=1.4, alpha=0.9)
        _ring(
            [(row[INCONSISTENCY], row[ACCURACY]) for row in rows if row["role"] == "chosen"], ax, shades[name]
        )
    beyond = _zoom(ax, np.concatenate(list(points.values())), np.concatenate(list(fronts.values())))
    entries = [Line2D([], [], marker="o", color=shades[name], label=one_line(name, 44)) for name in families]
    ax.legend(handles=entries, fontsize=7, loc="lower right")
    ax.set_xlabel(
        f"{metric_label(INCONSISTENCY)}, {INCONSISTENCY} (\N{LEFTWARDS ARROW} lower is better)", fontsize=8
    )
    ax.set_ylabel(f"{metric_label(ACCURACY)}, {ACCURACY} (higher is better \N{RIGHTWARDS ARROW})", fontsize=8)
    note = f" ({beyond} worse settings not shown)" if beyond else ""
    ax.set_title(place + note, fontsize=9, loc="left")


def _zoom(ax: Axes, points: np.ndarray[Any, Any], fronts: np.ndarray[Any, Any]) -> int:
    """Show the fronts and once their span beside them; return how many of the points [n, 2] are outside."""
    (left, low), (right, high) = fronts.min(axis=0), fronts.max(axis=0)
    across, up = (right - left) or 0.1 * abs(right) or 1.0, (high - low) or 0.1 * abs(high) or 1.0
    ax.set_xlim(left - 0.15 * across, right + across)
    ax.set_ylim(low - 1.5 * up, high + 0.15 * up)
    return int(((points[:, 0] > right + across) | (points[:, 1] < low - 1.5 * up)).sum())


def front(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the points [n, 2], of [inconsistency, accuracy], that no other beats in both, the most even first."""
    return np.unique(points[pareto_front(*points.T)], axis=0)


def _draw_margins(ax: Axes, title: str, rows: Sequence[Row]) -> None:
    """Draw the settings by their margins, coloured by inconsistency, larger where more accurate."""
    positive, negative = (np.array([row[name] for row in rows]) for name in MARGINS)
    accuracy, inconsistency = (np.array([row[name] for row in rows]) for name in (ACCURACY, INCONSISTENCY))
    share = (accuracy - accuracy.min()) / (np.ptp(accuracy) or 1.0)
    shown = ax.scatter(positive, negative, s=20.0 + 120.0 * share, c=inconsistency, cmap="cividis_r")
    _ring([(row[MARGINS[0]], row[MARGINS[1]]) for row in rows if row["role"] == "chosen"], ax, "#D55E00", 15)
    bar = ax.figure.colorbar(shown, ax=ax)
    bar.set_label(f"{metric_label(INCONSISTENCY)}, {INCONSISTENCY}", fontsize=8)
    ax.set_xlabel("positive margin (a larger point: higher validation MAP@R)", fontsize=8)
    ax.set_ylabel("negative margin", fontsize=8)
    ax.set_title(one_line(title, 60), fontsize=9, loc="left")


def _ring(points: Sequence[tuple[float, float]], ax: Axes, colour: str, size: float = 11) -> None:
    for x, y in points:
        ax.plot(x, y, "o", markersize=size, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=2)
