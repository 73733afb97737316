"""Heat maps over the two margins of TCM, where a study has such a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmlcore.analysis.metric_labels import format_metric, metric_label, round_significant
from dmlcore.analysis.study import BASELINE, Study
from dmlcore.analysis.tuned_settings import FamilyKey, Setting, best_setting, tuned_settings
from dmlcore.report.figures.heat_maps import NEGATIVE, PANELS, POSITIVE, grid_values, is_grid
from dmlcore.report.html.escaping import plot_text


def heat_map_data(study: Study) -> list[dict[str, Any]]:
    """One entry a (data set, backbone, loss) with a grid of margins, and metric."""
    found = tuned_settings(study)
    grids = {place: tried for place, tried in found.items() if is_grid(tried)}
    return [
        _panel(place, tried, best_setting(found.get((*place[:3], BASELINE), [])), metric)
        for place, tried in grids.items()
        for metric in PANELS
    ]


def _panel(place: FamilyKey, tried: Sequence[Setting], base: Setting | None, metric: str) -> dict[str, Any]:
    ups, downs, values = grid_values(tried, metric)
    best = best_setting(tried)
    split = metric.split("/")[0]
    return {
        **dict(zip(("dataset", "backbone", "loss"), place[:3], strict=True)),
        "title": f"{' '.join(place[:3])}: {split} {metric_label(metric)}",
        "base": "" if base is None else f"without TCM: {format_metric(base.mean(metric), metric)}",
        "x": [plot_text(f"{value:g}") for value in ups],
        "y": [plot_text(f"{value:g}") for value in downs],
        "z": [[round_significant(float(value)) for value in row] for row in values],
        "text": [[_digits(float(value), metric) for value in row] for row in values],
        "low_is_good": "opis" in metric,
        "chosen": _place(best, ups, downs),
    }


def _place(best: Setting | None, ups: Sequence[float], downs: Sequence[float]) -> list[int] | None:
    """Column and row of the chosen setting."""
    if best is None or not {POSITIVE, NEGATIVE} <= best.parameters.keys():
        return None
    return [ups.index(best.parameters[POSITIVE]), downs.index(best.parameters[NEGATIVE])]


def _digits(value: float, metric: str) -> str:
    if not np.isfinite(value):
        return "-"
    return format_metric(value, metric) if "opis" in metric else f"{value:.3f}"
