"""The table of trials: never replaced by an empty one, and an empty one is no traceback of the stage that reads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl

from dmlcore.sweep.run import SweepFolders, publish
from tests.sweep.sweeps import plan_of, sweep_config

ROOT = Path(__file__).resolve().parents[2]


def test_a_table_is_not_replaced_by_an_empty_one(tmp_path, small_data, capsys):
    folders = SweepFolders(tmp_path / "study", small_data.folder.parent)
    publish(plan_of(sweep_config(), folders), folders)
    before = (folders.results / "trials.parquet").read_bytes()
    search = {"space": {"train.batch_size": {"values": [16, 32]}}, "trials": 2}
    publish(plan_of(sweep_config(search=search), folders), folders)
    assert (folders.results / "trials.parquet").read_bytes() == before
    assert "stays as it was" in capsys.readouterr().out


def test_a_table_without_trials_is_one_line_of_aggregate(tmp_path):
    (tmp_path / "results").mkdir()
    pl.DataFrame().write_parquet(tmp_path / "results" / "trials.parquet")
    (tmp_path / "params.yaml").write_text(
        "sweep: {study: a, datasets: [a], backbones: {a: {}}, losses: {a: {}}}"
    )
    command = [sys.executable, ROOT / "pipeline" / "aggregate.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("aggregate: ")
    assert "must have a trial" in done.stderr.splitlines()[-1]
