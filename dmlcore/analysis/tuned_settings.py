"""The settings that were tried of each (loss, family of regularisers), and the one that validation chooses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from dmlcore.analysis.statistics import t_interval
from dmlcore.analysis.study import BASELINE, CELL_COLUMNS, Study, swept_axes

REGULARIZERS_COLUMN = "config/regularizers"
SELECTION_METRIC = "validation/map_at_r"


FamilyKey = tuple[str, str, str, str]
"""Data set, backbone, loss, family."""


@dataclass(frozen=True)
class Setting:
    """One setting of a (data set, backbone, loss, family), with its planned trials."""

    place: FamilyKey
    parameters: Mapping[str, Any]
    """What was varied: dotted config path -> value, `NAME.PARAMETER` for a regulariser's."""
    trials: pl.DataFrame

    @property
    def text(self) -> str:
        return (
            ", ".join(f"{k.rsplit('.', 1)[-1]}={_short(v)}" for k, v in self.parameters.items())
            or "author's defaults"
        )

    @cached_property
    def finished(self) -> pl.DataFrame:
        return self.trials.filter(pl.col("status") == "finished")

    def mean(self, metric: str, seeds: Iterable[int] | None = None) -> float | None:
        """Mean of a column over the finished seeds, or over those of `seeds` alone."""
        return t_interval(self.values(metric, seeds), 0.95).mean

    def values(self, metric: str, seeds: Iterable[int] | None = None) -> list[float]:
        """The finite values of a column, by seed."""
        if metric not in self.finished.columns:
            return []
        rows = self.finished if seeds is None else self.finished.filter(pl.col("seed").is_in(list(seeds)))
        return [
            value for value in rows.sort("seed")[metric].to_list() if value is not None and np.isfinite(value)
        ]


def regularizer_family(regularizers: str | None) -> str:
    """The names of the regularisers without their parameters: `tcm`, `a+b`, `baseline` for none.

    Args:
        regularizers: JSON text, a list of {name, params}.
    """
    return "+".join(part["name"] for part in json.loads(regularizers or "[]")) or BASELINE


def tuned_settings(study: Study) -> dict[FamilyKey, list[Setting]]:
    """Every setting of the plan by place, in the order of its parameters."""
    axes = swept_axes(study.trials)
    keys = [*CELL_COLUMNS, REGULARIZERS_COLUMN, *axes]
    found: dict[FamilyKey, list[Setting]] = {}
    for part in study.trials.sort([*keys, "seed"], nulls_last=True).partition_by(keys, maintain_order=True):
        first = part.row(0, named=True)
        values = {path: first[column] for column, path in axes.items() if first[column] is not None}
        place = (*(first[name] for name in CELL_COLUMNS), regularizer_family(first[REGULARIZERS_COLUMN]))
        found.setdefault(place, []).append(
            Setting(place, values | _parameters(first[REGULARIZERS_COLUMN]), part)
        )
    return {
        place: _varied(found[place])
        for place in sorted(found, key=lambda p: (*p[:3], p[3] != BASELINE, p[3]))
    }


def eligible_settings(tried: Sequence[Setting], seeds: Iterable[int]) -> list[Setting]:
    """The settings that have a validation MAP@R for each of `seeds`: a diverged one cannot be chosen."""
    wanted = set(seeds)
    return [s for s in tried if wanted <= set(s.finished.drop_nulls(SELECTION_METRIC)["seed"]) and wanted]


def selection_seeds(tried: Sequence[Setting]) -> list[int]:
    """The seeds that every setting was to run, so that no setting is chosen for its luckier seeds."""
    return sorted(set.intersection(*(set(s.trials["seed"]) for s in tried)))


def best_setting(tried: Sequence[Setting], seeds: Iterable[int] | None = None) -> Setting | None:
    """The setting with the highest mean validation MAP@R over `seeds` (by default `selection_seeds`).

    The first of equals; None where none is eligible.
    """
    if not tried or SELECTION_METRIC not in tried[0].trials.columns:
        return None
    shared = selection_seeds(tried) if seeds is None else sorted(seeds)
    return max(
        eligible_settings(tried, shared), key=lambda s: s.mean(SELECTION_METRIC, shared) or 0.0, default=None
    )


def chosen_study(study: Study) -> Study:
    """The study as if each (loss, family) had only its chosen setting: variants are families, no axes are swept."""
    picked = [
        setting for tried in tuned_settings(study).values() if (setting := best_setting(tried)) is not None
    ]
    if not picked:
        return study
    axes = swept_axes(study.trials)
    tables = [s.trials.with_columns(pl.lit(s.place[3]).alias("variant")).drop(list(axes)) for s in picked]
    return replace(study, trials=pl.concat(tables).sort("trial_key"))


def _parameters(regularizers: str | None) -> dict[str, Any]:
    parts = json.loads(regularizers or "[]")
    return {
        f"{part['name']}.{key}": value
        for part in parts
        for key, value in sorted(part.get("params", {}).items())
    }


def _varied(tried: list[Setting]) -> list[Setting]:
    """The settings, sorted, with the parameters alone in which they differ; one alone keeps all that it has."""
    if len(tried) == 1:
        return tried
    names = dict.fromkeys(name for s in tried for name in s.parameters)
    kept = [name for name in names if len({json.dumps(s.parameters.get(name)) for s in tried}) > 1]
    trimmed = [replace(s, parameters={n: s.parameters[n] for n in kept if n in s.parameters}) for s in tried]
    return sorted(trimmed, key=lambda s: [_order(s.parameters.get(name)) for name in kept])


def _order(value: Any) -> tuple[bool, bool, Any]:
    """Numbers by size, then texts, then what is left to its default."""
    if value is None:
        return True, True, ""
    number = isinstance(value, int | float)
    return False, not number, value if number else str(value)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
