"""Planning: expand a sweep, check its cells, and look up their records."""

from __future__ import annotations

from pathlib import Path

from dmlcore.config.sweep import SweepConfig
from dmlcore.records import RecordFolder
from dmlcore.sweep.grid import check_distinct, expand
from dmlcore.sweep.plan import Plan, Planner, ended_records
from dmlcore.sweep.validate import check_cells
from dmlcore.training.store import TrialStore


def make_plan(sweep: SweepConfig, *, study: Path, prepared: Path) -> Plan:
    """Expand a sweep, check every cell, and look up what is recorded; changes nothing on disk.

    Args:
        sweep: the section of params.yaml.
        study: the study's folder, absolute; records and storage are in it.
        prepared: the folder of prepared data sets.

    Raises:
        ConfigError: a cell that cannot be built, two cells that are the same trial.
        RecordError: the log of a search is damaged.
    """
    if sweep.search is None:
        cells = expand(sweep)
        check_cells(cells)
        planner = Planner(sweep, study, prepared)
        plan = Plan([planner(cell) for cell in cells])
        check_distinct([trial.key for trial in plan.trials], cells)
    else:
        from dmlcore.sweep.search.plan import search_plan  # here, so that a grid does not import Optuna

        plan = search_plan(sweep, sweep.search, study=study, prepared=prepared)
    _look_up(plan, RecordFolder(study / "state" / "records"))
    return plan


def _look_up(plan: Plan, folder: RecordFolder) -> None:
    """Fill in the records of a plan, and which of its trials need only be evaluated."""
    recorded, plan.faults = folder.read_all()
    plan.records = ended_records(plan.trials, recorded.get)
    planned = {trial.key for trial in plan.trials}
    plan.others = [record for key, record in recorded.items() if key not in planned]
    trained = {record.train_key: record for record in recorded.values() if record.status == "finished"}
    for trial in plan.trials:
        earlier = trained.get(trial.keys.train)
        # The checksums decide: embeddings that were removed or changed since cannot be evaluated again.
        if (
            trial.key not in plan.records
            and earlier is not None
            and TrialStore(trial.store_folder).matches(earlier.files)
        ):
            plan.reevaluate.append((trial, earlier))
