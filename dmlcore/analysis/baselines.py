"""What no training gives: raw pixels and untrained networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from dmlcore.analysis.metric_labels import METRICS
from dmlcore.analysis.protocol import protocol_line
from dmlcore.analysis.statistics import Estimate, t_interval
from dmlcore.analysis.study import Study

BASELINE_METRICS = ("map_at_r", "recall_at_1", "opis")


def baselines(study: Study) -> pl.DataFrame:
    """One row a data set for its raw pixels and one a data set x backbone for the untrained network, all on test.

    Columns: `dataset`, `baseline` (raw_pixels | untrained), `backbone` (null for raw pixels), `seeds` (null for raw
    pixels: nothing random in them), then for M in map_at_r, recall_at_1, opis: `test/M/mean`, and `test/M/low`,
    `test/M/high` = t-interval over seeds; `protocol`.
    """
    rows, before = [], untrained(study)
    for dataset in sorted(set(study.trials["dataset"])):
        rows.append(_raw_pixels(study, dataset))
        rows += [_untrained(study, place, found) for place, found in before.items() if place[0] == dataset]
    schema = {"dataset": pl.String, "baseline": pl.String, "backbone": pl.String, "seeds": pl.Int64}
    numbers = {f"test/{m}/{part}": pl.Float64 for m in BASELINE_METRICS for part in ("mean", "low", "high")}
    return pl.DataFrame(rows, schema={**schema, **numbers, "protocol": pl.String})


def untrained(study: Study) -> dict[tuple[str, str], dict[str, Estimate]]:
    """(data set, backbone) -> metric -> its mean and t-interval over seeds before training, on test.

    The trials of a seed start from the same weights, so they count once: their mean (a swept axis such as the width
    may make them differ).
    """
    done = study.trials.filter(pl.col("status") == "finished")
    columns = {m: f"untrained/{m}" for m in METRICS if f"untrained/{m}" in done.columns}
    seeds = done.group_by("dataset", "backbone", "seed").agg(pl.col(columns.values()).mean()).sort("seed")
    found = {}
    for place in sorted(set(study.trials.select("dataset", "backbone").iter_rows())):
        rows = seeds.filter(dataset=place[0], backbone=place[1])
        values = {
            m: [value for value in rows[columns[m]] if value is not None and math.isfinite(value)]
            if m in columns
            else []
            for m in METRICS
        }
        found[place] = {m: t_interval(values[m], study.config.confidence) for m in METRICS}
    return found


def _raw_pixels(study: Study, dataset: str) -> dict[str, Any]:
    row: dict[str, Any] = {"dataset": dataset, "baseline": "raw_pixels"}
    row.update({f"test/{m}/mean": study.raw_pixels(dataset, m) for m in BASELINE_METRICS})
    return row | {"protocol": protocol_line(study, dataset)}


def _untrained(study: Study, place: tuple[str, str], found: Mapping[str, Estimate]) -> dict[str, Any]:
    row: dict[str, Any] = {"dataset": place[0], "baseline": "untrained", "backbone": place[1]}
    for metric in BASELINE_METRICS:
        row |= {f"test/{metric}/{part}": getattr(found[metric], part) for part in ("mean", "low", "high")}
    row["seeds"] = max(found[metric].seeds for metric in BASELINE_METRICS)
    return row | {"protocol": protocol_line(study, place[0])}
