"""The disk of a study is full in mid-sweep: nothing half is left, and with room again the sweep goes on."""

from __future__ import annotations

import pytest

from tests.disks import fill, mounted
from tests.faults.sabotage import Fault, Gate, meanwhile
from tests.faults.study import EPOCHS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_a_full_disk_loses_no_record_and_leaves_nothing_half(make_study, reference, tmp_path):
    with mounted(tmp_path / "study", 8_000_000) as disk:
        study = make_study(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
        gates = [Gate(tmp_path / name) for name in ("checkpoint", "record")]
        at_checkpoint, at_record = study.trials[:2]

        def act():
            gates[0].pid()
            gates[1].pid()
            fill(disk, 0)
            for gate in gates:
                gate.open()

        faults = {at_checkpoint.key: (Fault(2, gates[0]),), at_record.key: (Fault(EPOCHS, gates[1]),)}
        with meanwhile(act):
            plan = study.run(faults)
        print(plan.records)
        (disk / "filler").unlink()
        study.run_here()
        study.check(reference)
