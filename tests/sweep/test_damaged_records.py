"""Records that were changed, invented, or written by another version, and files that are no records."""

from __future__ import annotations

import json
import re

import pytest

from dmlcore.records import NewerRecordError, RecordFolder, record_text
from dmlcore.sweep.dry_run.preview import preview
from dmlcore.sweep.run import SweepFolders, run_sweep
from tests.memory_tracker import MemoryTracker
from tests.sweep.search.searches import search_untrained, searching
from tests.sweep.sweeps import plan_of, run_here, sweep_config

FOREIGN = "f" * 16 + "-" + "e" * 8


@pytest.fixture
def folders(tmp_path, small_data):
    return SweepFolders(tmp_path / "study", small_data.folder.parent)


def content(folders):
    return {path.name: path.read_bytes() for path in folders.records.iterdir()}


def change_a_digit(path):
    text = path.read_text()
    changed = re.sub(r'("test/map_at_r": 0\.)(\d)', lambda m: m[1] + str((int(m[2]) + 1) % 10), text)
    assert changed != text
    path.write_text(changed)


def test_a_changed_digit_is_named_and_costs_its_own_trial(folders, capsys):
    config = sweep_config()
    records = run_here(config, folders, MemoryTracker())
    path = RecordFolder(folders.records).path(records[0].trial_key)
    change_a_digit(path)
    before = content(folders)
    plan = plan_of(config, folders)
    assert [trial.key for trial in plan.missing] == [records[0].trial_key]
    assert "was changed since it was written" in str(plan.faults[records[0].trial_key])
    lines = list(preview(plan, config, folders.study / config.storage))
    assert sum("was changed since it was written" in line for line in lines) == 1
    assert content(folders) == before  # who only looks changes nothing
    again = run_here(config, folders, MemoryTracker())
    assert [record.metrics for record in again] == [records[0].metrics]
    assert f"set aside as {path.name}.corrupt" in capsys.readouterr().out
    assert content(folders)[f"{path.name}.corrupt"] == before[path.name]


def test_a_changed_record_of_a_search_is_noticed_and_its_trial_runs_again(folders):
    config = searching({"trials": 3})
    records = {record.trial_key: record for record in search_untrained(config, folders)}
    path = RecordFolder(folders.records).path(min(records))
    text = path.read_text()
    path.write_text(text.replace('"status": "finished"', '"status": "stopped"'))
    before = content(folders)
    assert min(records) in plan_of(config, folders).faults
    assert content(folders) == before
    again = search_untrained(config, folders)
    assert [record.trial_key for record in again] == [min(records)]
    assert path.with_name(f"{path.name}.corrupt").exists()


def test_the_sweep_sets_aside_its_own_broken_records_alone(folders, capsys):
    config = sweep_config()
    records = run_here(config, folders, MemoryTracker())
    others = {"notes.json": b"mine", f"{FOREIGN}.json": b'{"schema_version": 1}'}
    for name, text in others.items():
        (folders.records / name).write_bytes(text)
    before = content(folders)
    run_sweep(config, folders, MemoryTracker())
    assert content(folders) == before
    assert f"not of this sweep, left as it is: {folders.records / FOREIGN}.json" in capsys.readouterr().out
    assert plan_of(config, folders).records.keys() == {record.trial_key for record in records}


def test_the_record_of_a_later_version_ends_the_sweep_before_anything_runs(folders):
    config = sweep_config()
    record, _ = run_here(config, folders, MemoryTracker())
    later = json.loads(record_text(record)) | {"schema_version": 7, "written_by": "2.0"}
    RecordFolder(folders.records).path(record.trial_key).write_text(json.dumps(later))
    before = content(folders)
    plan = plan_of(config, folders)
    assert "written by dmlcore 2.0 in schema version 7" in str(plan.faults[record.trial_key])
    with pytest.raises(NewerRecordError, match=r"dmlcore 2\.0 in schema version 7"):
        run_sweep(config, folders, MemoryTracker())
    assert content(folders) == before
