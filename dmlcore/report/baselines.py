"""What no training gives: raw pixels and untrained networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from dmlcore.report.protocol import protocol_line
from dmlcore.report.statistics import Estimate, t_interval
from dmlcore.report.study import Study

BASELINE_METRICS = ("map_at_r", "recall_at_1", "opis")


def baselines(study: Study) -> pl.DataFrame:
    """One row a data set for its raw pixels and one a data set x backbone for the untrained network, all on test.

    Columns: `dataset`, `baseline` (raw_pixels | untrained), `backbone` (null for raw pixels), `seeds` (null for raw
    pixels: nothing random in them), then for M in map_at_r, recall_at_1, opis: `test/M/mean`, and `test/M/low`,
    `test/M/high` = t-interval over seeds; `protocol`.
    """
    rows = []
    for dataset in sorted(set(study.trials["dataset"])):
        rows.append(_raw_pixels(study, dataset))
        backbones = study.trials.filter(pl.col("dataset") == dataset)["backbone"]
        rows += [_untrained(study, dataset, backbone) for backbone in sorted(set(backbones))]
    schema = {"dataset": pl.String, "baseline": pl.String, "backbone": pl.String, "seeds": pl.Int64}
    numbers = {f"test/{m}/{part}": pl.Float64 for m in BASELINE_METRICS for part in ("mean", "low", "high")}
    return pl.DataFrame(rows, schema={**schema, **numbers, "protocol": pl.String})


def untrained(study: Study, dataset: str, backbone: str, metric: str) -> Estimate:
    """`metric` of the network before training: mean and t-interval over seeds.

    The trials of a seed start from the same weights, so they count once: their mean (a swept axis such as the width
    may make them differ).
    """
    seeds: dict[int, list[float]] = {}
    for cell in study.cells:
        if (cell.dataset, cell.backbone) == (dataset, backbone):
            for seed, value in cell.pooled(f"untrained/{metric}").items():
                seeds.setdefault(seed, []).append(value)
    return t_interval([float(np.mean(seeds[s])) for s in sorted(seeds)], study.config.confidence)


def _raw_pixels(study: Study, dataset: str) -> dict[str, Any]:
    row: dict[str, Any] = {"dataset": dataset, "baseline": "raw_pixels"}
    row.update({f"test/{m}/mean": study.raw_pixels(dataset, m) for m in BASELINE_METRICS})
    return row | {"protocol": protocol_line(study, dataset)}


def _untrained(study: Study, dataset: str, backbone: str) -> dict[str, Any]:
    row: dict[str, Any] = {"dataset": dataset, "baseline": "untrained", "backbone": backbone}
    for metric in BASELINE_METRICS:
        estimate = untrained(study, dataset, backbone, metric)
        row |= {f"test/{metric}/{part}": getattr(estimate, part) for part in ("mean", "low", "high")}
        row["seeds"] = max(row.get("seeds", 0), estimate.seeds)
    return row | {"protocol": protocol_line(study, dataset)}
