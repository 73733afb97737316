"""`dmlcore publish`: models of trained trials into MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmlcore.cli.options import INCOMPLETE, Study, finished_trial, prepared_folder
from dmlcore.cli.study import plan_of

if TYPE_CHECKING:
    from dmlcore.records import TrialRecord
    from dmlcore.tracking import MlflowTracker


def publish(
    trials: Annotated[
        list[str] | None,
        typer.Argument(help="Keys of finished trials. Default: the best on validation of each data set."),
    ] = None,
    study: Study = Path(),
    register: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Also make the model a version of this registered model."),
    ] = None,
) -> None:
    """Log models of trained trials to MLflow, each to the run of its trial and only once.

    A model takes images, uint8 [N, H, W, C], and returns embeddings of length 1, float32 [N, D]. The store is the
    server that MLFLOW_TRACKING_URI names, else state/mlflow.db. Exits with 1 if the store refuses the model.

    Example: dmlcore publish 0123abcd --register glyph-embedder --study .
    """
    from dmlcore.config.study import load_study
    from dmlcore.tracking import MlflowTracker

    records = _chosen(study, trials or [])
    if register and len(records) != 1:
        raise ValueError(f"--register takes one trial, {len(records)} are chosen; name the one")
    tracker = MlflowTracker.for_study(load_study(study / "params.yaml").sweep.study, study / "state", None)
    for record in records:
        typer.echo(_publish(tracker, study, record, register))


def _chosen(study: Path, keys: list[str]) -> list[TrialRecord]:
    """Return the named trials, or the best of each data set."""
    from dmlcore.tracking.models import best_trials

    if keys:
        return [finished_trial(study, key)[0] for key in keys]
    best = best_trials(plan_of(study).records.values())
    if not best:
        raise ValueError(f"{study} has no finished trial; `dvc repro` runs them")
    return best


def _publish(tracker: MlflowTracker, study: Path, record: TrialRecord, name: str | None) -> str:
    """Log the model unless it is there, register it if a name is given; return a line that says so."""
    from mlflow.exceptions import MlflowException

    from dmlcore.tracking.models import find_model, log_model, register
    from dmlcore.training.load import store_of

    runs = tracker.runs
    try:
        runs.prepare()
        found = find_model(runs, record)
        model = found or log_model(runs, record, store_of(study, record), prepared_folder(study))
        before = " (logged before)" if found else ""
        version = f", registered as models:/{name}/{register(runs, model, name)}" if name else ""
    except MlflowException as error:
        typer.echo(f"dmlcore: MLflow at {runs.uri} did not take the model: {str(error)[:300]}", err=True)
        raise typer.Exit(INCOMPLETE) from None
    return f"{record.name} [{record.trial_key}]: models:/{model.model_id}{before}{version}"
