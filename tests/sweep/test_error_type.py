"""A diverged trial is recognised by the type of its error, not by the wording of the message."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.sweep.execution.worker import execute
from dmlcore.sweep.ray.callbacks import FORGIVEN, SweepCallback
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


@pytest.mark.parametrize(
    ("reason", "counted"),
    [
        ("The actor died because its node has died. Node Id: 1f", 0),
        ("The actor 1f is unavailable: Broken pipe. The task may or may not have been executed", 0),
        ("The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR", 1),
    ],
)
def test_the_loss_of_a_node_is_no_attempt(tmp_path, reason, counted):
    """Tune has counted one when it calls; the file holds all failures of the trial, the last one last."""
    file = tmp_path / "error.txt"
    file.write_text(
        f"Failure # 1 (occurred at noon)\nits node has died\nFailure # 1 (occurred later)\n{reason}\n"
    )
    session = SimpleNamespace(context=SimpleNamespace(records=tmp_path))
    callback = SweepCallback([], session, None, None, None, None, None)
    trial = SimpleNamespace(
        config={"trial_key": "k"}, error_file=str(file), run_metadata=SimpleNamespace(num_failures=1)
    )
    callback.on_trial_recover(0, [], trial)
    assert trial.run_metadata.num_failures == counted
    for _ in range(2 * FORGIVEN):  # nodes that the trial itself brings down must not be forgiven for ever
        callback.on_trial_recover(0, [], trial)
    assert trial.run_metadata.num_failures == (1 if counted else 1 - FORGIVEN)


@pytest.mark.parametrize(
    ("failures", "reason"),
    [
        (
            "Failure # 1 (occurred at noon)\nlost\nFailure # 2 (occurred later)\nTraceback\nno memory\n",
            "no memory",
        ),
        ("Failure # 1 (occurred at noon)\n\n", "Ray kept no reason"),
    ],
)
def test_the_reason_of_a_death_is_that_of_the_last_failure(tmp_path, failures, reason):
    """From the file that Tune writes before it calls, not from the copy that it makes of it in the background."""
    file = tmp_path / "error.txt"
    file.write_text(failures)
    ended = SimpleNamespace(end=lambda *arguments: None)
    session = SimpleNamespace(
        connection=SimpleNamespace(storage=None), context=SimpleNamespace(records=tmp_path)
    )
    planned = SimpleNamespace(key="k", name="a trial")
    callback = SweepCallback([planned], session, ended, ended, None, None, None)
    callback.on_trial_error(0, [], SimpleNamespace(config={"trial_key": "k"}, error_file=str(file)))
    assert callback.died == {"k": f"process died: {reason}"}
