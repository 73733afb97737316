"""The driver's word to end a trial, on a shared disk and through an exchange."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dmlcore.records import RecordFolder
from dmlcore.sweep.execution.worker import StoppedEarlyError
from dmlcore.sweep.ray.remote_worker import download_results, offer, run_remote
from dmlcore.sweep.ray.shared_storage import SharedStorage
from dmlcore.sweep.ray.stop_signals import StopSignals
from dmlcore.sweep.run import SweepFolders
from tests.sweep.search.searches import workplace
from tests.sweep.search.test_asha import trial
from tests.sweep.sweeps import plan_of, sweep_config


@pytest.fixture(params=["disk", "exchange"])
def verdicts(request, tmp_path):
    return StopSignals(tmp_path, SharedStorage(tmp_path.as_uri()) if request.param == "exchange" else None)


def test_a_word_ends_its_trial_once(verdicts):
    verdicts.obey(trial(0))
    verdicts.leave(trial(0), "rung 1")
    verdicts.obey(trial(1))
    with pytest.raises(StoppedEarlyError, match="rung 1"):
        verdicts.obey(trial(0))
    verdicts.obey(trial(0))


def test_a_word_to_an_earlier_attempt_is_forgotten(verdicts):
    verdicts.leave(trial(0), "rung 1")
    verdicts.clear(trial(0))
    verdicts.obey(trial(0))


def test_a_trial_that_runs_whole_does_not_ask(verdicts):
    whole = trial(0, rivals=None)
    verdicts.leave(whole, "rung 1")
    verdicts.obey(whole)
    assert replace(whole, cell=trial(0).cell).key == whole.key
    with pytest.raises(StoppedEarlyError):
        verdicts.obey(trial(0))


def test_a_trial_without_the_drivers_disk_is_stopped_too(tmp_path, small_data, monkeypatch):
    monkeypatch.setenv("DMLCORE_SCRATCH", str(tmp_path / "scratch"))
    folders = SweepFolders(tmp_path / "study", small_data.folder.parent)
    config = sweep_config(regularizers=[[]], stop_early={"grace_epochs": 1})
    (planned,) = plan_of(config, folders).trials
    exchange = SharedStorage((tmp_path / "exchange").as_uri())
    word = StopSignals(folders.state / "locks", exchange)
    offer([planned], exchange)

    def report(epoch):
        if epoch.epoch == 1:
            word.leave(planned, "stopped early at epoch 1, rung 1")
        word.obey(planned)

    assert run_remote(planned, workplace(folders), report, exchange).status == "stopped"
    record = download_results(planned, exchange, RecordFolder(folders.records))
    assert (record.status, record.error, len(record.curve)) == (
        "stopped",
        "stopped early at epoch 1, rung 1",
        2,
    )
    assert not plan_of(config, folders).missing
    assert not list(tmp_path.glob("s*/**/*.safetensors"))
    assert not exchange.names(f"storage/{planned.keys.train[:16]}")
    assert not exchange.names("stop")
