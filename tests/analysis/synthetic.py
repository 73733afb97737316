"""A made-up study with the columns of results/trials.parquet and the numbers of a real one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from dmlcore.analysis.study import Study
from dmlcore.config.study import AggregateConfig

TCM = "tcm(negative_margin=0.5,positive_margin=0.9)"
VARIANTS = ("baseline", TCM)
BACKBONES = ("resnet10t", "vit_tiny")
LOSSES = ("recall_at_k", "smooth_ap")


def trial(dataset: str, backbone: str, loss: str, variant: str, seed: int, **config: Any) -> dict[str, Any]:
    """One finished row; its numbers depend on its names and seed alone."""
    cell = np.random.default_rng([*(dataset + backbone + loss).encode()])
    noise = np.random.default_rng([*(dataset + backbone + loss + variant).encode(), seed])
    on = variant != "baseline"
    map_at_r = 0.35 + 0.2 * cell.random() + 0.01 * on + 0.006 * noise.normal()
    opis = 0.012 + 0.02 * cell.random() * (0.5 if on else 1.0) + 0.0008 * noise.normal()
    low = 0.3 + 0.2 * on + 0.02 * noise.normal()
    thresholds = np.linspace(low, low + 0.25, 101)
    mean = 0.9 - 3.0 * (thresholds - low - 0.12) ** 2 - (0.02 if on else 0.0)
    half = np.sqrt(opis) * (1 + (thresholds - low))
    return {
        "trial_key": hashlib.sha256(
            repr((dataset, backbone, loss, variant, seed, config)).encode()
        ).hexdigest()[:16],
        "status": "finished",
        "error": None,
        "dataset": dataset,
        "backbone": backbone,
        "loss": loss,
        "variant": variant,
        "seed": seed,
        "config/seed": seed,
        "config/loss.name": loss,
        "config/train.epochs": 10,
        "config/evaluation.far_range": json.dumps([0.01, 0.1]),
        "config/regularizers": json.dumps(regularizers(variant)),
        **{f"config/{path}": value for path, value in config.items()},
        "test/map_at_r": map_at_r,
        "test/recall_at_1": map_at_r + 0.2 + 0.004 * noise.normal(),
        "test/opis": opis,
        "test/opis_corrected": opis - 0.006,
        "test/opis_validation_range": opis * 1.2,
        "test/distance_min": thresholds[0],
        "test/distance_max": thresholds[-1],
        "untrained/map_at_r": 0.02 + 0.001 * seed,
        "untrained/recall_at_1": 0.09 + 0.002 * seed,
        "untrained/opis": 0.05 + 0.001 * seed,
        "validation/map_at_r": map_at_r + 0.05,
        "validation/opis_corrected": opis - 0.005,
        "curve/validation/map_at_r": [
            0.01,
            *np.geomspace(0.5, 1.0, 7) * (map_at_r + 0.05),
            *[map_at_r + 0.05] * 3,
        ],
        "curve/validation/opis_corrected": [0.05, *np.geomspace(0.04, opis, 9) - 0.005, opis - 0.005],
        "validation/best_epoch": 8.0,
        "utility/thresholds": thresholds.tolist(),
        "utility/mean": mean.tolist(),
        "utility/low": np.clip(mean - 1.6 * half, 0, 1).tolist(),
        "utility/high": np.clip(mean + half, 0, 1).tolist(),
    }


def regularizers(variant: str) -> list[dict[str, Any]]:
    """What the config of a variant labelled `name(key=number,...)` holds."""
    if variant == "baseline":
        return []
    name, _, rest = variant.partition("(")
    pairs = (part.partition("=") for part in rest.rstrip(")").split(",") if "=" in part)
    return [{"name": name, "params": {key: float(value) for key, _, value in pairs}}]


def unfinished(
    row: dict[str, Any], status: str = "failed", error: str | None = "ValueError: loss is NaN"
) -> dict[str, Any]:
    """`row` as a trial without metrics."""
    kept = {name: value for name, value in row.items() if "/" not in name or name.startswith("config/")}
    return {**dict.fromkeys(row), **kept, "status": status, "error": error}


def rows(
    datasets: Iterable[str] = ("glyphs",),
    backbones: Iterable[str] = BACKBONES,
    losses: Iterable[str] = LOSSES,
    variants: Iterable[str] = VARIANTS,
    seeds: Iterable[int] = (0, 1, 2),
    **config: Any,
) -> list[dict[str, Any]]:
    """All combinations, finished."""
    return [
        trial(d, b, loss, a, s, **config)
        for d in datasets
        for b in backbones
        for loss in losses
        for a in variants
        for s in seeds
    ]


def table(found: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows as trials.parquet holds them: sorted by key."""
    return pl.DataFrame(found, infer_schema_length=None).sort("trial_key")


def dataset_info(protocol: str = "disjoint classes: 884 train, 177 validation, 354 test") -> dict[str, Any]:
    return {
        "protocol": protocol,
        "raw_pixels": {"test/recall_at_1": 0.081, "test/map_at_r": 0.018, "test/opis": 0.043},
    }


def longer_runs_of(found: list[dict[str, Any]]) -> pl.DataFrame:
    """A run of each data set and backbone, three times as long, that ends where the study's own did."""
    done = sorted((row for row in found if row["status"] == "finished"), key=lambda row: row["trial_key"])
    first = {(row["dataset"], row["backbone"]): row for row in done}  # whatever the order of the rows
    longer = [row | {"config/train.epochs": 30, "role": "longer"} for row in first.values()]
    return table(longer) if longer else table(found).clear()


def study(
    found: list[dict[str, Any]], config: AggregateConfig | None = None, *, checked: bool = True
) -> Study:
    """The rows as a study, with a description of each data set and, if `checked`, the longer runs that it needs."""
    datasets = {row["dataset"]: dataset_info() for row in found}
    longer = longer_runs_of(found) if checked else None
    return Study(table(found), datasets, config or AggregateConfig(), longer=longer)
