"""A label renamed in params.yaml: the same name in table, records, runs and models, and nothing is trained again."""

from __future__ import annotations

import shutil

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.config.base import canonical
from dmlcore.config.study import load_study
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.sweep.run import SweepFolders, run_sweep
from dmlcore.tracking import MlflowTracker
from tests.memory_tracker import MemoryTracker
from tests.sweep.sweeps import not_called, plan_of, sweep_config

pytestmark = pytest.mark.filterwarnings("ignore")
OLD = {"losses": {"ms": {"loss": {"name": "multi_similarity"}}}, "backbones": {"resnet": {}}}
NEW = {"losses": {"multisim": {"loss": {"name": "multi_similarity"}}}, "backbones": {"no": {}}}


@pytest.fixture
def study(tmp_path, small_data, monkeypatch):
    """A checkout of two finished trials, in records and MLflow under their old labels."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(small_data.folder, tmp_path / "data" / "prepared" / "small")
    (tmp_path / "data" / "dvc.yaml").write_text("stages: {}\n")
    write_params(tmp_path, OLD)
    records = RecordFolder(tmp_path / "state" / "records")
    for trial in plan_of(sweep_config(**OLD), folders_of(tmp_path)).trials:
        records.write(
            TrialRecord(
                trial_key=trial.key,
                train_key=trial.keys.train,
                eval_key=trial.keys.eval,
                status="finished",
                config=canonical(trial.cell.config),
                labels=trial.cell.labels,
                metrics={"test/map_at_r": 0.5},
            )
        )
    assert "2 runs brought up to date" in sync(tmp_path).output
    return tmp_path


def folders_of(study):
    return SweepFolders(study, study / "data" / "prepared")


def write_params(study, changes):
    values = sweep_config(**changes).model_dump(
        mode="json", include={"study", "trial", "datasets", "regularizers"}
    )
    (study / "params.yaml").write_text(yaml.safe_dump({"sweep": values | changes}))


def sync(study):
    return CliRunner().invoke(app, ["sync", "--study", str(study)])


def runs_of(study):
    return MlflowTracker.for_study("t", study / "state", None).runs


def recorded(study):
    return {(r.labels["loss"], r.labels["backbone"]) for r in RecordFolder(study / "state" / "records").all()}


def shown(study):
    runs = runs_of(study)._all_runs()
    assert len(runs) == 2
    tags = {(run.data.tags["loss"], run.data.tags["backbone"]) for run in runs}
    return tags, sorted(run.data.tags["mlflow.runName"] for run in runs)


def test_sync_renames_records_runs_and_models(study):
    runs = runs_of(study)
    run = runs._all_runs()[0]
    model = runs.client.create_logged_model(
        runs.experiment_id, "embedder", source_run_id=run.info.run_id, tags={"loss": "ms", "other": "kept"}
    )
    write_params(study, NEW)
    done = sync(study)
    assert done.exit_code == 0, done.output
    assert "2 records have the labels of params.yaml now" in done.output
    assert "2 runs brought up to date" in done.output
    assert recorded(study) == {("multisim", "no")}
    assert shown(study) == (
        {("multisim", "no")},
        ["small no multisim baseline seed 0", "small no multisim tcm seed 0"],
    )
    tags = runs.client.get_logged_model(model.model_id).tags
    assert (tags["loss"], tags["backbone"], tags["other"]) == ("multisim", "no", "kept")
    again = sync(study)
    assert "labels" not in again.output
    assert "0 runs brought up to date" in again.output


def test_the_sweep_renames_without_a_rerun(study):
    write_params(study, NEW)
    sweep = load_study(study / "params.yaml").sweep
    plan = run_sweep(sweep, folders_of(study), MemoryTracker(), not_called)
    assert not plan.missing
    assert recorded(study) == {("multisim", "no")}
    table = pl.read_parquet(study / "results" / "trials.parquet")
    assert table["loss"].to_list() == ["multisim"] * 2
    assert table["status"].to_list() == ["finished"] * 2
    assert "2 runs brought up to date" in sync(study).output
    assert shown(study)[0] == {("multisim", "no")}


def test_without_the_data_set_sync_delivers_the_recorded_labels_and_says_so(study):
    write_params(study, NEW)
    shutil.rmtree(study / "data")
    done = sync(study)
    assert done.exit_code == 0
    assert "labels are delivered as recorded" in done.output
    assert recorded(study) == {("ms", "resnet")}
