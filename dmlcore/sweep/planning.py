"""Planning: expand a sweep, check its cells, and look up their records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dmlcore.config.sweep import SweepConfig
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.sweep.grid import check_distinct, expand
from dmlcore.sweep.margin_rates import rates_of
from dmlcore.sweep.plan import Plan, PlannedTrial, Planner, WaitingTrial, ended_records
from dmlcore.sweep.score_margins import Resolver, resolve, stand_in
from dmlcore.sweep.validate import check_cells


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
    recorded, faults = RecordFolder(study / "state" / "records").read_all()
    if sweep.search is None:
        plan = _grid_plan(sweep, Planner(sweep, study, prepared), recorded)
    else:
        from dmlcore.sweep.search.plan import search_plan  # here, so that a grid does not import Optuna

        plan = search_plan(sweep, sweep.search, study=study, prepared=prepared)
    plan.faults = faults
    _look_up(plan, recorded)
    return plan


def _grid_plan(sweep: SweepConfig, planner: Planner, recorded: Mapping[str, TrialRecord]) -> Plan:
    """Plan every cell of the grid; those with margins from scores as far as their bases have finished."""
    cells = expand(sweep)
    rated = [cell for cell in cells if rates_of(cell)]
    if not rated:
        check_cells(cells)
        plan = Plan([planner(cell) for cell in cells])
        check_distinct([trial.key for trial in plan.trials], cells)
        return plan
    check_cells([stand_in(cell) for cell in cells])
    check_distinct([repr(cell.config) for cell in rated], rated)
    own = [planner(cell) for cell in cells if not rates_of(cell)]
    check_distinct([trial.key for trial in own], [trial.cell for trial in own])
    found = list(resolve(rated, own, Resolver(planner, recorded)))
    trials = [*own, *(trial for trial in found if isinstance(trial, PlannedTrial))]
    order = {repr(cell.labels): place for place, cell in enumerate(cells)}
    trials.sort(key=lambda trial: order[repr(trial.cell.labels)])
    return Plan(trials, [trial for trial in found if isinstance(trial, WaitingTrial)])


def _look_up(plan: Plan, recorded: Mapping[str, TrialRecord]) -> None:
    """Fill in the records of a plan, and which of its trials need only be evaluated."""
    plan.records = ended_records(plan.trials, recorded.get)
    planned = {trial.key for trial in plan.trials}
    plan.others = [record for key, record in recorded.items() if key not in planned]
    trained = {record.train_key: record for record in recorded.values() if record.status == "finished"}
    for trial in plan.trials:
        earlier = trained.get(trial.keys.train)
        # The checksums decide: embeddings that were removed or changed since cannot be evaluated again.
        if trial.key not in plan.records and earlier is not None and _has_files(trial, earlier):
            plan.reevaluate.append((trial, earlier))


def _has_files(trial: PlannedTrial, earlier: TrialRecord) -> bool:
    from dmlcore.training.store import TrialStore  # here: it imports torch

    return TrialStore(trial.store_folder).matches(earlier.files)
