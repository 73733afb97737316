"""`dvc repro` as a user runs it: from images to the table, through a kill -9, and only what changed after that."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from mlflow import MlflowClient

from tests.checkout import SWEEP, Checkout, stage_process

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp("checkout"))


def wait_for_records(checkout, count, process):
    deadline = time.monotonic() + 300
    while len(checkout.records()) < count:
        assert process.poll() is None, (checkout.folder / "dvc.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def runs(checkout):
    client = MlflowClient(f"sqlite:///{checkout.folder / 'state' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("dmlcore/test")
    return client, client.search_runs([experiment.experiment_id])


def test_kill_nine_in_mid_sweep_loses_and_repeats_nothing(checkout):
    process = checkout.start("repro")
    wait_for_records(checkout, 2, process)
    stage = stage_process(process, "pipeline/sweep.py")
    os.kill(stage.pid, signal.SIGKILL)
    assert process.wait(timeout=120) != 0
    time.sleep(3.0)  # Ray's workers notice that their driver is gone
    before = checkout.records()
    assert 2 <= len(before) < 6, "the kill must come in mid-sweep"

    done = checkout.dvc("repro")
    assert done.returncode == 0, done.stdout + done.stderr
    after = checkout.records()
    assert {name: after[name] for name in before} == before
    assert len(after) == 6
    table = pl.read_parquet(checkout.folder / "results" / "trials.parquet")
    assert table["status"].to_list() == ["finished"] * 6
    assert f"{6 - len(before)} to run" in done.stdout


def test_mlflow_has_one_run_a_trial_with_no_step_twice(checkout):
    client, found = runs(checkout)
    keys = [run.data.tags["trial_key"] for run in found]
    assert sorted(f"{key}.json" for key in keys) == sorted(checkout.records())
    assert {run.info.status for run in found} == {"FINISHED"}
    for run in found:
        history = client.get_metric_history(run.info.run_id, "validation/map_at_r")
        assert sorted(point.step for point in history) == [0, 1, 2, 3]
        assert "test/opis" in run.data.metrics
        assert any(item.path == "utility_curve.png" for item in client.list_artifacts(run.info.run_id))


def test_mlflow_has_the_model_of_the_best_trial_on_validation(checkout):
    client, found = runs(checkout)
    models = client.search_logged_models([found[0].info.experiment_id])
    best = max(found, key=lambda run: max(point.value for point in history(client, run)))
    assert [(model.source_run_id, str(model.status)) for model in models] == [(best.info.run_id, "READY")]


def history(client, run):
    return client.get_metric_history(run.info.run_id, "validation/map_at_r")


def test_a_second_repro_runs_nothing(checkout):
    done = checkout.dvc("repro")
    assert done.returncode == 0
    assert "Running stage" not in done.stdout


def test_a_plot_setting_reruns_aggregate_alone(checkout):
    checkout.write("params.yaml", checkout.params | {"aggregate": {"confidence": 0.9}})
    done = checkout.dvc("repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert Counter(line for line in done.stdout.splitlines() if "Running stage" in line) == {
        "Running stage 'aggregate':": 1
    }


def test_an_added_margin_runs_its_own_trials_and_no_other(checkout):
    before = checkout.records()
    variants = [*SWEEP["regularizers"], [{"name": "tcm", "params": {"positive_margin": 0.8}}]]
    checkout.write(
        "params.yaml", {"sweep": SWEEP | {"regularizers": variants}, "aggregate": {"confidence": 0.9}}
    )
    done = checkout.dvc("repro")
    assert done.returncode == 0, done.stdout + done.stderr
    after = checkout.records()
    assert len(after) == 9
    assert {name: after[name] for name in before} == before
    assert "3 to run" in done.stdout
    assert len(runs(checkout)[1]) == 9


def test_the_outs_are_there(checkout):
    results = Path(checkout.folder / "results")
    plots = ("convergence.png", "tradeoff.png", "trajectories.png", "utility_curves.png")
    for name in ("baselines.csv", "comparisons.csv", "metrics.json", "report.html", *plots):
        assert (results / name).stat().st_size > 0


def test_a_wrong_key_stops_before_anything_runs(checkout):
    before = checkout.records()
    checkout.write("params.yaml", {"sweep": SWEEP | {"sedes": [0]}})
    done = checkout.dvc("repro", "sweep")
    assert done.returncode != 0
    assert "`sweep.sedes`" in done.stdout + done.stderr
    assert checkout.records() == before
