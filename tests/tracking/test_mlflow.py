"""MLflow as a view of the records: one run a trial whatever happens, and nothing that it does fails a trial."""

from __future__ import annotations

import base64
import json
import time
import zlib
from pathlib import Path

import polars as pl
import pytest

from dmlcore.records import TrialRecord
from dmlcore.tracking import MlflowTracker
from dmlcore.tracking.runs import Runs
from dmlcore.tracking.store import LABELS as VIEW_LABELS
from dmlcore.tracking.store import METRICS, TAG, git_tags, store_uri

ROOT = Path(__file__).resolve().parents[2]

LABELS = {"dataset": "glyphs", "backbone": "r", "loss": "ap", "variant": "baseline", "seed": 0}
CONFIG = {"train": {"epochs": 2}, "seed": 0}
pytestmark = pytest.mark.filterwarnings("ignore")


def record(status: str = "finished", **changes: object) -> TrialRecord:
    values = {
        "trial_key": "key",
        "train_key": "t",
        "eval_key": "e",
        "status": status,
        "config": CONFIG,
        "labels": LABELS,
        "hashes": {"data": "abc"},
        "machine": {"cpus": 2},
        "curve": [{"validation/map_at_r": 0.1}, {"validation/map_at_r": 0.2, "train/loss": None}],
        "metrics": {"test/opis": 0.02, "test/map_at_r": 0.5, "validation/map_at_r": 0.2},
        "utility": {"thresholds": [0.1, 0.2], "mean": [0.5, 0.6], "low": [0.4, 0.5], "high": [0.6, 0.7]},
    }
    return TrialRecord.model_validate(values | changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def tracker(store, request):
    uri = f"sqlite:///{store / 'db'}"
    made = MlflowTracker(Runs(uri, request.node.name, store / "artifacts", {"git_commit": "c"}))
    made.prepare()
    return made


def twin(tracker):
    """A second tracker of the same experiment, as another process has."""
    return MlflowTracker(Runs(tracker.runs.uri, tracker.runs.experiment, tracker.runs.artifacts, {}))


def runs(tracker):
    return tracker.runs.client.search_runs([tracker.runs.experiment_id])


def steps(tracker, run, key="validation/map_at_r"):
    return sorted(point.step for point in tracker.runs.client.get_metric_history(run.info.run_id, key))


def test_the_saved_view_shows_what_runs_have_and_a_change_of_it_stays(tracker):
    tracker.start("key", "a name", LABELS, CONFIG)
    tracker.finish(record(), "a name")
    view = tracker.runs.client.get_experiment(tracker.runs.experiment_id).tags[TAG]
    state = json.loads(zlib.decompress(base64.b64decode(json.loads(view)["state"].removeprefix("deflate;"))))
    (run,) = runs(tracker)
    assert {key["groupByData"] for key in state["groupBy"]["groupByKeys"]} <= set(run.data.tags)
    assert state["compareRunCharts"][0]["yaxis"]["key"] in run.data.metrics
    assert set(state["columnOrder"]) - set(state["selectedColumns"]) == {"attributes.`Run Name`"}
    tracker.runs.client.set_experiment_tag(tracker.runs.experiment_id, TAG, "a user's own")
    tracker.prepare()
    assert tracker.runs.client.get_experiment(tracker.runs.experiment_id).tags[TAG] == "a user's own"


def test_the_metrics_of_the_saved_view_are_those_of_the_report():
    names = set(pl.read_parquet(ROOT / "results" / "trials.parquet").columns)
    assert set(METRICS) <= names
    assert set(VIEW_LABELS) <= names


def test_a_trial_is_one_run_with_params_metrics_tags_and_figure(tracker):
    tracker.start("key", "a name", LABELS, CONFIG)
    tracker.epoch("key", 0, {"validation/map_at_r": 0.1})
    tracker.epoch("key", 1, {"validation/map_at_r": 0.2})
    tracker.finish(record(), "a name")
    (run,) = runs(tracker)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "a name"
    assert run.data.params == {"train.epochs": "2", "seed": "0"}
    assert run.data.tags["trial_key"] == "key"
    assert run.data.tags["variant"] == "baseline"
    assert run.data.tags["git_commit"] == "c"
    assert run.data.tags["data_hash"] == "abc"
    assert run.data.metrics["test/opis"] == 0.02
    assert steps(tracker, run) == [0, 1]
    assert [item.path for item in tracker.runs.client.list_artifacts(run.info.run_id)] == [
        "utility_curve.png"
    ]


def test_a_retry_goes_on_in_the_same_run_without_a_step_twice(tracker):
    tracker.start("key", "a name", LABELS, CONFIG)
    tracker.epoch("key", 0, {"validation/map_at_r": 0.1})
    second = twin(tracker)
    second.start("key", "a name", LABELS, CONFIG)
    second.epoch("key", 0, {"validation/map_at_r": 0.1})
    second.epoch("key", 1, {"validation/map_at_r": 0.2})
    second.finish(record(), "a name")
    (run,) = runs(tracker)
    assert steps(tracker, run) == [0, 1]
    assert run.info.status == "FINISHED"


def test_a_run_whose_writer_was_killed_before_it_came_to_the_params_gets_them(tracker):
    tracker.runs.client.create_run(tracker.runs.experiment_id, tags={"trial_key": "key"})
    assert twin(tracker).deliver([record()]) == 1
    (run,) = runs(tracker)
    assert run.data.params == {"train.epochs": "2", "seed": "0"}
    assert run.info.status == "FINISHED"


def test_sync_delivers_what_is_missing_and_ends_what_was_killed(tracker):
    tracker.start("key", "killed", LABELS, CONFIG)
    tracker.epoch("key", 0, {"validation/map_at_r": 0.1})
    other = record(trial_key="other", status="failed", error="TrainingError: nan")
    again = twin(tracker)
    assert again.sync([record(), other]) == 2
    found = {run.data.tags["trial_key"]: run for run in runs(tracker)}
    assert {key: run.info.status for key, run in found.items()} == {"key": "FINISHED", "other": "FAILED"}
    assert steps(tracker, found["key"]) == [0, 1]
    assert found["other"].data.tags["error"] == "TrainingError: nan"
    assert again.sync([record(), other]) == 0
    assert len(runs(tracker)) == 2


def test_a_record_that_is_delivered_again_is_not_logged_again(tracker):
    tracker.finish(record(), "a name")
    (run,) = runs(tracker)
    tracker.runs.client.update_run(
        run.info.run_id, status="RUNNING"
    )  # as a kill just before the end leaves it
    assert tracker.deliver([record()]) == 1
    (run,) = runs(tracker)
    assert run.info.status == "FINISHED"
    for key in run.data.metrics:
        assert len(steps(tracker, run, key)) == len(set(steps(tracker, run, key))), key


def test_runs_of_two_values_of_an_axis_are_two(tracker):
    labels = [record(trial_key=key).labels for key in ("a", "b")]
    assert labels[0] == labels[1]
    assert tracker.sync([record(trial_key="a"), record(trial_key="b")]) == 2
    assert {run.data.tags["trial_key"] for run in runs(tracker)} == {"a", "b"}


def test_a_run_that_a_killed_process_left_running_is_ended(tracker):
    tracker.start("gone", "killed and since dropped", LABELS, CONFIG)
    assert tracker.sync([]) == 1
    (run,) = runs(tracker)
    assert run.info.status == "KILLED"
    assert run.data.tags["trial_status"] == "interrupted"
    assert tracker.sync([]) == 0


def test_epochs_after_a_gap_are_not_logged_before_those_in_it(tracker, monkeypatch):
    tracker.start("key", "a name", LABELS, CONFIG)
    tracker.epoch("key", 0, {"validation/map_at_r": 0.1})
    address = tracker.runs.client
    tracker.runs._client = Runs("http://127.0.0.1:9", "down", None, {}).client
    tracker.epoch("key", 1, {"validation/map_at_r": 0.2})
    tracker.runs._client, tracker._backoff_until = address, 0.0
    tracker.epoch("key", 2, {"validation/map_at_r": 0.3})
    curve = [{"validation/map_at_r": 0.1 * (epoch + 1)} for epoch in range(3)]
    tracker.finish(record(curve=curve), "a name")
    (run,) = runs(tracker)
    assert steps(tracker, run) == [0, 1, 2]


def test_a_server_that_is_down_costs_a_trial_one_call_and_not_one_an_epoch(caplog):
    tracker = MlflowTracker(Runs("http://127.0.0.1:9", "down", None, {}))
    started = time.monotonic()
    tracker.start("key", "a name", LABELS, CONFIG)
    first = time.monotonic() - started
    for epoch in range(50):
        tracker.epoch("key", epoch, {"validation/map_at_r": 0.1})
    tracker.finish(record(), "a name")
    assert first < 20.0
    assert time.monotonic() - started < first + 1.0
    assert caplog.text.count("the records have it") == 1


def test_a_server_that_is_down_fails_nothing(caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    tracker = MlflowTracker(Runs("http://127.0.0.1:9", "down", None, {}))
    tracker.prepare()
    tracker.start("key", "a name", LABELS, CONFIG)
    tracker.epoch("key", 0, {"validation/map_at_r": 0.1})
    tracker.finish(record(), "a name")
    assert tracker.sync([record()]) == 0
    assert "the records have it" in caplog.text


def test_store_uri(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store_uri(tmp_path) == f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert store_uri(tmp_path) == "http://localhost:5000"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///a.db")
    assert store_uri(tmp_path / "x") == f"sqlite:///{tmp_path / 'a.db'}"


def test_outside_a_checkout_there_are_no_git_tags(tmp_path):
    assert git_tags(tmp_path) == {}
