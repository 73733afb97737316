"""Seconds from trial records to results: reading the records, the table, and all that the stage `aggregate` writes.

python -m benchmarks.aggregate [--trials 100 1000 10000]

The records are made up in the size of real ones (8 epochs of 27 metrics, 83 metrics at the end, utility at 101
thresholds), without and with TCM, 10 seeds each. Each count runs in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, pairwise, product
from pathlib import Path
from typing import Any

from dmlcore.analysis.results import read_study
from dmlcore.config.study import AggregateConfig
from dmlcore.core.io import write_atomically
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.report.outputs import write_results
from dmlcore.sweep.table import table_bytes, trials_table
from tests.analysis.synthetic import VARIANTS, dataset_info, regularizers, trial
from tests.small import small_trial

EPOCHS, METRICS = 8, 27
SEEDS = range(10)
DATASETS = ("cub200", "cars196", "sop", "inaturalist2018")
BACKBONES = tuple(f"backbone{number}" for number in range(5))
LOSSES = tuple(f"loss{number}" for number in range(25))
SPLITS = ("validation", "test", "untrained")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one)
        return
    print(
        "seconds; aggregate: what the stage does after its imports\n trials  records  to table  aggregate",
        flush=True,
    )
    for count in arguments.trials:
        subprocess.run([sys.executable, "-m", "benchmarks.aggregate", "--one", str(count)], check=True)


def measure(count: int) -> None:
    """Print one row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = RecordFolder(folder / "state" / "records")
        for record in islice(made_records(), count):
            records.write(record)
        times = [time.perf_counter()]
        found = records.all()
        times.append(time.perf_counter())
        rows = [(record.trial_key, record.labels, record.config, record) for record in found]
        write_atomically(folder / "results" / "trials.parquet", table_bytes(trials_table(rows)))
        described = {dataset: dataset_info() for dataset in DATASETS}
        (folder / "results" / "datasets.json").write_text(json.dumps(described))
        times.append(time.perf_counter())
        write_results(read_study(folder, AggregateConfig()), folder / "results")
        times.append(time.perf_counter())
    seconds = [after - before for before, after in pairwise(times)]
    print(f"{count:>7} {seconds[0]:>8.2f} {seconds[1]:>9.2f} {seconds[2]:>10.2f}", flush=True)


def made_records() -> Iterator[TrialRecord]:
    """10,000 records, both variants of a seed together."""
    for dataset, backbone, loss, seed, variant in product(DATASETS, BACKBONES, LOSSES, SEEDS, VARIANTS):
        yield made_record(trial(dataset, backbone, loss, variant, seed))


def made_record(row: dict[str, Any]) -> TrialRecord:
    """The record that the row of a table would come from, with as many metrics as a real one."""
    labels = {name: row[name] for name in ("dataset", "backbone", "loss", "variant", "seed")}
    config = small_trial(seed=row["seed"]).model_dump(mode="json", exclude_none=True)
    metrics = {name: value for name, value in row.items() if name.startswith(SPLITS)}
    metrics |= {f"{split}/further_{number}": number / 7 for split in SPLITS for number in range(METRICS - 6)}
    epoch = {f"validation/further_{number}": number / 7 for number in range(METRICS - 1)}
    return TrialRecord(
        trial_key=f"{row['trial_key']}-7488e813",
        train_key=row["trial_key"] * 4,
        eval_key="7488e813" * 8,
        status="finished",
        labels=labels,
        config=config | {"regularizers": regularizers(row["variant"])},
        curve=[
            epoch | {"validation/map_at_r": value} for value in row["curve/validation/map_at_r"][: EPOCHS + 1]
        ],
        metrics=metrics,
        utility={name.split("/")[1]: row[name] for name in row if name.startswith("utility/")},
    )


if __name__ == "__main__":
    main()
