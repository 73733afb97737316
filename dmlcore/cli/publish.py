"""`dmlcore publish`: models of trained trials into MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmlcore.cli.options import FOUND, Study, prepared_folder
from dmlcore.cli.study import plan_of
from dmlcore.cli.trials import finished_trial

if TYPE_CHECKING:
    from dmlcore.records import TrialRecord
    from dmlcore.tracking import MlflowTracker


def publish(
    trials: Annotated[
        list[str] | None,
        typer.Argument(help="Keys of finished trials; none: of each data set the best on validation."),
    ] = None,
    study: Study = Path(),
    register: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Also make the model a version of this registered model."),
    ] = None,
) -> None:
    """Log models of trained trials to MLflow, each to the run of its trial and once.

    A model takes images, uint8 [N, H, W, C], and gives embeddings of length 1, float32 [N, D]. The store is the server
    that MLFLOW_TRACKING_URI names, else state/mlflow.db. Exits with 1 if the store does not take it.

    Example: dmlcore publish 0123abcd --register glyph-embedder --study .
    """
    from dmlcore.config.study import load_study
    from dmlcore.tracking import MlflowTracker

    study = study.resolve()
    records = _chosen(study, trials or [])
    if register and len(records) != 1:
        raise ValueError(f"--register takes one trial, {len(records)} are chosen; name the one")
    tracker = MlflowTracker.for_study(load_study(study / "params.yaml").sweep.study, study / "state", None)
    for record in records:
        typer.echo(_publish(tracker, study, record, register))


def _chosen(study: Path, keys: list[str]) -> list[TrialRecord]:
    """The trials that are named, or the best of each data set."""
    from dmlcore.tracking.models import best_trials

    if keys:
        return [finished_trial(study, key)[0] for key in keys]
    found = best_trials(plan_of(study).records.values())
    if not found:
        raise ValueError(f"{study} must have a finished trial, none is; `dvc repro` runs them")
    return found


def _publish(tracker: MlflowTracker, study: Path, record: TrialRecord, name: str | None) -> str:
    """Log the model where it is not, register it where a name is given; a line on what was done."""
    from mlflow.exceptions import MlflowException

    from dmlcore.tracking.models import find_model, log_model, register
    from dmlcore.training.load import store_of

    runs = tracker.runs
    try:
        runs.prepare()
        found = find_model(runs, record)
        model = found or log_model(runs, record, store_of(study, record), prepared_folder(study))
        text = f"{record.name} [{record.trial_key}]: models:/{model.model_id}" + (
            " (logged before)" if found else ""
        )
        return text + (f", registered as models:/{name}/{register(runs, model, name)}" if name else "")
    except MlflowException as error:
        typer.echo(
            f"dmlcore: MLflow at {runs.uri} must take the model, it did not: {str(error)[:300]}", err=True
        )
        raise typer.Exit(FOUND) from None
