"""What a sweep still has to do: its cells against the records on disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dmlcore.config import ConfigError, ModelConfig, SweepConfig, TrialConfig, canonical
from dmlcore.data.packed import PreparedDataset
from dmlcore.models import Embedder
from dmlcore.models.weights import local_file
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.training.build import build_model, build_objective
from dmlcore.training.features import check_frozen
from dmlcore.training.replay import check_chunks
from dmlcore.training.store import TrialStore
from dmlcore.tuning.cells import Cell, check_distinct, expand
from dmlcore.tuning.keys import TrialKeys, trial_keys


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

    @property
    def missing(self) -> list[PlannedTrial]:
        """Trials to run: those without a record, and the failed ones again."""
        waiting = {trial.key for trial, _ in self.reevaluate}
        return [trial for trial in self.trials if trial.key not in waiting and not self._done(trial.key)]

    def _done(self, key: str) -> bool:
        return key in self.records and self.records[key].done

    def counts(self) -> dict[str, int]:
        """How many trials are done, failed, to re-evaluate, and to run in all."""
        status = Counter(record.status for record in self.records.values())
        return {
            "planned": len(self.trials),
            "done": status["finished"] + status["stopped"],
            "failed before": status["failed"],
            "to evaluate again": len(self.reevaluate),
            "to run": len(self.missing),
        }

    def rows(self) -> list[tuple[str, dict[str, Any], dict[str, Any], TrialRecord | None]]:
        """What `records.trials_table` takes."""
        return [
            (trial.key, trial.cell.labels, canonical(trial.cell.config), self.records.get(trial.key))
            for trial in self.trials
        ]


def make_plan(sweep: SweepConfig, *, study: Path, prepared: Path) -> Plan:
    """Expand a sweep, check every cell, and look up what is recorded.

    Args:
        sweep: the section of params.yaml.
        study: the study's folder, absolute; records and storage lie under it.
        prepared: the folder of prepared data sets.

    Raises:
        ConfigError: a cell that cannot be built, two cells that are one trial.
    """
    cells = expand(sweep)
    check_cells(cells)
    hashes = {
        name: PreparedDataset.open(prepared / name).data_hash
        for name in sorted({cell.config.dataset for cell in cells})
    }
    storage = study / sweep.storage
    trials = []
    for cell in cells:
        keys = trial_keys(cell.config, hashes[cell.config.dataset])
        trials.append(PlannedTrial(cell, keys, prepared / cell.config.dataset, storage / keys.train[:16]))
    check_distinct([trial.key for trial in trials], cells)
    return _look_up(Plan(trials), RecordFolder(study / "state" / "records"))


def _look_up(plan: Plan, folder: RecordFolder) -> Plan:
    for trial in plan.trials:
        record = folder.read_or_set_aside(trial.key)
        if record is not None:
            plan.records[trial.key] = record
    recorded = folder.all()
    planned = {trial.key for trial in plan.trials}
    plan.others = [record for record in recorded if record.trial_key not in planned]
    trained = {record.train_key: record for record in recorded if record.status == "finished"}
    for trial in plan.trials:
        earlier = trained.get(trial.keys.train)
        if (
            trial.key not in plan.records
            and earlier is not None
            and TrialStore(trial.store_folder).matches(earlier.files)
        ):
            plan.reevaluate.append((trial, earlier))
    return plan


def check_cells(cells: list[Cell]) -> None:
    """Build every distinct loss and backbone of the sweep, without memory for weights, before anything runs.

    Raises:
        ConfigError: names the cell and what is wrong with it.
    """
    seen: set[str] = set()
    for cell in cells:
        config = cell.config
        objective = repr((config.loss, config.regularizers, config.model.embedding_dim))
        model = repr((config.model, config.input, config.train.chunk_size, config.train.augmentation))
        if {objective, model} <= seen:
            continue
        try:
            build_objective(config, num_classes=2)
            _check_model(config)
        except ValueError as error:
            raise ConfigError(f"sweep cell [{cell.name}]: {error}") from error
        seen |= {objective, model}


def _check_model(config: TrialConfig) -> None:
    """The network without memory for its weights, and the settings that it must suit."""
    if config.model.trunk == "frozen":
        check_frozen(config)
    local_file(config.model.backbone.weights)
    check_chunks(weightless_model(config.model, in_channels=3), config.train.chunk_size)


def weightless_model(config: ModelConfig, *, in_channels: int) -> Embedder:
    """The network without memory for its weights: names, shapes and layers are those of the real one."""
    backbone = config.backbone.model_copy(update={"weights": None})
    with torch.device("meta"):
        return build_model(config.model_copy(update={"backbone": backbone}), in_channels=in_channels, seed=0)
