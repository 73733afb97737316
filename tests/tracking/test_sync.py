"""`dmlcore sync`: with the store there, down, and up again."""

from __future__ import annotations

import json

import pytest
import yaml
from filelock import FileLock
from mlflow import MlflowClient
from typer.testing import CliRunner

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.results import read_study
from dmlcore.analysis.verdict import verdict
from dmlcore.cli import app
from dmlcore.config.study import AggregateConfig
from dmlcore.records import RecordFolder
from pipeline.aggregate import main as aggregate
from tests.analysis.synthetic import dataset_info, rows, table
from tests.servers import MlflowServer
from tests.tracking.test_mlflow import record

pytestmark = pytest.mark.filterwarnings("ignore")
SWEEP = {"study": "s", "datasets": ["d"], "backbones": {"b": {}}, "losses": {"l": {}}}


def key_of(letter):
    return f"{letter * 16}-{letter * 8}"


def record_of(letter, **changes):
    keys = {"trial_key": key_of(letter), "train_key": letter * 64, "eval_key": letter * 64}
    return record(**keys, **changes)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study with a finished and a failed trial, and no MLflow store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"sweep": SWEEP}))
    folder = RecordFolder(tmp_path / "state" / "records")
    folder.write(record_of("a"))
    folder.write(record_of("b", status="failed", error="TrainingError: nan"))
    return tmp_path


def sync(study):
    return CliRunner().invoke(app, ["sync", "--study", str(study)])


def runs(uri):
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("dmlcore/s")
    return {
        run.data.tags["trial_key"]: run.info.status for run in client.search_runs([experiment.experiment_id])
    }


def description(study):
    client = MlflowClient(tracking_uri=f"sqlite:///{study / 'state' / 'mlflow.db'}")
    return client.get_experiment_by_name("dmlcore/s").tags.get("mlflow.note.content")


def with_results(study, change=0.0):
    """Results of 4 comparisons: the words of the verdict come from them and nowhere else."""
    found = rows()
    for row in found:
        row["test/opis_corrected"] += change if row["variant"] != "baseline" else 0.0
    (study / "results").mkdir(exist_ok=True)
    table(found).write_parquet(study / "results" / "trials.parquet")
    (study / "results" / "datasets.json").write_text(json.dumps({"glyphs": dataset_info()}))
    made = read_study(study, AggregateConfig())
    headline, details = verdict(made, comparisons(made).to_dicts())[0]
    return f"**{headline}** {details}"


def test_the_experiment_is_described_by_the_verdict_of_the_results(study):
    assert sync(study).exit_code == 0
    assert description(study) is None  # no results yet
    first = with_results(study)
    sync(study)
    assert description(study).replace("\\", "").startswith(first)
    second = with_results(study, change=0.05)
    assert second != first
    aggregate(study)
    assert description(study).replace("\\", "").startswith(second)


def test_aggregate_makes_no_store_for_its_description(study):
    with_results(study)
    aggregate(study)
    assert (study / "results" / "report.html").is_file()
    assert not (study / "state" / "mlflow.db").exists()


def test_an_empty_store_gets_everything_once(study):
    done = sync(study)
    assert done.exit_code == 0, done.output
    assert "2 runs brought up to date, 2 trials are recorded" in done.output
    uri = f"sqlite:///{study / 'state' / 'mlflow.db'}"
    assert runs(uri) == {key_of("a"): "FINISHED", key_of("b"): "FAILED"}
    RecordFolder(study / "state" / "records").write(record_of("b"))
    assert "1 runs brought up to date" in sync(study).output
    assert runs(uri) == {key_of("a"): "FINISHED", key_of("b"): "FINISHED"}
    assert "0 runs brought up to date" in sync(study).output


def test_it_waits_for_no_sweep(study):
    with FileLock(study / "state" / "sweep.lock"):
        done = sync(study)
    assert done.exit_code == 1
    assert "another process runs the sweep" in done.output


@pytest.fixture
def server(tmp_path):
    """Under a path prefix, as behind a proxy."""
    made = MlflowServer(tmp_path, prefix="/tools/mlflow")
    yield made
    made.stop()


@pytest.mark.slow
def test_what_a_server_missed_while_it_was_down_is_delivered_once_it_is_up(study, server, monkeypatch):
    uri = server.uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    down = sync(study)
    assert down.exit_code == 1
    assert f"MLflow at {uri} did not answer" in down.output
    assert "Traceback" not in down.output
    server.start()
    assert "2 runs brought up to date" in sync(study).output
    assert runs(uri) == {key_of("a"): "FINISHED", key_of("b"): "FAILED"}
    again = sync(study)
    assert again.exit_code == 0
    assert "0 runs brought up to date" in again.output
