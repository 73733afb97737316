"""The driver's signal to end a trial, on a shared disk and through an object store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dmlcore.records import RecordFolder
from dmlcore.sweep.execution.worker import StoppedEarlyError
from dmlcore.sweep.ray.remote_worker import download_results, run_remote, upload_inputs
from dmlcore.sweep.ray.shared_storage import SharedStorage
from dmlcore.sweep.ray.signals import StopSignals
from dmlcore.sweep.run import SweepFolders
from tests.sweep.search.searches import worker_context
from tests.sweep.search.test_early_stopping import trial
from tests.sweep.sweeps import plan_of, sweep_config


@pytest.fixture(params=["disk", "object store"])
def stop_signals(request, tmp_path):
    address = tmp_path.as_uri() if request.param == "disk" else f"memory://{tmp_path.name}"
    return StopSignals(SharedStorage(address))


def test_a_signal_ends_its_trial_once(stop_signals):
    stop_signals.check(trial(0))
    stop_signals.request(trial(0), "rung 1")
    stop_signals.check(trial(1))
    with pytest.raises(StoppedEarlyError, match="rung 1"):
        stop_signals.check(trial(0))
    stop_signals.check(trial(0))


def test_a_signal_to_an_earlier_attempt_is_dropped(stop_signals):
    stop_signals.request(trial(0), "rung 1")
    stop_signals.reset(trial(0))
    stop_signals.check(trial(0))


def test_a_trial_without_a_comparison_group_does_not_check(stop_signals):
    whole = trial(0, comparison_group=None)
    stop_signals.request(whole, "rung 1")
    stop_signals.check(whole)
    assert replace(whole, cell=trial(0).cell).key == whole.key
    with pytest.raises(StoppedEarlyError):
        stop_signals.check(trial(0))


def test_a_trial_without_the_drivers_disk_is_stopped_too(tmp_path, small_data, monkeypatch):
    monkeypatch.setenv("DMLCORE_SCRATCH", str(tmp_path / "scratch"))
    folders = SweepFolders(tmp_path / "study", small_data.folder.parent)
    config = sweep_config(regularizers=[[]], stop_early={"grace_epochs": 1})
    (planned,) = plan_of(config, folders).trials
    storage = SharedStorage((tmp_path / "storage").as_uri())
    signals = StopSignals(storage)
    upload_inputs([planned], storage)

    def report(epoch):
        if epoch.epoch == 1:
            signals.request(planned, "stopped early at epoch 1, rung 1")
        signals.check(planned)

    assert run_remote(planned, worker_context(folders), report, storage).status == "stopped"
    record = download_results(planned, storage, RecordFolder(folders.records))
    assert (record.status, record.error, len(record.curve)) == (
        "stopped",
        "stopped early at epoch 1, rung 1",
        2,
    )
    assert not plan_of(config, folders).missing
    assert not list(tmp_path.glob("s*/**/*.safetensors"))
    assert not storage.names(f"storage/{planned.keys.train[:16]}")
    assert not storage.names("stop")
