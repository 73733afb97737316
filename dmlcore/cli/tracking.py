"""The subcommands of MLflow's store: sync, ui."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmlcore.cli.options import INCOMPLETE, Study
from dmlcore.cli.study import plan_of
from dmlcore.core.errors import without_passwords
from dmlcore.extras import require

if TYPE_CHECKING:
    from dmlcore.records import RecordFolder
    from dmlcore.tracking import MlflowTracker


def sync(study: Study = Path()) -> None:
    """Write to MLflow what its store lacks of a study's trials, from their records, and the verdict of its results.

    Labels that params.yaml has renamed are renamed in the records first. Safe to repeat: a trial has one run.
    Runs that a killed process left open are closed. The store is the server that MLFLOW_TRACKING_URI names,
    else state/mlflow.db. Exits with 1 if the store does not answer, or while the sweep runs.

    Example: dmlcore sync --study .
    """
    from filelock import FileLock

    from dmlcore.config.study import load_study
    from dmlcore.records import RecordFolder
    from dmlcore.sweep.execution.guards import SweepBusyError, sweep_lock
    from dmlcore.tracking.background import LOCK
    from dmlcore.tracking.mlflow import MlflowTracker, TrackingError

    tracker = MlflowTracker.for_study(load_study(study / "params.yaml").sweep.study, study / "state", None)
    try:
        # two locks: the background tracker of a killed sweep may still be writing when the sweep's own lock is free
        with sweep_lock(study / "state"), FileLock(study / "state" / LOCK):
            folder = RecordFolder(study / "state" / "records")
            _take_labels(study, folder)
            records, faults = folder.read_all()
            late = tracker.deliver(list(records.values()))
            _describe(study, tracker)
    except (TrackingError, SweepBusyError) as error:
        typer.echo(f"dmlcore: {error}", err=True)
        raise typer.Exit(INCOMPLETE) from None
    for fault in faults.values():
        typer.echo(f"dmlcore: not delivered: {fault}", err=True)
    store = without_passwords(tracker.runs.uri)
    typer.echo(f"{late} runs brought up to date, {len(records)} trials are recorded: {store}")


def _describe(study: Path, tracker: MlflowTracker) -> None:
    """Show the verdict of the study's results with its experiment; a study without results has none yet."""
    from dmlcore.analysis.results import read_study
    from dmlcore.config.study import load_study
    from dmlcore.report.text.tables import markdown_verdict

    try:
        found = read_study(study, load_study(study / "params.yaml").aggregate)
    except (ValueError, OSError):
        return
    tracker.describe(markdown_verdict(found))


def ui(
    study: Study = Path(),
    port: Annotated[int, typer.Option(help="Port of the pages on 127.0.0.1, 1 to 65535.")] = 5000,
) -> None:
    """Serve MLflow's pages for a study's runs on this machine, with a new password at each start.

    Prints the address, a user and a password, which a browser asks for once; Ctrl-C ends it. The store is the database
    that MLFLOW_TRACKING_URI names, else state/mlflow.db. A server that it names has pages of its own.

    Example: dmlcore ui --study studies/photos
    """
    from dmlcore.config.study import load_study
    from dmlcore.tracking import MlflowTracker
    from dmlcore.tracking.address import SERVERS
    from dmlcore.tracking.ui import serve

    require("ui", "`dmlcore ui`", "flask_wtf")
    runs = MlflowTracker.for_study(
        load_study(study / "params.yaml").sweep.study, study.resolve() / "state", None
    ).runs
    if runs.uri.startswith(SERVERS):
        shown = without_passwords(runs.uri)
        raise ValueError(
            f"MLFLOW_TRACKING_URI names a server, which has pages of its own: {shown}; open them, or unset it"
        )
    runs.prepare()
    raise typer.Exit(serve(runs.uri, port, typer.echo))


def _take_labels(study: Path, folder: RecordFolder) -> None:
    """Rename the labels of records as params.yaml has them now; without the data sets no trial is known by its key."""
    from dmlcore.sweep.execution.outcomes import relabel

    try:
        plan = plan_of(study)
    except (ValueError, OSError) as error:
        text = f"labels are delivered as recorded, not as in params.yaml: {error}"
        typer.echo(f"dmlcore: {without_passwords(text)}", err=True)
        return
    if count := relabel(plan, folder):
        typer.echo(f"{count} records have the labels of params.yaml now")
