"""Worker processes that die in mid-trial: their trials resume from their checkpoints, the others do not notice."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults.sabotage import Fault, Gate, meanwhile, segfault

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_kill_nine_a_damaged_checkpoint_and_segmentation_faults_in_one_sweep(make_study, reference):
    study = make_study()
    killed, damaged, segfault_once, segfault_always = study.trials
    gates = {trial.key: Gate(study.folders.study / trial.key) for trial in (killed, damaged)}

    def act():
        pid = gates[killed.key].pid()
        assert (killed.store_folder / "last.safetensors").is_file()
        os.kill(pid, signal.SIGKILL)
        pid = gates[damaged.key].pid()
        checkpoint = damaged.store_folder / "last.safetensors"
        checkpoint.write_bytes(checkpoint.read_bytes()[:-7])
        os.kill(pid, signal.SIGKILL)

    faults = {key: (Fault(3, gate),) for key, gate in gates.items()}
    faults |= {segfault_once.key: (Fault(3, segfault),)}
    faults |= {segfault_always.key: (Fault(3, segfault, always=True),)}
    with meanwhile(act):
        plan = study.run(faults)
    assert (damaged.store_folder / "last.safetensors.corrupt").is_file()
    assert not (killed.store_folder / "last.safetensors.corrupt").exists()
    assert plan.records[segfault_always.key].error.startswith("process died")
    twice = dict.fromkeys(plan.records, 2)
    study.check(reference, failed=[segfault_always], attempts=twice)
    study.run_here()
    study.check(reference, attempts=twice | {segfault_always.key: 3})
