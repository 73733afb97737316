"""From a sweep and its records to a Plan."""

from __future__ import annotations

from pathlib import Path

from dmlcore.config.sweep import SweepConfig
from dmlcore.data.dataset import PreparedDataset
from dmlcore.records import RecordFolder
from dmlcore.sweep.grid import Cell, check_distinct, expand
from dmlcore.sweep.plan import Plan, PlannedTrial
from dmlcore.sweep.trial_key import trial_keys
from dmlcore.sweep.validate import check_cells
from dmlcore.training.store import TrialStore


def make_plan(sweep: SweepConfig, *, study: Path, prepared: Path) -> Plan:
    """Expand a sweep, check every cell, and look up what is recorded.

    Args:
        sweep: the section of params.yaml.
        study: the study's folder, absolute; records and storage lie under it.
        prepared: the folder of prepared data sets.

    Raises:
        ConfigError: a cell that cannot be built, two cells that are one trial.
    """
    if sweep.search is not None:
        from dmlcore.sweep.search.plan import search_plan

        return _look_up(search_plan(sweep, sweep.search, study=study, prepared=prepared), study)
    cells = expand(sweep)
    check_cells(cells)
    planner = Planner(sweep, study, prepared)
    trials = [planner(cell) for cell in cells]
    check_distinct([trial.key for trial in trials], cells)
    return _look_up(Plan(trials), study)


class Planner:
    """Gives a cell its keys and the places of its files."""

    def __init__(self, sweep: SweepConfig, study: Path, prepared: Path) -> None:
        self.prepared, self.storage = prepared, study / sweep.storage
        self._hashes: dict[str, str] = {}

    def data_hash(self, dataset: str) -> str:
        if dataset not in self._hashes:
            self._hashes[dataset] = PreparedDataset.open(self.prepared / dataset).data_hash
        return self._hashes[dataset]

    def __call__(self, cell: Cell) -> PlannedTrial:
        dataset = cell.config.dataset
        keys = trial_keys(cell.config, self.data_hash(dataset))
        return PlannedTrial(cell, keys, self.prepared / dataset, self.storage / keys.train[:16])


def _look_up(plan: Plan, study: Path) -> Plan:
    folder = RecordFolder(study / "state" / "records")
    for trial in plan.trials:
        record = folder.read_or_set_aside(trial.key)
        if record is not None and (trial.is_complete(record) or not record.done):
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
