"""`dmlcore reevaluate`, `publish`, `export-model`: finished trials evaluated again, their models handed on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmlcore.cli.options import INCOMPLETE, Study, finished_trial, prepared_folder
from dmlcore.cli.study import plan_of
from dmlcore.core.io import write_atomically

if TYPE_CHECKING:
    from dmlcore.records import TrialRecord
    from dmlcore.tracking import MlflowTracker

PRINTED = ("map_at_r", "recall_at_1", "opis", "opis_corrected", "opis_validation_range")
SUFFIXES = (".parquet", ".csv")

FarRange = Annotated[
    tuple[float, float] | None,
    typer.Option(help="Pooled false-accept rates at the ends of the calibration range, two shares 0 to 1."),
]
RecallK = Annotated[
    list[int] | None, typer.Option(help="A k of recall_at_k, number of neighbours; may be repeated.")
]
NumThresholds = Annotated[int | None, typer.Option(help="Thresholds in the range, at least 2.")]
Epsilon = Annotated[float | None, typer.Option(help="Share of the classes for epsilon_opis, 0 to 1.")]
Bootstrap = Annotated[
    int | None, typer.Option(help="Resamples of the classes for the interval of OPIS; 0: no interval.")
]

Card = Annotated[
    Path | None, typer.Option(help="Card of `dmlcore calibrate` for the trial: its threshold goes along.")
]


def reevaluate(
    study: Study = Path(),
    far_range: FarRange = None,
    k: RecallK = None,
    num_thresholds: NumThresholds = None,
    epsilon: Epsilon = None,
    bootstrap: Bootstrap = None,
    out: Annotated[Path | None, typer.Option(help="Write all metrics here, .parquet or .csv.")] = None,
) -> None:
    """Evaluate all finished trials of a study again from their stored embeddings, without training.

    Records are not changed. Settings that are not given stay as in each trial's config. Exits with 1 if a trial could
    not be evaluated.

    Example: dmlcore reevaluate --study . --far-range 0.001 0.01 --k 1 --k 10 --out again.parquet
    """
    given: dict[str, Any] = {"far_range": far_range, "ks": k or None, "num_thresholds": num_thresholds}
    given |= {"epsilon": epsilon, "bootstrap": bootstrap}
    changes = {name: value for name, value in given.items() if value is not None}
    _check(changes, out)
    rows = []
    records, errors = _finished_records(study)
    for record in records:
        try:
            rows.append(_metrics_row(study, record, changes))
        except (ValueError, OSError) as error:
            errors.append(f"{record.trial_key}: {error}")
            continue
        typer.echo(_line(rows[-1]))
    if out is not None and rows:
        _write(rows, out)
    for line in errors:
        typer.echo(f"dmlcore: not evaluated: {line}", err=True)
    total = len(rows) + len(errors)
    typer.echo(f"{len(rows)} of {total} finished trials evaluated" + (f": {out}" if out else ""))
    if errors:
        raise typer.Exit(INCOMPLETE)


def _check(changes: dict[str, Any], out: Path | None) -> None:
    """Refuse wrong settings before the first trial is read."""
    from dmlcore.config.base import parse
    from dmlcore.config.trial import EvaluationConfig

    parse(EvaluationConfig, changes, "settings")
    if out is not None and out.suffix not in SUFFIXES:
        raise ValueError(f"--out must end in {' or '.join(SUFFIXES)}, got {out}")


def _finished_records(study: Path) -> tuple[list[TrialRecord], list[str]]:
    """Return the records to evaluate, and what is wrong with the files of others."""
    from dmlcore.records import RecordFolder

    folder = RecordFolder(study / "state" / "records")
    records, faults = folder.read_all()
    finished = [record for record in records.values() if record.status == "finished"]
    if not finished:
        raise ValueError(f"{folder.folder} has no record of a finished trial; run the sweep")
    return finished, [str(fault) for fault in faults.values()]


def _metrics_row(study: Path, record: TrialRecord, changes: dict[str, Any]) -> dict[str, Any]:
    from dmlcore.config.base import parse
    from dmlcore.config.trial import TrialConfig
    from dmlcore.core.sealed_json import finite
    from dmlcore.training.evaluation import evaluate_stored
    from dmlcore.training.load import store_of

    values = {**record.config, "evaluation": {**record.config["evaluation"], **changes}}
    config = parse(TrialConfig, values, "trial")
    metrics, _ = evaluate_stored(store_of(study, record).load, config.evaluation)
    settings = {f"evaluation.{name}": str(value) for name, value in changes.items()}
    return {"trial_key": record.trial_key, **record.labels, **settings, **finite(metrics)}


def _line(row: dict[str, Any]) -> str:
    numbers = [f"{name} {row[f'test/{name}']:.5f}" for name in PRINTED if row.get(f"test/{name}") is not None]
    return f"{row['trial_key']}  " + "  ".join(numbers)


def _write(rows: list[dict[str, Any]], out: Path) -> None:
    import polars as pl

    from dmlcore.core.spreadsheet import spreadsheet_csv
    from dmlcore.sweep.table import table_bytes

    table = pl.DataFrame(rows, infer_schema_length=None)
    write_atomically(out, spreadsheet_csv(table) if out.suffix == ".csv" else table_bytes(table))


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
    card: Card = None,
) -> None:
    """Log models of trained trials to MLflow, each to the run of its trial and only once.

    A model takes images, uint8 [N, H, W, C], and returns embeddings of length 1, float32 [N, D]. The store is the
    server that MLFLOW_TRACKING_URI names, else state/mlflow.db. Exits with 1 if the store refuses the model. A model
    that was logged without `--card` stays, and one with it is logged beside it.

    Example: dmlcore publish 0123abcd --register glyph-embedder --study .
    """
    from dmlcore.config.study import load_study
    from dmlcore.tracking import MlflowTracker

    records = _chosen(study, trials or [])
    if register and len(records) != 1:
        raise ValueError(f"--register takes one trial, {len(records)} are chosen; name the one")
    if card is not None:
        _check_card(card, records)
    tracker = MlflowTracker.for_study(load_study(study / "params.yaml").sweep.study, study / "state", None)
    for record in records:
        typer.echo(_publish(tracker, study, record, register, card))


def _chosen(study: Path, keys: list[str]) -> list[TrialRecord]:
    """Return the named trials, or the best of each data set."""
    from dmlcore.tracking.models import best_trials

    if keys:
        return [finished_trial(study, key)[0] for key in keys]
    best = best_trials(plan_of(study).records.values())
    if not best:
        raise ValueError(f"{study} has no finished trial; `dvc repro` runs them")
    return best


def _check_card(card: Path, records: list[TrialRecord]) -> None:
    """Refuse a card of another trial, or for several."""
    from dmlcore.hub.export import threshold_of

    if len(records) != 1:
        raise ValueError(f"--card takes one trial, {len(records)} are chosen; name the one")
    threshold_of(card, records[0])


def _publish(
    tracker: MlflowTracker, study: Path, record: TrialRecord, name: str | None, card: Path | None
) -> str:
    """Log the model unless it is there, register it if a name is given; return a line that says so."""
    from mlflow.exceptions import MlflowException

    from dmlcore.core.errors import without_passwords
    from dmlcore.tracking.models import find_model, link_to_run, log_model, register
    from dmlcore.training.load import store_of

    runs = tracker.runs
    try:
        runs.prepare()
        found = find_model(runs, record, card)
        model = found or log_model(runs, record, store_of(study, record), prepared_folder(study), card)
        link_to_run(runs, record, model)
        before = " (logged before)" if found else ""
        version = f", registered as models:/{name}/{register(runs, model, name)}" if name else ""
    except MlflowException as error:
        address, reason = without_passwords(runs.uri), without_passwords(str(error))[:300]
        typer.echo(f"dmlcore: MLflow at {address} did not take the model: {reason}", err=True)
        raise typer.Exit(INCOMPLETE) from None
    return f"{record.name} [{record.trial_key}]: models:/{model.model_id}{before}{version}"


def export_model(
    trial: Annotated[str, typer.Argument(help="Key of a finished trial of the study.")],
    into: Annotated[Path, typer.Option(help="Folder to write: new, empty, or an earlier export.")],
    study: Study = Path(),
    card: Card = None,
    onnx: Annotated[bool, typer.Option(help="Write model.onnx, where the extra `onnx` is installed.")] = True,
) -> None:
    """Write a trial's model as a folder that needs no dmlcore: weights, all settings, a model card, ONNX.

    `dmlcore.hub.Embedder.from_pretrained(FOLDER)` reads it, as does the code in its README.md. All files are written,
    or none.

    Example: dmlcore export-model 0123abcd --into glyph-embedder --card card.json --study .
    """
    from dmlcore.hub.export import exported
    from dmlcore.hub.folder import check_folder

    check_folder(into)
    record, store = finished_trial(study, trial)
    embedder = exported(record, store, prepared_folder(study), card)
    embedder.save_pretrained(into, onnx=onnx)
    written = sorted(path.name for path in into.iterdir())
    typer.echo(f"{record.name} [{record.trial_key}]: {into}: {', '.join(written)}")
    if onnx and "model.onnx" not in written:
        typer.echo(
            "dmlcore: no model.onnx: pip install 'dmlcore[onnx]', or the weights are above 1.9 GB", err=True
        )
