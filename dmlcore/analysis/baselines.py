"""The scores without any training: raw pixels and untrained networks."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from dmlcore.analysis.metric_labels import METRICS
from dmlcore.analysis.protocol import protocol_line
from dmlcore.analysis.statistics import NO_ESTIMATE, Estimate, t_interval
from dmlcore.analysis.study import Study

BASELINE_METRICS = ("map_at_r", "recall_at_1", "opis")


def baselines(study: Study) -> pl.DataFrame:
    """Return one row a data set for its raw pixels and one a (data set, backbone) for the untrained network, on test.

    Columns: `dataset`, `baseline` (raw_pixels | untrained), `backbone` (null for raw pixels), `seeds` (null for raw
    pixels: nothing random in them), then for M in map_at_r, recall_at_1, opis: `test/M/mean`, and `test/M/low`,
    `test/M/high` = t-interval over seeds; `protocol`.
    """
    before, rows = untrained(study), []
    for dataset in sorted(set(study.trials["dataset"])):
        names = {"dataset": dataset, "protocol": protocol_line(study, dataset)}
        pixels = {f"test/{m}/mean": study.raw_pixels(dataset, m) for m in BASELINE_METRICS}
        rows.append({**names, "baseline": "raw_pixels", **pixels})
        for backbone in (backbone for name, backbone in before if name == dataset):
            found = before[dataset, backbone]
            row: dict[str, Any] = {**names, "baseline": "untrained", "backbone": backbone}
            row["seeds"] = max(found[metric].seeds for metric in BASELINE_METRICS)
            for metric in BASELINE_METRICS:
                row |= found[metric].columns(f"test/{metric}")
            rows.append(row)
    schema = {"dataset": pl.String, "baseline": pl.String, "backbone": pl.String, "seeds": pl.Int64}
    numbers = (name for metric in BASELINE_METRICS for name in NO_ESTIMATE.columns(f"test/{metric}"))
    return pl.DataFrame(rows, schema={**schema, **dict.fromkeys(numbers, pl.Float64), "protocol": pl.String})


def untrained(study: Study) -> dict[tuple[str, str], dict[str, Estimate]]:
    """Return (data set, backbone) -> metric -> its mean and t-interval over seeds before training, on test."""
    done = study.trials.filter(status="finished")
    columns = {m: f"untrained/{m}" for m in METRICS if f"untrained/{m}" in done.columns}
    # The trials of a seed start from the same weights, so they count once: by their mean, as a swept axis such as the
    # embedding width may make them differ
    seeds = done.group_by("dataset", "backbone", "seed").agg(pl.col(columns.values()).mean()).sort("seed")
    found = {}
    for dataset, backbone in sorted(set(study.trials.select("dataset", "backbone").iter_rows())):
        rows = seeds.filter(dataset=dataset, backbone=backbone)
        values = {m: rows[columns[m]].to_list() if m in columns else [] for m in METRICS}
        found[dataset, backbone] = {
            m: t_interval(
                [v for v in values[m] if v is not None and math.isfinite(v)], study.config.confidence
            )
            for m in METRICS
        }
    return found
