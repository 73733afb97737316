"""Search and early stopping through Ray: what runs, what MLflow shows, and a kill in mid-search."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import polars as pl
import pytest
from mlflow import MlflowClient

from dmlcore.records import RecordFolder
from dmlcore.sweep.run import SweepFolders, run_sweep
from dmlcore.sweep.search.log import SearchLog
from dmlcore.tracking import MlflowTracker
from tests.memory_tracker import MemoryTracker
from tests.sweep.search.searches import RATE, SEARCH, search_here, searching
from tests.sweep.sweeps import sweep_config

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ONE_AT_A_TIME = {"gpus": 0.0, "max_concurrent": 1}


@pytest.fixture
def folders(tmp_path, small_data):
    return SweepFolders(tmp_path / "study", small_data.folder.parent)


def asks(folders):
    return {
        path.name: [ask.trial_key for ask in SearchLog(path).asks()]
        for path in sorted((folders.state / "search").glob("*.jsonl"))
    }


def config_of(**changes):
    """Two variants x 4 settings, the weaker half stopped at epoch 1, the chosen at two seeds."""
    return searching({"trials": 4}, stop_early={"grace_epochs": 1, "reduction_factor": 2}, **changes)


def test_a_search_through_ray(folders):
    tracker = MlflowTracker.for_study("search", folders.state, None)
    plan = run_sweep(config_of(), folders, tracker)
    assert not plan.missing
    assert [len(keys) for keys in asks(folders).values()] == [4, 4]
    records = plan.records
    assert len(records) == len({key for keys in asks(folders).values() for key in keys}) + 2
    stopped = {key for key, record in records.items() if record.status == "stopped"}
    assert stopped
    assert all(len(records[key].curve) == 2 for key in stopped)
    assert sum(record.labels["role"] == "chosen" for record in records.values()) == 4
    assert RecordFolder(folders.records).all() == sorted(records.values(), key=lambda r: r.trial_key)

    client = MlflowClient(f"sqlite:///{folders.state / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("dmlcore/search")
    runs = {run.data.tags["trial_key"]: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == records.keys()
    for key, run in runs.items():
        assert run.info.status == ("KILLED" if key in stopped else "FINISHED")
        assert run.data.tags["role"] == records[key].labels["role"]
        assert run.info.run_name == records[key].name
        assert run.data.tags["trial_status"] == records[key].status
        assert run.data.tags.get("error") == records[key].error

    before = {path.name: path.read_bytes() for path in folders.records.glob("*.json")}
    silent = MemoryTracker()
    run_sweep(config_of(), folders, silent)
    assert silent.started == []
    assert {path.name: path.read_bytes() for path in folders.records.glob("*.json")} == before


def test_early_stopping_works_on_a_grid(folders):
    rates = [3.0e-2, 1.0e-2, 1.0e-6, 1.0e-7]
    config = sweep_config(
        regularizers=[[]],
        axes={RATE: rates},
        stop_early={"grace_epochs": 1, "reduction_factor": 2},
        resources=ONE_AT_A_TIME,
    )
    plan = run_sweep(config, folders, MemoryTracker())
    status = {t.cell.config.train.optimizer.learning_rate: plan.records[t.key].status for t in plan.trials}
    assert status[rates[0]] == "finished"
    assert [status[rate] for rate in rates[2:]] == ["stopped", "stopped"]
    assert not plan.missing
    table = pl.read_parquet(folders.results / "trials.parquet")
    assert table.filter(status="stopped")["error"].str.contains("rung 1").all()


def test_settings_whose_process_dies_are_failed_and_tried_again(folders):
    rate = {"space": {RATE: SEARCH["space"][RATE]}, "trials": 2}
    few = {"regularizers": [[]], "seeds": [0]}
    strict = ONE_AT_A_TIME | {"time_limit_seconds": 0.01}
    plan = run_sweep(searching(rate, **few, resources=strict, attempts=1), folders, MemoryTracker())
    assert [plan.records[trial.key].status for trial in plan.trials] == ["failed", "failed"]
    assert all(record.error.startswith("time limit") for record in plan.records.values())
    before = asks(folders)
    again = search_here(searching(rate, **few), folders)
    assert [record.status for record in again] == ["finished", "finished"]
    assert [record.trial_key for record in again] == [trial.key for trial in plan.trials]
    assert asks(folders) == before


def sweep(study: str, prepared: str) -> None:
    run_sweep(config_of(resources=ONE_AT_A_TIME), SweepFolders(Path(study), Path(prepared)), MemoryTracker())


def told(records):
    return {
        record.trial_key: (record.status, record.error, record.curve, record.metrics) for record in records
    }


def test_a_search_that_is_killed_goes_on_to_the_same_trials(folders, tmp_path):
    """SIGKILL of the driver while the search's fourth trial runs; the other search is run in this process."""
    whole = SweepFolders(tmp_path / "whole", folders.prepared)
    expected = search_here(config_of(), whole)

    driver = multiprocessing.get_context("spawn").Process(
        target=sweep, args=(str(folders.study), str(folders.prepared))
    )
    driver.start()
    deadline = time.monotonic() + 120
    while sum(map(len, asks(folders).values())) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.join()
    assert 0 < len(RecordFolder(folders.records).all()) < len(expected)

    sweep(str(folders.study), str(folders.prepared))
    assert asks(folders) == asks(whole)
    assert told(RecordFolder(folders.records).all()) == told(expected)
