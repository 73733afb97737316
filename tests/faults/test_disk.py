"""The disk of a study's state is full in mid-sweep: no partial file is left, and with room again the sweep resumes."""

from __future__ import annotations

import pytest

from tests.disks import fill, mounted
from tests.faults.sabotage import Fault, Gate, meanwhile
from tests.faults.study import EPOCHS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_a_disk_full_at_a_checkpoint_and_at_a_record_costs_no_more_than_the_attempts(
    make_study, reference, tmp_path
):
    with mounted(tmp_path / "study" / "state", 8_000_000) as disk:
        study = make_study(uri=f"sqlite:///{tmp_path / 'mlflow.db'}", regularizers=[[]], attempts=1)
        gates = [Gate(tmp_path / name) for name in ("checkpoint", "record")]
        at_checkpoint, at_record = study.trials
        filler = []

        def act():
            for gate in gates:
                gate.pid()
            filler.append(fill(disk, 0))
            for gate in gates:
                gate.open()

        faults = {at_checkpoint.key: (Fault(2, gates[0]),), at_record.key: (Fault(EPOCHS, gates[1]),)}
        with meanwhile(act):
            plan = study.run(faults)
        assert plan.missing == study.trials
        assert not list(disk.rglob("*.part")) + list(study.folders.records.glob(".*"))
        filler[0].unlink()
        study.run_here()
        study.check(reference)
