"""The scores without any training: raw pixels, untrained networks, pretrained features without a head."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from dmlcore.analysis.metric_labels import METRICS
from dmlcore.analysis.protocol import protocol_line
from dmlcore.analysis.statistics import NO_ESTIMATE, Estimate, t_interval
from dmlcore.analysis.study import Study

BASELINE_METRICS = ("map_at_r", "recall_at_1", "opis")
UNTRAINED, FEATURES = "untrained", "features"
"""What a trial measures before it trains: its network; a pretrained backbone's pooled features, without a head."""


def baselines(study: Study) -> pl.DataFrame:
    """Return one row a data set for its raw pixels and up to two a (data set, backbone), on test.

    Columns: `dataset`, `baseline` (raw_pixels | untrained | features), `backbone` (null for raw pixels), `seeds` (null
    for raw pixels: nothing random in them), then for M in map_at_r, recall_at_1, opis: `test/M/mean`, and
    `test/M/low`, `test/M/high` = t-interval over seeds; `protocol`.
    """
    before = {kind: before_training(study, kind) for kind in (UNTRAINED, FEATURES)}
    rows = []
    for dataset in sorted(set(study.trials["dataset"])):
        names = {"dataset": dataset, "protocol": protocol_line(study, dataset)}
        pixels = {f"test/{m}/mean": study.raw_pixels(dataset, m) for m in BASELINE_METRICS}
        rows.append({**names, "baseline": "raw_pixels", **pixels})
        for kind, found in before.items():
            for backbone in (backbone for name, backbone in found if name == dataset):
                values = found[dataset, backbone]
                row: dict[str, Any] = {**names, "baseline": kind, "backbone": backbone}
                row["seeds"] = max(values[metric].seeds for metric in BASELINE_METRICS)
                for metric in BASELINE_METRICS:
                    row |= values[metric].columns(f"test/{metric}")
                if kind == UNTRAINED or row["seeds"]:
                    rows.append(row)
    schema = {"dataset": pl.String, "baseline": pl.String, "backbone": pl.String, "seeds": pl.Int64}
    numbers = (name for metric in BASELINE_METRICS for name in NO_ESTIMATE.columns(f"test/{metric}"))
    return pl.DataFrame(rows, schema={**schema, **dict.fromkeys(numbers, pl.Float64), "protocol": pl.String})


def before_training(study: Study, kind: str) -> dict[tuple[str, str], dict[str, Estimate]]:
    """Return (data set, backbone) -> metric -> its mean and t-interval over seeds before training, on test.

    Args:
        study: the results.
        kind: UNTRAINED or FEATURES.
    """
    done = study.trials.filter(status="finished")
    columns = {m: f"{kind}/{m}" for m in METRICS if f"{kind}/{m}" in done.columns}
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
