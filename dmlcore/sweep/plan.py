"""What a sweep still has to do: its cells against the records on disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmlcore.config.base import canonical
from dmlcore.config.trial import TrialConfig
from dmlcore.records import TrialRecord
from dmlcore.sweep.grid import Cell
from dmlcore.sweep.trial_key import TrialKeys
from dmlcore.training.run import TrainingError


@dataclass(frozen=True)
class PlannedTrial:
    """A cell with its keys and where its files lie: all that a worker needs."""

    cell: Cell
    keys: TrialKeys
    data_folder: Path
    store_folder: Path
    weights: Path | None = None
    """Where this machine has the local weights; None: where the config says."""

    @property
    def config_here(self) -> TrialConfig:
        """The config with the path of the weights on this machine."""
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
        """Whether nothing is left to run.

        A trial that may not be stopped early is not settled by a stopped one. A setting of a search that diverged has
        answered: it would do so again.
        """
        if record.status == "failed":
            diverged = record.error_type == TrainingError.__name__
            return diverged and self.cell.labels.get("role") == "searched"
        return record.status == "finished" or self.cell.rivals is not None


@dataclass(frozen=True)
class SearchState:
    """How far the search of a data set x backbone x loss x variant has come."""

    name: str
    asked: int
    to_ask: int
    seeds: int
    """At how many the chosen setting is run."""
    chosen: bool
    """Whether a setting was chosen."""
    example: PlannedTrial
    """One of its settings."""


@dataclass
class Plan:
    """The trials of a sweep by what is to be done with them."""

    trials: list[PlannedTrial]
    records: dict[str, TrialRecord] = field(default_factory=dict)
    """Records of this sweep's trials, failed ones included."""
    reevaluate: list[tuple[PlannedTrial, TrialRecord]] = field(default_factory=list)
    """Trained under the same train_key, evaluated under another eval_key."""
    others: list[TrialRecord] = field(default_factory=list)
    """Records of the study that are of none of these trials: of cells since changed or dropped."""
    searches: list[SearchState] = field(default_factory=list)

    @property
    def missing(self) -> list[PlannedTrial]:
        """Trials to run: those without a record, and the failed ones again."""
        waiting = {trial.key for trial, _ in self.reevaluate}
        return [trial for trial in self.trials if trial.key not in waiting and not self._settled(trial)]

    def _settled(self, trial: PlannedTrial) -> bool:
        return trial.key in self.records and trial.is_complete(self.records[trial.key])

    def counts(self) -> dict[str, int]:
        """How many trials are done, failed, to re-evaluate, and to run in all."""
        status = Counter(record.status for record in self.records.values())
        to_ask = {"to ask": self.to_ask} if self.searches else {}
        return {
            "planned": len(self.trials),
            "done": status["finished"] + status["stopped"],
            "failed before": status["failed"],
            "to evaluate again": len(self.reevaluate),
            "to run": len(self.missing),
            **to_ask,
        }

    @property
    def recorded(self) -> list[TrialRecord]:
        """Every record of the study."""
        return [*self.records.values(), *self.others]

    @property
    def searches_without_result(self) -> list[str]:
        """The searches that tried all their settings, none of which gave a value to choose by."""
        return [search.name for search in self.searches if not search.to_ask and not search.chosen]

    @property
    def to_ask(self) -> int:
        """Settings that the searches have still to try."""
        return sum(search.to_ask for search in self.searches)

    def rows(self) -> list[tuple[str, dict[str, Any], dict[str, Any], TrialRecord | None]]:
        """What `records.trials_table` takes."""
        return [
            (trial.key, _columns(trial.cell), canonical(trial.cell.config), self.records.get(trial.key))
            for trial in self.trials
        ]


def _columns(cell: Cell) -> dict[str, Any]:
    return cell.labels | {f"search/{path}": value for path, value in cell.searched.items()}
