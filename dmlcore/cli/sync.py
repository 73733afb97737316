"""`dmlcore sync`: what MLflow is missing, delivered from the records."""

from __future__ import annotations

from pathlib import Path

import typer

from dmlcore.cli.errors import FOUND
from dmlcore.cli.options import Study


def sync(study: Study = Path()) -> None:
    """Deliver to MLflow what its store is missing of a study's trials, from their records.

    Repeat it as often as you like: a trial has one run. Runs that a killed process left running are ended. The store is
    the server that MLFLOW_TRACKING_URI names, else state/mlflow.db. Exits with 1 if the store does not answer, or while
    the sweep runs.

    Example: dmlcore sync --study .
    """
    from filelock import FileLock

    from dmlcore.config import load_study
    from dmlcore.records import RecordFolder
    from dmlcore.tracking import MlflowTracker, TrackingError
    from dmlcore.tracking.aside import LOCK
    from dmlcore.tuning.lock import SweepBusyError, sweep_lock

    study = study.resolve()
    tracker = MlflowTracker.for_study(load_study(study / "params.yaml").sweep.study, study / "state", None)
    try:
        with sweep_lock(study / "state"), FileLock(study / "state" / LOCK):
            records = RecordFolder(study / "state" / "records").all()
            late = tracker.deliver(records)
    except (TrackingError, SweepBusyError) as error:
        typer.echo(f"dmlcore: {error}", err=True)
        raise typer.Exit(FOUND) from None
    typer.echo(f"{late} runs brought up to date, {len(records)} trials are recorded: {tracker.runs.uri}")
