"""The plan of a sweep: its trials with their keys and paths, against the records on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dmlcore.config.base import ConfigError, canonical
from dmlcore.config.sweep import SweepConfig
from dmlcore.config.trial import TrialConfig
from dmlcore.core.hashing import json_sha256
from dmlcore.data.dataset import PreparedDataset
from dmlcore.records import RecordError, TrialRecord
from dmlcore.sweep.grid import Cell
from dmlcore.sweep.trial_key import TrialKeys, trial_keys
from dmlcore.training.code_hash import library_versions

CANCELLED = "Cancelled"
"""`error_type` of the record of a trial that somebody cancelled: stopped, and not run again until that is asked."""


@dataclass(frozen=True)
class PlannedTrial:
    """A cell with its keys and the paths of its files: all that a worker needs."""

    cell: Cell
    keys: TrialKeys
    data_folder: Path
    store_folder: Path
    weights: Path | None = None
    """Path of the local weights on this machine; None: the one in the config."""

    @property
    def local_config(self) -> TrialConfig:
        """Return the config with the path of the weights on this machine."""
        config = self.cell.config
        if self.weights is None:
            return config
        backbone = config.model.backbone.model_copy(update={"weights": str(self.weights)})
        return config.model_copy(update={"model": config.model.model_copy(update={"backbone": backbone})})

    @property
    def key(self) -> str:
        return self.keys.trial

    @property
    def name(self) -> str:
        return self.cell.name

    def __str__(self) -> str:
        return self.key

    def is_complete(self, record: TrialRecord) -> bool:
        """Return whether nothing is left to run.

        A stopped record completes only a trial that may be stopped early, or was cancelled. A diverged search trial
        counts as complete, because rerunning it is deterministic.
        """
        if record.status == "failed":
            from dmlcore.training.loss_means import TrainingError  # here: it imports torch

            diverged = record.error_type == TrainingError.__name__
            return diverged and self.cell.labels.get("role") == "searched"
        stopped_for_good = self.cell.comparison_group is not None or record.error_type == CANCELLED
        return record.status == "finished" or stopped_for_good


@dataclass(frozen=True)
class WaitingTrial:
    """A cell whose config, and so its key, is not known before another trial has finished."""

    cell: Cell
    reason: str
    """What it waits for; of one that failed, why it will not run."""
    failed: bool = False

    @property
    def name(self) -> str:
        return self.cell.name

    @property
    def key(self) -> str:
        """Return what stands for the key in tables."""
        return f"waiting-{json_sha256([self.cell.labels, canonical(self.cell.config)])[:8]}"


def ended_records(
    trials: Iterable[PlannedTrial], read: Callable[[str], TrialRecord | None]
) -> dict[str, TrialRecord]:
    """Return the records of trials that have ended: finished, failed, or stopped where trials may be.

    A trial that was stopped early, where trials now run to their end, counts as missing.

    Args:
        trials: those to look up.
        read: trial key -> its record, if there is one.
    """
    return {
        trial.key: record
        for trial in trials
        if (record := read(trial.key)) is not None and (trial.is_complete(record) or not record.done)
    }


class Planner:
    """Gives a cell its keys and the paths of its files.

    Args:
        sweep: the section of params.yaml.
        study: the study's folder.
        prepared: the folder of prepared data sets.
    """

    def __init__(self, sweep: SweepConfig, study: Path, prepared: Path) -> None:
        self.prepared, self.storage, self.gpus = prepared, study / sweep.storage, sweep.resources.gpus
        self._hashes: dict[str, str] = {}
        self._versions = library_versions()

    def data_hash(self, dataset: str) -> str:
        if dataset not in self._hashes:
            self._hashes[dataset] = PreparedDataset.open(self.prepared / dataset).data_hash
        return self._hashes[dataset]

    def __call__(self, cell: Cell) -> PlannedTrial:
        """Plan a cell.

        Raises:
            ConfigError: it decodes on a GPU and the sweep gives its trials none.
        """
        dataset = cell.config.dataset
        if cell.config.train.decoder == "gpu" and not self.gpus:
            raise ConfigError(
                f"sweep cell [{cell.name}]: train.decoder gpu needs a GPU and resources.gpus is 0: "
                "set resources.gpus, or remove train.decoder"
            )
        keys = trial_keys(cell.config, self.data_hash(dataset), self._versions)
        # Files go by the train key alone: a trial with other evaluation settings finds its embeddings there.
        return PlannedTrial(cell, keys, self.prepared / dataset, self.storage / keys.train[:16])


@dataclass(frozen=True)
class SearchState:
    """How far the search of a data set x backbone x loss x variant has come."""

    name: str
    suggested: int
    remaining: int
    """Settings still to try."""
    seeds: int
    """Number of seeds that the chosen setting is run at."""
    chosen: bool
    """Whether a setting was chosen."""
    waits: bool
    """Whether it tried all its settings and waits for the baseline's accuracy to choose one."""
    example: PlannedTrial
    """One of its settings."""


@dataclass
class Plan:
    """The trials of a sweep by what is to be done with them."""

    trials: list[PlannedTrial]
    waiting: list[WaitingTrial] = field(default_factory=list)
    """Those that have no key yet, or never will: their margins come from the scores of another trial."""
    attempted: set[str] = field(default_factory=set)
    """Keys of trials that ran in this run of the stage: they are not missing again."""
    records: dict[str, TrialRecord] = field(default_factory=dict)
    """Records of this sweep's trials, failed ones included."""
    reevaluate: list[tuple[PlannedTrial, TrialRecord]] = field(default_factory=list)
    """Trained under the same train_key, evaluated under another eval_key."""
    others: list[TrialRecord] = field(default_factory=list)
    """The study's further records: of cells since changed or dropped."""
    faults: dict[str, RecordError] = field(default_factory=dict)
    """Trial key -> what is wrong with the file of its record; of other sweeps too."""
    searches: list[SearchState] = field(default_factory=list)

    @property
    def missing(self) -> list[PlannedTrial]:
        """Return the trials to run: those without a record, and the failed ones again."""
        others = {trial.key for trial, _ in self.reevaluate} | self.attempted
        return [
            trial
            for trial in self.trials
            if trial.key not in others
            and not (trial.key in self.records and trial.is_complete(self.records[trial.key]))
        ]

    @property
    def is_complete(self) -> bool:
        """Return whether every trial has ended well and every search has chosen."""
        return not (self.missing or self.waiting or self.remaining_trials or self.searches_without_result)

    @property
    def datasets(self) -> list[str]:
        """Return the names of the data sets, of searches without trials too."""
        cells = [trial.cell for trial in (*self.trials, *(search.example for search in self.searches))]
        cells += [waiting.cell for waiting in self.waiting]
        return sorted({cell.config.dataset for cell in cells})

    @property
    def foreign_faults(self) -> list[RecordError]:
        """Return what is wrong with files that are no records of this sweep: nobody touches them."""
        planned = {trial.key for trial in self.trials}
        return [error for key, error in self.faults.items() if key not in planned]

    @property
    def recorded(self) -> list[TrialRecord]:
        """Return every record of the study."""
        return [*self.records.values(), *self.others]

    @property
    def spent_seconds(self) -> float:
        """Return the time of the recorded trials of this sweep, of each its last attempt."""
        return sum(record.seconds for record in self.records.values())

    @property
    def remaining_trials(self) -> int:
        """Return how many settings the searches have still to try."""
        return sum(search.remaining for search in self.searches)

    @property
    def searches_without_result(self) -> list[str]:
        """Return the searches that tried all their settings, of which none reported the selection metric."""
        return [s.name for s in self.searches if not (s.remaining or s.chosen or s.waits)]

    def counts(self) -> dict[str, int]:
        """Count the trials that are done, failed, to evaluate again, and to run in all."""
        status = Counter(record.status for record in self.records.values())
        searching = {"still to try": self.remaining_trials} if self.searches else {}
        waiting = {"waiting for the scores of others": len(self.waiting)} if self.waiting else {}
        return {
            "planned": len(self.trials) + len(self.waiting),
            "done": status["finished"] + status["stopped"],
            "failed before": status["failed"],
            "to evaluate again": len(self.reevaluate),
            "to run": len(self.missing),
            **waiting,
            **searching,
        }
