"""The sweep stage on real trials, through Ray: what runs, what does not, what becomes of failures."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock

from dmlcore.config.base import ConfigError
from dmlcore.records import RecordFolder
from dmlcore.sweep import baselines
from dmlcore.sweep.execution.guards import SweepBusyError
from dmlcore.sweep.execution.worker import execute
from dmlcore.sweep.run import SweepFolders, run_sweep
from tests.memory_tracker import MemoryTracker
from tests.sweep.sweeps import not_called, plan_of, run_here, sweep_config, worker_context


@pytest.fixture
def folders(tmp_path, small_data):
    return SweepFolders(tmp_path / "study", small_data.folder.parent)


def written(folders):
    return {path.name: path.read_bytes() for path in sorted(folders.records.glob("*.json"))}


def test_an_interrupted_sweep_publishes_without_measuring_raw_pixels(folders, monkeypatch):
    """Ctrl-C must end within seconds, and an error there would lose the table."""

    class Interrupted(MemoryTracker):
        def prepare(self):
            monkeypatch.setattr(baselines, "raw_pixel_metrics", not_called)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep_config(), folders, Interrupted())
    assert pl.read_parquet(folders.results / "trials.parquet")["status"].to_list() == ["missing"] * 2
    published = json.loads((folders.results / "datasets.json").read_text())
    assert published["small"]["raw_pixels"]["test/recall_at_1"] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_through_ray_runs_everything_once_and_then_nothing(folders, capsys):
    config = sweep_config(
        losses={
            "ms": {"loss": {"name": "multi_similarity"}},
            "nan": {
                "loss": {"name": "contrastive"},
                "train": {"optimizer": {"name": "sgd", "learning_rate": 1.0e30}},
            },
            "raises": {"loss": {"name": "contrastive"}, "train": {"batch_size": 64}},
        },
    )
    tracker = MemoryTracker()
    plan = run_sweep(config, folders, tracker)
    assert tracker.records == plan.records
    for key, record in plan.records.items():
        assert record.status == "failed" or sorted(tracker.epochs[key]) == list(range(len(record.curve)))
    status = {trial.cell.name: plan.records[trial.key].status for trial in plan.trials}
    assert sorted(status.values()) == ["failed"] * 4 + ["finished"] * 2
    table = pl.read_parquet(folders.results / "trials.parquet")
    assert table.height == 6
    errors = dict(zip(table["loss"], table["error"], strict=True))
    assert errors["ms"] is None
    assert "finite" in errors["nan"]
    assert "class" in errors["raises"]
    assert json.loads((folders.results / "datasets.json").read_text())["small"]["channels"] == 1

    before = written(folders)
    fewer = sweep_config()
    tracker = MemoryTracker()
    capsys.readouterr()
    run_sweep(fewer, folders, tracker)
    assert "0 to run" in capsys.readouterr().out
    assert written(folders) == before
    assert not tracker.started

    more = sweep_config(
        regularizers=[[], [{"name": "tcm"}], [{"name": "tcm", "params": {"positive_margin": 0.8}}]]
    )
    run_sweep(more, folders, MemoryTracker())
    after = written(folders)
    assert len(after) == len(before) + 1
    assert {name: after[name] for name in before} == before


def test_a_failed_trial_is_run_again_and_alone(folders):
    config = sweep_config()
    records = run_here(config, folders, MemoryTracker())
    RecordFolder(folders.records).write(records[0].model_copy(update={"status": "failed", "error": "x"}))
    assert [trial.key for trial in plan_of(config, folders).missing] == [records[0].trial_key]
    again = run_here(config, folders, MemoryTracker())
    assert [record.trial_key for record in again] == [records[0].trial_key]
    assert again[0].metrics == records[0].metrics
    assert again[0].attempts == 2


def test_a_corrupt_record_is_run_again(folders):
    config = sweep_config()
    records = run_here(config, folders, MemoryTracker())
    path = RecordFolder(folders.records).path(records[0].trial_key)
    path.write_text("{")
    assert [trial.key for trial in plan_of(config, folders).missing] == [records[0].trial_key]


def test_another_evaluation_is_made_from_stored_embeddings(folders):
    records = run_here(sweep_config(), folders, MemoryTracker())
    trial = sweep_config().trial | {"evaluation": {"epsilon": 0.3}}
    other = sweep_config(trial=trial)
    plan = plan_of(other, folders)
    assert len(plan.reevaluate) == 2
    assert not plan.missing
    tracker = MemoryTracker()
    after = run_sweep(other, folders, tracker)
    assert not tracker.started
    for trial in after.trials:
        earlier = next(record for record in records if record.train_key == trial.keys.train)
        assert after.records[trial.key].metrics["test/opis"] == earlier.metrics["test/opis"]
        assert after.records[trial.key].curve == earlier.curve


def test_embeddings_that_were_touched_are_not_trusted(folders):
    records = run_here(sweep_config(), folders, MemoryTracker())
    plan = plan_of(sweep_config(), folders)
    store = next(trial.store_folder for trial in plan.trials if trial.key == records[0].trial_key)
    (store / "test.safetensors").write_bytes(b"")
    other = plan_of(sweep_config(trial=sweep_config().trial | {"evaluation": {"epsilon": 0.3}}), folders)
    assert len(other.missing) == 1
    assert len(other.reevaluate) == 1


def test_the_tracker_sees_every_epoch_and_the_record(folders):
    tracker = MemoryTracker()
    records = run_here(sweep_config(), folders, tracker)
    for record in records:
        assert sorted(tracker.epochs[record.trial_key]) == [0, 1, 2]
        assert tracker.records[record.trial_key] == record


def test_two_sweeps_at_once_are_refused(folders):
    folders.state.mkdir(parents=True)
    with FileLock(folders.state / "sweep.lock"), pytest.raises(SweepBusyError, match="another process"):
        run_sweep(sweep_config(), folders, MemoryTracker())


def hold(path: str, seconds: float) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        Path(path + ".held").touch()
        time.sleep(seconds)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_worker_waits_for_an_orphan_and_takes_its_record(folders):
    config = sweep_config(regularizers=[[]])
    (trial,) = plan_of(config, folders).trials
    (record,) = run_here(config, folders, MemoryTracker())
    lock = folders.state / "locks" / f"{trial.keys.train[:16]}.lock"
    orphan = multiprocessing.get_context("spawn").Process(target=hold, args=(str(lock), 2.0))
    orphan.start()
    while not Path(f"{lock}.held").exists():
        time.sleep(0.05)
    started = time.monotonic()
    found = execute(trial, worker_context(folders, run=not_called), lambda report: None)
    orphan.join()
    assert time.monotonic() - started > 1.0
    assert found == record


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"losses": {"x": {"loss": {"name": "smoth_ap"}}}}, "smooth_ap"),
        ({"losses": {"x": {"loss": {"name": "smooth_ap", "params": {"tau": 1.0}}}}}, "tau"),
        ({"regularizers": [[], [{"name": "tcm", "params": {"positive_margin": "a"}}]]}, "positive_margin"),
        ({"backbones": {"x": {"model": {"backbone": {"name": "resnet19"}}}}}, "resnet19"),
        ({"backbones": {"x": {"model": {"backbone": {"arguments": {"chanels": 3}}}}}}, "chanels"),
        ({"seeds": [0, 0]}, "one and the same"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_runs(folders, change, words):
    with pytest.raises(ConfigError, match=words):
        run_sweep(sweep_config(**change), folders, MemoryTracker())
    assert not list(folders.records.glob("*.json"))
