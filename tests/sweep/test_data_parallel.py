"""A trial over several processes: the same result as on one, and nothing lost or left behind where one ends early."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch

from dmlcore.config.base import ConfigError
from dmlcore.records import RecordFolder
from dmlcore.sweep.dry_run.preview import preview
from dmlcore.sweep.execution.data_parallel import RankError, RankLostError, started_ranks
from dmlcore.sweep.execution.worker import execute
from dmlcore.sweep.file_store import ClusterError
from dmlcore.sweep.ray.cluster import trial_bundle
from dmlcore.sweep.run import SweepFolders, run_sweep
from dmlcore.training.ranks import Ranks, check_ranks
from dmlcore.training.run import run_trial
from dmlcore.training.store import TrialStore
from tests.memory_tracker import MemoryTracker
from tests.small import TRIAL, small_trial
from tests.sweep.clusters import ray_cluster
from tests.sweep.sweeps import plan_of, sweep_config, worker_context

SHARED = {key: value for key, value in TRIAL.items() if key not in ("dataset", "loss")}
# Plain steps, whose size follows the gradient: Adam's first steps follow its sign alone.
STEADY = {"optimizer": {"name": "sgd", "learning_rate": 1.0e-3}, "epochs": 2, "final": True}


checkpointed = partial(run_trial, checkpoint_seconds=0.0)


def sweep_of(processes):
    return sweep_config(
        trial=SHARED | {"train": SHARED["train"] | STEADY},
        losses={"anchor": {"loss": {"name": "proxy_anchor"}}},
        regularizers=[[]],
        resources={"processes": processes} if processes else {},
    )


def planned(folders, processes):
    return plan_of(sweep_of(processes), folders).trials[0]


def followers() -> list[int]:
    """Return the ranks that this process has started and that still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
            command = (folder / "cmdline").read_text()
        except OSError:
            continue
        if f"PPid:\t{os.getpid()}\n" in status and "rank_process" in command:
            found.append(int(folder.name))
    return found


@pytest.fixture(scope="module")
def folders(small_data, tmp_path_factory):
    return SweepFolders(tmp_path_factory.mktemp("study"), small_data.folder.parent)


@pytest.fixture(scope="module")
def one(folders):
    """The records of the trial on one process and on two, which nothing disturbed."""
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


def test_a_rank_that_hangs_is_noticed_and_the_next_attempt_resumes(folders, one, tmp_path):
    other = SweepFolders(tmp_path / "study", folders.prepared)
    trial = planned(other, 2)

    def stop(epoch):
        if epoch.epoch == 2:
            os.kill(followers()[0], signal.SIGSTOP)

    context = worker_context(other, run=checkpointed, process_timeout_seconds=15.0)
    with pytest.raises(RankLostError, match=r"did not answer.*process_timeout_seconds"):
        execute(trial, context, stop)
    assert not followers()
    assert not RecordFolder(other.records).keys()
    assert (trial.store_folder / "last.safetensors").is_file()
    record = execute(trial, context, lambda epoch: None)
    assert record.attempts == 2
    assert (record.metrics, record.files) == (one[2].metrics, one[2].files)


def test_an_error_of_a_rank_names_it(tmp_path, small_data):
    config = small_trial(processes=2)
    with (
        pytest.raises(RankError, match=r"rank 1: DataError: .*nowhere"),
        started_ranks(config, tmp_path / "nowhere", tmp_path, torch.device("cpu"), 600.0) as ranks,
    ):
        run_trial(config, small_data, store=TrialStore(tmp_path / "trial"), ranks=ranks)
    assert not followers()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_trial_runs_on_one_node_and_a_killed_rank_is_tried_again(folders, one, tmp_path):
    other = SweepFolders(tmp_path / "study", folders.prepared)
    kill = KillOnce(tmp_path / "killed")
    with ray_cluster(nodes=2, cpus=2):
        with pytest.raises(ClusterError, match=r"4 processes needs 4 CPU on one node, no node has so many"):
            run_sweep(sweep_of(4), other, MemoryTracker(), kill)
        assert not RecordFolder(other.records).keys()
        plan = run_sweep(sweep_of(2), other, MemoryTracker(), kill)
    assert kill.mark.is_file()
    (record,) = plan.records.values()
    assert (record.status, record.attempts, record.machine["processes"]) == ("finished", 2, 2)
    assert (record.metrics, record.files) == (one[2].metrics, one[2].files)


@dataclass(frozen=True)
class KillOnce:
    """Trains as `run_trial` does, and kills another rank in the second epoch of the first attempt."""

    mark: Path

    def __call__(self, *arguments, report, **named):
        def kill(epoch):
            report(epoch)
            if epoch.epoch == 2 and not self.mark.exists():
                self.mark.touch()
                os.kill(followers()[0], signal.SIGKILL)

        return checkpointed(*arguments, report=kill, **named)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"gpus": 1.5}, "must be a whole number or a fraction of one, got 1.5"),
        ({"gpus": 4.0, "processes": 2}, "a process for each GPU, got `processes` 2"),
        ({"gpus": 0.5, "processes": 2}, "a process for each GPU, got `processes` 2"),
        ({"processes": 0}, "greater than or equal to 1"),
    ],
)
def test_resources_that_no_trial_can_have_are_refused(resources, words):
    with pytest.raises(ConfigError, match=words):
        sweep_config(resources=resources)


def test_gpus_and_processes_are_part_of_the_key_and_of_the_plan(folders):
    keys = {n: planned(folders, n).keys.train for n in (None, 1, 2, 4)}
    assert keys[None] == keys[1]
    assert len(set(keys.values())) == 3
    by_gpu = sweep_config(resources={"gpus": 4.0})
    assert {trial.cell.config.processes for trial in plan_of(by_gpu, folders).trials} == {4}
    assert trial_bundle(plan_of(by_gpu, folders).trials, by_gpu.resources) == {"CPU": 4.0, "GPU": 4.0}
    (line,) = [line for line in preview(plan_of(by_gpu, folders), by_gpu, folders.study) if "to run" in line]
    assert line.endswith("; each of 4 processes, with 4 CPUs and 4 GPUs of one node")
    with pytest.raises(ConfigError, match=r"`processes` is set by `sweep.resources"):
        plan_of(sweep_config(trial=SHARED | {"processes": 2}), folders)


def test_a_trial_for_several_processes_refuses_to_run_on_another_number(tmp_path, small_data):
    with pytest.raises(ValueError, match="this trial is for 2 processes, got 1"):
        run_trial(small_trial(processes=2), small_data, store=TrialStore(tmp_path / "trial"))
    with pytest.raises(ValueError, match="an image for each of the 32 processes, got 16"):
        check_ranks(Ranks(0, 32), 16, torch.nn.Identity(), compiled=False)
    with pytest.raises(ValueError, match="needs frozen BatchNorm, got '0'"):
        check_ranks(Ranks(0, 2), 16, torch.nn.Sequential(torch.nn.BatchNorm1d(4)), compiled=True)
