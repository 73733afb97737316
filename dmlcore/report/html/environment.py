"""What the trials shared, and with which versions and on what processors they ran; no hosts, no dates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dmlcore.analysis.study import NON_AXIS_COLUMNS, Study
from dmlcore.records import RecordError, RecordFolder, TrialRecord

MOST_RECORDS = 1_000


def shared_settings(study: Study) -> list[tuple[str, str]]:
    """(config path, value) of every setting that all trials have in common."""
    columns = [
        c for c in study.trials.columns if c.startswith("config/") and not c.startswith(NON_AXIS_COLUMNS)
    ]
    values = {column: study.trials[column].unique(maintain_order=True).to_list() for column in columns}
    return [
        (column.removeprefix("config/"), _short(found[0]))
        for column, found in values.items()
        if len(found) == 1 and found[0] is not None
    ]


def environment(study: Study) -> list[tuple[str, str]]:
    """(name, values over the records) of versions and processors; empty where the records are not here.

    Of many records every n-th is read, so that a page of 10,000 trials does not wait for all of them.
    """
    records = _records(study)
    found: dict[str, set[str]] = {}
    for record in records:
        machine = {
            key: record.machine[key] for key in ("processor", "cpus", "gpu") if record.machine.get(key)
        }
        for name, value in {**record.versions, **machine}.items():
            found.setdefault(name, set()).add(_short(value))
    return [(name, ", ".join(sorted(values))) for name, values in sorted(found.items())]


def _records(study: Study) -> list[TrialRecord]:
    if study.records is None or not study.records.is_dir():
        return []
    folder = RecordFolder(study.records)
    keys = study.trials["trial_key"].to_list()
    found = (_read(folder, key) for key in keys[:: -(-len(keys) // MOST_RECORDS) or 1])
    return [record for record in found if record is not None]


def _read(folder: RecordFolder, key: str) -> TrialRecord | None:
    """An unreadable record is the sweep's to set aside; its trial stands in the table all the same."""
    if Path(key).name != key:
        return None
    try:
        return folder.read(key)
    except RecordError:
        return None


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
