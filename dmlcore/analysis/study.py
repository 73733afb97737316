"""The results of a study, grouped into cells: a cell is a (data set, backbone, loss, swept axes) with its variants."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import polars as pl

from dmlcore.analysis.statistics import Estimate, t_interval
from dmlcore.config.study import AggregateConfig

T = TypeVar("T")
BASELINE = "baseline"
CELL_COLUMNS = ("dataset", "backbone", "loss")
REQUIRED_COLUMNS = ("trial_key", "status", "error", *CELL_COLUMNS, "variant", "seed")
NON_AXIS_COLUMNS = ("config/seed", "config/regularizers")
SEARCH_PREFIX = "search/"
"""Of the columns that a search varied: `search/PATH` is the value at a dotted config path."""


@dataclass(frozen=True)
class Cell:
    """What the variants of a comparison share."""

    dataset: str
    backbone: str
    loss: str
    axes: Mapping[str, Any]
    """Swept config path -> value, for the paths that vary within a (data set, backbone, loss)."""
    variants: Mapping[str, pl.DataFrame]
    """Variant -> its planned trials, sorted by seed; `baseline` first."""

    @property
    def names(self) -> dict[str, str]:
        """The columns of a table that name the cell, but for its axes."""
        return {"dataset": self.dataset, "backbone": self.backbone, "loss": self.loss}

    @property
    def axes_text(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.axes.items())

    @property
    def loss_text(self) -> str:
        """The loss, with the swept axes where there are any."""
        return ", ".join(part for part in (self.loss, self.axes_text) if part)

    @property
    def title(self) -> str:
        return f"{self.dataset}, {self.backbone}, {self.loss_text}"

    @property
    def axis_columns(self) -> dict[str, str | None]:
        """The swept axes as columns of a table: `axis/PATH` -> the value as text."""
        return {f"axis/{path}": None if value is None else str(value) for path, value in self.axes.items()}

    def values(self, variant: str, metric: str) -> Mapping[int, float]:
        """Return seed -> finite value of `metric` (a column) over the finished trials of `variant`."""
        if (variant, metric) not in self._values:
            done = self.finished.get(variant)
            self._values[variant, metric] = {} if done is None else finite_values(done, metric)
        return self._values[variant, metric]

    @cached_property
    def _values(self) -> dict[tuple[str, str], dict[int, float]]:
        """What `values` has read: tables, plots and sentences ask for the same columns."""
        return {}

    def mean(self, variant: str, metric: str) -> float | None:
        """Return the mean of `values`; None where there are none."""
        values = self.values(variant, metric).values()
        return fmean(values) if values else None

    def estimate(self, variant: str, metric: str, confidence: float) -> Estimate:
        return t_interval(list(self.values(variant, metric).values()), confidence)

    @cached_property
    def finished(self) -> dict[str, pl.DataFrame]:
        """The finished trials of each variant."""
        return {variant: trials.filter(status="finished") for variant, trials in self.variants.items()}

    def pooled(self, metric: str) -> dict[int, float]:
        """Return seed -> value of a `metric` that no variant changes (`untrained/...`), from any that has it."""
        # Reversed, so that the baseline's value wins
        values = [self.values(variant, metric) for variant in reversed(list(self.variants))]
        return {seed: value for found in values for seed, value in found.items()}


@dataclass(frozen=True)
class Study:
    """The results of a study: all that `aggregate` reads."""

    trials: pl.DataFrame
    datasets: Mapping[str, Mapping[str, Any]]
    config: AggregateConfig = field(default_factory=AggregateConfig)
    storage: Path | None = None
    """The folder of checkpoints and embeddings of the sweep, for the figures that draw them."""
    prepared: Path | None = None
    """The folder of prepared data sets, for the page's images."""
    records: Path | None = None
    """The folder of trial records, for the versions that the page names."""
    searched: pl.DataFrame | None = None
    """Trials of a search that are in no comparison: of settings that it did not choose, and of the chosen ones at the
    seed of the search."""
    longer: pl.DataFrame | None = None
    """Trials of `sweep.longer_run` and `aggregate.longer_run`, which check convergence and are in no comparison."""

    def __post_init__(self) -> None:
        _check_columns(self.trials, self.config)
        _check_datasets(self.trials, self.datasets)

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell of the plan, sorted by its names and axes."""
        # One sort and one partition: a filter for each cell and variant would read the table once for each
        keys = [*CELL_COLUMNS, *(axes := swept_axes(self.trials))]
        trials = self.trials.sort([*keys, "variant", "seed"], nulls_last=True)
        groups: dict[tuple[Any, ...], list[pl.DataFrame]] = {}
        for variant_trials in trials.partition_by([*keys, "variant"], maintain_order=True):
            groups.setdefault(tuple(variant_trials[key][0] for key in keys), []).append(variant_trials)
        return [_cell(group, axes) for group in groups.values()]

    @property
    def variants(self) -> list[str]:
        return baseline_first(self.trials["variant"].unique().to_list())

    def raw_pixels(self, dataset: str, metric: str) -> float | None:
        """Return `metric` (such as `opis`) of the raw pixels of `dataset` on its test split; None if not measured."""
        return self.datasets[dataset].get("raw_pixels", {}).get(f"test/{metric}")


def finite_values(trials: pl.DataFrame, metric: str) -> dict[int, float]:
    """Return seed -> finite value of `metric`; empty where no column has this name."""
    if metric not in trials.columns:
        return {}
    pairs = zip(trials["seed"].to_list(), trials[metric].to_list(), strict=True)
    return {seed: float(v) for seed, v in pairs if v is not None and math.isfinite(v)}


def cached_per_study(function: Callable[[Study], T]) -> Callable[[Study], T]:
    """Cache the result of `function` in the study, which is immutable."""

    # `functools.cache` would need a hash of the study and would keep it alive after its last use
    @wraps(function)
    def cached(study: Study) -> T:
        results: dict[Callable[[Study], T], T] = study.__dict__.setdefault("_results", {})
        if function not in results:
            results[function] = function(study)
        return results[function]

    return cached


def swept_axes(trials: pl.DataFrame) -> dict[str, str]:
    """Return config column -> dotted path of what varies within a (data set, backbone, loss).

    Variants, seeds and what a search varied are no axes.
    """
    # A search may choose another value for each variant, which as an axis would part a variant from its baseline
    searched = {c.replace(SEARCH_PREFIX, "config/", 1) for c in trials.columns if c.startswith(SEARCH_PREFIX)}
    columns = [c for c in config_columns(trials) if c not in searched]
    counts = trials.group_by(CELL_COLUMNS).agg(pl.col(columns).n_unique()) if columns else trials
    return {c: c.removeprefix("config/") for c in columns if (counts[c] > 1).any()}


def config_columns(trials: pl.DataFrame) -> list[str]:
    """Return the columns of the config but those of seed and regularisers, which tables name apart."""
    return [c for c in trials.columns if c.startswith("config/") and not c.startswith(NON_AXIS_COLUMNS)]


def _cell(group: list[pl.DataFrame], axes: Mapping[str, str]) -> Cell:
    """Make the cell of the trials of each of its variants."""
    first = {name: group[0][name][0] for name in (*CELL_COLUMNS, *axes)}
    by_variant = {trials["variant"][0]: trials for trials in group}
    variants = {variant: by_variant[variant] for variant in baseline_first(by_variant)}
    for variant, trials in variants.items():
        if trials["seed"].n_unique() < trials.height:
            raise ValueError(
                f"a (data set, backbone, loss, axes, variant) must have each seed once, got {trials['seed'].to_list()} "
                f"for {[first[c] for c in CELL_COLUMNS]}, variant {variant!r}: {trials['trial_key'].to_list()}"
            )
    values = {path: first[c] for c, path in axes.items()}
    return Cell(**{c: first[c] for c in CELL_COLUMNS}, axes=values, variants=variants)


def baseline_first(variants: Iterable[str]) -> list[str]:
    """Return names in the order of the alphabet, after `baseline`."""
    return sorted(variants, key=lambda variant: (variant != BASELINE, variant))


def _check_columns(trials: pl.DataFrame, config: AggregateConfig) -> None:
    missing = [c for c in REQUIRED_COLUMNS if c not in trials.columns]
    if missing:
        raise ValueError(f"trials.parquet must have the columns {list(REQUIRED_COLUMNS)}, lacks {missing}")
    finished = (trials["status"] == "finished").any()
    for key, column in (("accuracy", config.accuracy), ("inconsistency", config.inconsistency)):
        if finished and column not in trials.columns:
            known = sorted(c for c in trials.columns if c.startswith(("test/", "validation/")))
            raise ValueError(f"`aggregate.{key}` must be a metric of the trials {known}, got {column!r}")


def _check_datasets(trials: pl.DataFrame, datasets: Mapping[str, Any]) -> None:
    missing = sorted(set(trials["dataset"]) - set(datasets))
    if missing:
        raise ValueError(
            f"datasets.json must describe each data set of the trials, lacks {missing}; run the sweep again"
        )
