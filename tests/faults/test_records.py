"""Records that are damaged: their trials run again, alone, and MLflow's runs are still those of one sweep."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_damaged_records_cost_their_own_trials(make_study, reference):
    study = make_study()
    study.run_here()
    study.check(reference, attempts={})
    *whole, cut, empty = study.trials
    before = {trial.key: study.records.read(trial.key) for trial in whole}
    damages = {cut.key: b'{"trial_key": "', empty.key: b"\0" * 4096}
    for key, damage in damages.items():
        study.records.path(key).write_bytes(damage)
    study.run_here()
    for key, damage in damages.items():
        assert study.records.path(key).with_suffix(".json.corrupt").read_bytes() == damage
    assert {trial.key: study.records.read(trial.key) for trial in whole} == before
    study.check(reference, attempts={cut.key: 2, empty.key: 2})
