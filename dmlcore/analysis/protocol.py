"""The protocol line that accompanies every number."""

from __future__ import annotations

import json

import polars as pl

from dmlcore.analysis.metric_labels import format_percent, one_line
from dmlcore.analysis.study import Study, cached_per_study

FAR_RANGE_COLUMN = "config/evaluation.far_range"
MAX_LISTED_SEEDS = 8


def protocol_line(study: Study, dataset: str) -> str:
    """Return split, selection metric, seeds, calibration range and kind of interval behind the numbers of `dataset`."""
    return _lines(study)[dataset]


def protocol_text(study: Study) -> str:
    """Return one protocol line a data set."""
    return "\n".join(_lines(study).values())


@cached_per_study
def _lines(study: Study) -> dict[str, str]:
    return {dataset: _line(study, dataset) for dataset in sorted(set(study.trials["dataset"]))}


def _line(study: Study, dataset: str) -> str:
    trials = study.trials.filter(pl.col("dataset") == dataset)
    split = one_line(study.datasets[dataset].get("protocol", "split not described"), 300).rstrip(".;")
    return "; ".join(
        [
            f"{dataset}: {split}",
            "epoch chosen by validation MAP@R",
            f"seeds {_seeds(sorted(set(trials['seed'])))}",
            f"calibration range {_far_range(trials)}",
            f"mean and {format_percent(study.config.confidence)} t-interval over seeds",
        ]
    )


def _seeds(seeds: list[int]) -> str:
    if len(seeds) > MAX_LISTED_SEEDS:
        return f"{seeds[0]} to {seeds[-1]} ({len(seeds)} of them)"
    return ", ".join(str(seed) for seed in seeds)


def _far_range(trials: pl.DataFrame) -> str:
    if FAR_RANGE_COLUMN not in trials.columns:
        return "not recorded"
    ranges = sorted(set(trials[FAR_RANGE_COLUMN].drop_nulls()))
    texts = ["FAR {:g} to {:g}".format(*json.loads(text)) for text in ranges]
    return " / ".join(texts) + " of the test negatives"
