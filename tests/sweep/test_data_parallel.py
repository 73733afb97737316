"""A trial over several processes: the same result as on one, and nothing lost or left behind where one ends early."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dmlcore.records import RecordFolder
from dmlcore.sweep.execution.data_parallel import RankLostError
from dmlcore.sweep.execution.worker import execute
from dmlcore.sweep.run import SweepFolders
from tests.small import TRIAL
from tests.sweep.sweeps import plan_of, sweep_config, worker_context

SHARED = {key: value for key, value in TRIAL.items() if key not in ("dataset", "loss")}
# Plain steps, whose size follows the gradient: Adam's first steps follow its sign alone.
STEADY = {"optimizer": {"name": "sgd", "learning_rate": 1.0e-3}, "epochs": 2, "final": True}


def planned(folders, processes, **train):
    config = sweep_config(
        trial=SHARED | {"train": SHARED["train"] | STEADY | train},
        losses={"anchor": {"loss": {"name": "proxy_anchor"}}},
        regularizers=[[]],
        resources={"processes": processes} if processes else {},
    )
    return plan_of(config, folders).trials[0]


def followers() -> list[int]:
    """Return the ranks that this process has started and that still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
            command = (folder / "cmdline").read_text()
        except OSError:
            continue
        if f"PPid:\t{os.getpid()}\n" in status and "data_parallel" in command:
            found.append(int(folder.name))
    return found


@pytest.fixture(scope="module")
def folders(small_data, tmp_path_factory):
    return SweepFolders(tmp_path_factory.mktemp("study"), small_data.folder.parent)


@pytest.fixture(scope="module")
def one(folders):
    """The record of the trial on two processes, which nothing disturbed."""
    return {n: execute(planned(folders, n), worker_context(folders), lambda epoch: None) for n in (None, 2)}


def test_the_trial_is_that_of_one_process(one):
    alone, shared = one[None], one[2]
    assert (shared.status, shared.error) == ("finished", None)
    assert (alone.machine["processes"], shared.machine["processes"]) == (1, 2)
    assert "processes" not in alone.config
    assert shared.config["processes"] == 2
    assert shared.train_key != alone.train_key
    assert shared.metrics.keys() == alone.metrics.keys()
    for name, value in alone.metrics.items():
        # The halves behind the correction are drawn by the content of the images: other last bits, other halves.
        drawn = "corrected" in name or "floor" in name
        assert shared.metrics[name] == pytest.approx(value, rel=2e-3, abs=2e-2 if drawn else 2e-4), name
    # The untrained network is embedded to the bit, whole batches a rank, and counted to the bit.
    assert shared.curve[0] == alone.curve[0]
    assert not followers()


def test_a_killed_rank_ends_the_attempt_and_the_next_gives_the_same(folders, one, tmp_path):
    other = SweepFolders(tmp_path / "study", folders.prepared)
    trial = planned(other, 2)

    def kill(epoch):
        if epoch.epoch == 2:
            os.kill(followers()[0], signal.SIGKILL)

    with pytest.raises(RankLostError, match="rank 1 of this trial died: killed by SIGKILL"):
        execute(trial, worker_context(other), kill)
    assert not followers()
    assert not RecordFolder(other.records).keys()
    record = execute(trial, worker_context(other), lambda epoch: None)
    assert record.attempts == 2
    assert (record.metrics, record.files) == (one[2].metrics, one[2].files)
