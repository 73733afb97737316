"""A diverged trial is recognised by the type of its error, not by the wording of the message."""

from __future__ import annotations

import pytest

from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.sweep.execution.worker import execute
from dmlcore.sweep.run import SweepFolders
from dmlcore.training.trainer import TrainingError
from tests.sweep.sweeps import plan_of, sweep_config, worker_context


@pytest.fixture
def folders(small_data, tmp_path):
    return SweepFolders(tmp_path / "study", small_data.folder.parent)


def failed(folders, error):
    """The planned trial, as one that a search chose, and the record of an attempt that raises `error`."""

    def run(*_, **__):
        raise error

    trial = plan_of(sweep_config(), folders).trials[0]
    trial.cell.labels["role"] = "searched"
    return trial, execute(trial, worker_context(folders, run=run), lambda epoch: None)


def test_the_worker_writes_the_type_of_the_error(folders):
    trial, record = failed(folders, TrainingError("not finite"))
    assert record.error_type == "TrainingError"
    assert RecordFolder(folders.records).read(trial.key) == record


@pytest.mark.parametrize("message", ["TrainingError: nan", "loss is nan"])
def test_only_divergence_completes_a_trial_of_a_search(folders, message):
    trial, diverged = failed(folders, TrainingError(message))
    reworded = diverged.model_copy(update={"error": message.lower()})
    assert trial.is_complete(reworded)
    killed = diverged.model_copy(update={"error": "TrainingErrorReport was not written", "error_type": None})
    assert not trial.is_complete(killed)


def test_a_record_written_before_there_was_an_error_type_is_read(folders):
    _, record = failed(folders, ValueError("x"))
    before = record.model_dump(mode="json")
    del before["error_type"]
    assert TrialRecord.model_validate(before).error_type is None
