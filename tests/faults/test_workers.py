"""Worker processes that die in mid-trial: the trial goes on from its checkpoint, the others do not notice."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults.sabotage import Fault, Gate, meanwhile, segfault

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_a_killed_worker_and_a_damaged_checkpoint_cost_nothing_but_time(make_study, reference):
    study = make_study()
    killed, damaged = study.trials[:2]
    gates = [Gate(study.folders.study / name) for name in ("killed", "damaged")]

    def act():
        for gate, trial in zip(gates, (killed, damaged), strict=True):
            pid = gate.pid()
            checkpoint = trial.store_folder / "last.safetensors"
            assert checkpoint.is_file()
            if trial is damaged:
                checkpoint.write_bytes(checkpoint.read_bytes()[:-7])
            os.kill(pid, signal.SIGKILL)

    with meanwhile(act):
        plan = study.run({trial.key: (Fault(3, gate),) for trial, gate in zip((killed, damaged), gates, strict=True)})
    assert plan.records[killed.key].attempts == 2
    assert plan.records[damaged.key].attempts == 2
    assert (damaged.store_folder / "last.safetensors.corrupt").is_file()
    assert not (killed.store_folder / "last.safetensors.corrupt").exists()
    study.check(reference)


def test_a_segmentation_fault_costs_an_attempt_and_one_at_each_attempt_its_own_trial(make_study, reference):
    study = make_study()
    once, each_time = study.trials[:2]
    plan = study.run({once.key: (Fault(3, segfault),), each_time.key: (Fault(3, segfault, always=True),)})
    assert plan.records[once.key].attempts == 2
    assert plan.records[each_time.key].attempts == 2
    assert "process died" in plan.records[each_time.key].error
    study.check(reference, failed=[each_time])
    study.run()
    study.check(reference)
