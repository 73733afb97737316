"""A tracker in memory, so that what is logged can be tested without MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dmlcore.records import TrialRecord
from dmlcore.tracking.base import Tracker


@dataclass
class MemoryTracker(Tracker):
    """Keeps all that it is told, by trial key."""

    started: list[str] = field(default_factory=list)
    epochs: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    records: dict[str, TrialRecord] = field(default_factory=dict)

    def start(self, trial_key: str, name: str, labels: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self.started.append(trial_key)

    def epoch(self, trial_key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        self.epochs.setdefault(trial_key, {})[epoch] = dict(metrics)

    def finish(self, record: TrialRecord, name: str) -> None:
        self.records[record.trial_key] = record

    def sync(self, records: Iterable[TrialRecord]) -> int:
        missing = [record for record in records if self.records.get(record.trial_key) != record]
        for record in missing:
            self.finish(record, record.name)
        return len(missing)
