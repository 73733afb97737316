"""Reading the results of a study: which of its trials are compared, and which only led to them."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from dmlcore.analysis.study import Study
from dmlcore.config.study import AggregateConfig
from dmlcore.config.sweep import LONGER_ROLE


def read_study(
    folder: Path, config: AggregateConfig, storage: str | None = None, prepared: Path | None = None
) -> Study:
    """Read the results that the sweep stage wrote to `folder`/results.

    Args:
        folder: of the study.
        config: its `aggregate` section.
        storage: as in its params, relative to `folder`.
        prepared: the folder of prepared data sets.

    Raises:
        ValueError: no trials; a search has not chosen a setting yet; a column, metric or data set is missing.
    """
    results = folder / "results"
    if (table := pl.read_parquet(results / "trials.parquet")).is_empty():
        raise ValueError(f"{results}/trials.parquet must have a trial; run the stage sweep again")
    table, longer = _without_longer(table)
    trials, searched = _without_searched(table, config)
    datasets = json.loads((results / "datasets.json").read_text(encoding="utf-8"))
    stored, records = folder / storage if storage else None, folder / "state" / "records"
    if config.longer_run is not None:
        others = pl.read_parquet(folder / config.longer_run / "results/trials.parquet")
        longer = others if longer is None else pl.concat([longer, others], how="diagonal_relaxed")
    return Study(trials, datasets, config, stored, prepared, records, searched, longer)


def _without_longer(table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Separate the longer runs of `sweep.longer_run`, which are in no comparison."""
    if "role" not in table.columns:
        return table, None
    longer = table.filter(pl.col("role") == LONGER_ROLE)
    rest = table.filter(pl.col("role").ne_missing(LONGER_ROLE))
    if rest["role"].is_null().all():  # a grid has no other roles
        rest = rest.drop("role")
    return rest, None if longer.is_empty() else longer


def _without_searched(
    trials: pl.DataFrame, config: AggregateConfig
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Separate the trials to compare from those of a search that led to them."""
    if "role" not in trials.columns:
        return trials, None
    chosen = trials.filter(role="chosen")
    if chosen.is_empty():
        raise ValueError(
            "nothing to compare: the search has not chosen a setting yet "
            f"({trials.height} were tried); resume it with `dvc repro`"
        )
    compared = chosen if config.count_search_seed else _at_other_seeds(chosen)
    return compared, trials.filter(~pl.col("trial_key").is_in(compared["trial_key"].implode()))


def _at_other_seeds(chosen: pl.DataFrame) -> pl.DataFrame:
    """Leave out the seed at which the settings were chosen: the best of many tries owes some of its score to luck.

    Where a study has no other seed, all that there is is compared, and its sentences say so.
    """
    if "search_seed" not in chosen.columns:
        return chosen
    fresh = chosen.filter(pl.col("seed") != pl.col("search_seed"))
    return chosen if fresh.is_empty() else fresh
