"""Records that are damaged: their trials run again, alone, and MLflow's runs are still those of one sweep."""

from __future__ import annotations

import pytest

from dmlcore.records import RecordFolder

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("damage", [b"", b"{", b"\0" * 4096])
def test_a_damaged_record_costs_its_own_trial(make_study, reference, damage):
    study = make_study(regularizers=[[]])
    study.run_here()
    study.check(reference)
    damaged, whole = study.trials
    records = RecordFolder(study.folders.records)
    before = records.read(whole.key)
    records.path(damaged.key).write_bytes(damage)
    study.run_here()
    assert records.read(whole.key) == before
    assert records.path(damaged.key).with_suffix(".json.corrupt").read_bytes() == damage
    study.check(reference)
