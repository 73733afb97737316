"""Forecast: time and memory of trials from past ones, and how many run at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from dmlcore.config.sweep import ResourcesConfig
from dmlcore.records import TrialRecord
from dmlcore.sweep.plan import PlannedTrial, WaitingTrial

SIMILARITY = (
    ("dataset", "backbone", "loss", "variant"),
    ("dataset", "backbone", "loss"),
    ("dataset", "backbone"),
)
"""Labels that a past trial must share with a planned one, the closest match first."""


class PastTrials:
    """The finished trials of a study, to be asked what similar ones took.

    Args:
        records: of the study; those of trials that did not finish count for nothing.
    """

    def __init__(self, records: Iterable[TrialRecord]) -> None:
        self._alike: dict[str, list[TrialRecord]] = {}
        # Computed once for all trials that are alike: a study may have thousands of both.
        self._rates: dict[str, float | None] = {}
        self._memory: dict[str, int | None] = {}
        for record in records:
            if record.status == "finished":
                for key in _likenesses(record.labels, record.config.get("processes")):
                    self._alike.setdefault(key, []).append(record)

    def seconds(self, trial: PlannedTrial | WaitingTrial) -> float | None:
        """Estimate the time of a trial: median over the most similar finished trials, scaled to this one's epochs.

        Returns:
            Seconds; None if there is no similar trial.
        """
        key = self._likeness(trial)
        if key not in self._rates:
            # A trial that was interrupted records the seconds of its last attempt alone.
            uninterrupted = [record for record in self._alike.get(key, []) if record.attempts == 1]
            rates = [record.seconds / record.config["train"]["epochs"] for record in uninterrupted]
            self._rates[key] = median(rates) if rates else None
        rate = self._rates[key]
        return None if rate is None else rate * trial.cell.config.train.epochs

    def memory_bytes(self, trial: PlannedTrial | WaitingTrial) -> int | None:
        """Return the largest peak memory among the most similar trials; None if there is no similar trial."""
        key = self._likeness(trial)
        if key not in self._memory:
            alike = self._alike.get(key, [])
            self._memory[key] = max((record.peak_memory_bytes for record in alike), default=None)
        return self._memory[key]

    def similar(self, trial: PlannedTrial | WaitingTrial) -> list[TrialRecord]:
        """Return the finished trials that share the most labels with this one, and its number of processes."""
        return self._alike.get(self._likeness(trial), [])

    def _likeness(self, trial: PlannedTrial | WaitingTrial) -> str:
        likenesses = _likenesses(trial.cell.labels, trial.cell.config.processes)
        return next((key for key in likenesses if key in self._alike), "")


def _likenesses(labels: Mapping[str, Any], processes: Any) -> list[str]:
    """Name what a trial may share with others, the closest match first."""
    # A trial on another number of processes takes another time, and other memory.
    return [repr((processes, [(name, labels.get(name)) for name in names])) for names in SIMILARITY]


def concurrent_trials(trials: Iterable[PlannedTrial], resources: ResourcesConfig) -> int:
    """Return how many trials run at a time on this machine; a cluster may run more."""
    threads = max((trial.cell.config.threads for trial in trials), default=1) * resources.processes_per_trial
    most = max(1, (os.cpu_count() or 1) // threads)
    if resources.gpus > 0:
        import torch  # here: it takes seconds

        if torch.cuda.is_available():
            most = min(most, max(1, int(torch.cuda.device_count() / resources.gpus)))
    return min(most, resources.max_concurrent or most)
