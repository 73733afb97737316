"""The settings that were tried, of each loss and family of regularisers or by a search, and what validation chose."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

import polars as pl

from dmlcore.analysis.metric_labels import value_text
from dmlcore.analysis.study import BASELINE, CELL_COLUMNS, Study, finite_values, swept_axes

REGULARIZERS_COLUMN = "config/regularizers"
GIVEN_COLUMN = "regularizers_as_given"
"""Of trials whose margins come from scores: their regularisers with the rates; the config has the numbers."""
SELECTION_METRIC = "validation/map_at_r"

FamilyKey = tuple[str, str, str, str]
"""Data set, backbone, loss, family."""


@dataclass(frozen=True)
class Setting:
    """One setting of a (data set, backbone, loss, family), with its planned trials."""

    family: FamilyKey
    parameters: Mapping[str, Any]
    """What was varied: dotted config path -> value, `NAME.PARAMETER` for a regulariser's."""
    trials: pl.DataFrame

    @property
    def text(self) -> str:
        return parameters_text(self.parameters) or "author's defaults"

    @cached_property
    def finished(self) -> pl.DataFrame:
        return self.trials.filter(pl.col("status") == "finished")

    def mean(self, metric: str, seeds: Sequence[int] | None = None) -> float | None:
        """Return the mean of a column over the finished seeds, or over those of `seeds` alone."""
        found = finite_values(self.finished, metric)
        values = [v for seed, v in found.items() if seeds is None or seed in seeds]
        return fmean(values) if values else None


def regularizer_family(regularizers: str | None) -> str:
    """Return the names of the regularisers without their parameters: `tcm`, `a+b`, `baseline` for none.

    Args:
        regularizers: JSON text, a list of {name, params}.
    """
    return "+".join(part["name"] for part in json.loads(regularizers or "[]")) or BASELINE


def tuned_settings(study: Study) -> dict[FamilyKey, list[Setting]]:
    """Return every setting of the plan by family, in the order of its parameters."""
    axes = swept_axes(study.trials)
    keys = [*CELL_COLUMNS, REGULARIZERS_COLUMN, *axes]
    found: dict[FamilyKey, list[Setting]] = {}
    for trials in (
        _as_given(study.trials).sort([*keys, "seed"], nulls_last=True).partition_by(keys, maintain_order=True)
    ):
        first = trials.row(0, named=True)
        values = {path: first[column] for column, path in axes.items() if first[column] is not None}
        values |= _parameters(first[REGULARIZERS_COLUMN])
        family = (*(first[name] for name in CELL_COLUMNS), regularizer_family(first[REGULARIZERS_COLUMN]))
        found.setdefault(family, []).append(Setting(family, values, trials))
    order = sorted(found, key=lambda family: (*family[:3], family[3] != BASELINE, family[3]))
    return {family: _trim_parameters(found[family]) for family in order}


def _as_given(trials: pl.DataFrame) -> pl.DataFrame:
    """Put the rates in place of the margins that each seed's scores gave: one setting, not one a seed."""
    if GIVEN_COLUMN not in trials.columns:
        return trials
    given = pl.coalesce(GIVEN_COLUMN, REGULARIZERS_COLUMN).alias(REGULARIZERS_COLUMN)
    return trials.with_columns(given)


def eligible_settings(tried: Sequence[Setting], seeds: Iterable[int]) -> list[Setting]:
    """Return the settings that have a validation MAP@R for each of `seeds`: a diverged one cannot be chosen."""
    wanted = set(seeds)
    return [s for s in tried if wanted <= set(s.finished.drop_nulls(SELECTION_METRIC)["seed"]) and wanted]


def selection_seeds(tried: Sequence[Setting]) -> list[int]:
    """Return the seeds that every setting was to run, so that no setting is chosen for its luckier seeds."""
    return sorted(set.intersection(*(set(s.trials["seed"]) for s in tried)))


def best_setting(tried: Sequence[Setting], seeds: Iterable[int] | None = None) -> Setting | None:
    """Return the setting with the highest mean validation MAP@R over `seeds` (by default `selection_seeds`).

    The first of equals; None where none is eligible.
    """
    if not tried or SELECTION_METRIC not in tried[0].trials.columns:
        return None
    # The settings are sorted and `max` keeps the first of equals, so the order of the rows does not matter
    shared = selection_seeds(tried) if seeds is None else sorted(seeds)
    return max(
        eligible_settings(tried, shared), key=lambda s: s.mean(SELECTION_METRIC, shared) or 0.0, default=None
    )


def chosen_study(study: Study) -> Study:
    """Return the study as if each (loss, family) had only its chosen setting: variants are families, without axes."""
    chosen = [best for tried in tuned_settings(study).values() if (best := best_setting(tried)) is not None]
    if not chosen:
        return study
    axes = list(swept_axes(study.trials))
    tables = [s.trials.with_columns(pl.lit(s.family[3]).alias("variant")).drop(axes) for s in chosen]
    return replace(study, trials=pl.concat(tables).sort("trial_key"))


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """Return the values, each by the last part of its dotted path: `learning_rate=0.01, positive_margin=0.9`."""
    return ", ".join(f"{path.rsplit('.', 1)[-1]}={value_text(v)}" for path, v in parameters.items())


def rate_text(rate: Mapping[str, Any]) -> str:
    """Return a parameter that is given as a rate: `share_of_negatives:0.01`."""
    return "+".join(f"{kind}:{value_text(share)}" for kind, share in rate.items())


def displayed_study(study: Study) -> Study:
    """Return what tables and plots compare: all of it, or the chosen settings alone where part `margins` chooses."""
    return chosen_study(study) if "margins" in study.config.parts else study


def _parameters(regularizers: str | None) -> dict[str, Any]:
    return {
        f"{regularizer['name']}.{key}": rate_text(value) if isinstance(value, dict) else value
        for regularizer in json.loads(regularizers or "[]")
        for key, value in sorted(regularizer.get("params", {}).items())
    }


def _trim_parameters(tried: list[Setting]) -> list[Setting]:
    """Sort the settings and keep the parameters in which they differ; a single setting keeps all."""
    if len(tried) == 1:
        return tried
    names = dict.fromkeys(name for s in tried for name in s.parameters)
    kept = [name for name in names if len({json.dumps(s.parameters.get(name)) for s in tried}) > 1]
    trimmed = [replace(s, parameters={n: s.parameters[n] for n in kept if n in s.parameters}) for s in tried]
    return sorted(trimmed, key=lambda s: [_sort_key(s.parameters.get(name)) for name in kept])


def _sort_key(value: Any) -> tuple[bool, bool, Any]:
    """Order numbers by size, then texts, then missing values (left to their default)."""
    if value is None:
        return True, True, ""
    number = isinstance(value, int | float)
    return False, not number, value if number else str(value)
