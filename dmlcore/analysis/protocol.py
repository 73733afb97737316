"""How the numbers came about: the protocol line that accompanies each, shared settings, versions and processors."""

from __future__ import annotations

import json

import polars as pl

from dmlcore.analysis.metric_labels import format_percent, one_line, value_text
from dmlcore.analysis.study import Study, cached_per_study, config_columns
from dmlcore.records import RecordError, RecordFolder

FAR_RANGE_COLUMN = "config/evaluation.far_range"
MAX_LISTED_SEEDS = 8
MAX_RECORDS = 1_000
"""Trial records that are read for the versions and processors, so that a page of 10,000 trials need not wait."""


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


def shared_settings(study: Study) -> list[tuple[str, str]]:
    """List (config path, value) of every setting that all trials have in common."""
    trials = study.trials
    values = {
        column: trials[column].unique(maintain_order=True).to_list() for column in config_columns(trials)
    }
    return [
        (column.removeprefix("config/"), value_text(found[0]))
        for column, found in values.items()
        if len(found) == 1 and found[0] is not None
    ]


def environment(study: Study) -> list[tuple[str, str]]:
    """List (name, values over the records) of versions and processors, without hosts and dates.

    Empty where the records are not on this machine; of more than MAX_RECORDS every n-th is read.
    """
    if study.records is None or not study.records.is_dir():
        return []
    folder, found = RecordFolder(study.records), dict[str, set[str]]()
    keys = study.trials["trial_key"].to_list()
    for key in keys[:: -(-len(keys) // MAX_RECORDS) or 1]:
        try:
            record = folder.read(key)
        except RecordError:
            continue  # no key, or unreadable, which the sweep replaces; the trial is in the table all the same
        if record is not None:
            machine = {k: v for k in ("processor", "cpus", "gpu") if (v := record.machine.get(k))}
            for name, value in {**record.versions, **machine}.items():
                found.setdefault(name, set()).add(value_text(value))
    return [(name, ", ".join(sorted(values))) for name, values in sorted(found.items())]
