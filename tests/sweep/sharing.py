"""A sweep of one trial that waits at a gate, for two processes at once. Arguments: study, data, store.

Without Ray: what two drivers do with a store, and what their workers do, in one process each.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dmlcore.sweep.execution.worker import execute
from dmlcore.sweep.team_store import TeamStore
from dmlcore.sweep.team_sync import TeamSync
from tests.faults.sabotage import Fault, Gate, Saboteur
from tests.faults.study import Study, study_config
from tests.sweep.sweeps import plan_of, worker_context


def shared_study(folder: Path, prepared: Path, address: str) -> Study:
    config = study_config(seeds=[0], regularizers=[[]], records=address, records_files=True)
    return Study(folder, prepared, config)


def run(study: Study) -> None:
    folder = study.folders.study
    team = TeamStore.of(study.config, folder)
    sync = TeamSync(team, study.records, folder / study.config.storage)
    (trial,) = sync.taking(lambda: plan_of(study.config, study.folders)).missing
    faults = {trial.store_folder.name: (Fault(2, Gate(folder / "gate")),)}
    context = worker_context(study.folders, run=Saboteur(folder, faults), team=team)
    with sync.leaving():
        execute(trial, context, lambda epoch: None)


if __name__ == "__main__":
    folder, prepared = (Path(argument) for argument in sys.argv[1:3])
    run(shared_study(folder, prepared, sys.argv[3]))
