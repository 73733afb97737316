"""`dmlcore evaluate` and `dmlcore reevaluate`: metrics of embeddings in files, and of those that trials stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmlcore.cli.options import INCOMPLETE, Study, read_npy

if TYPE_CHECKING:
    import polars as pl

    from dmlcore.records import TrialRecord

PRINTED = ("map_at_r", "recall_at_1", "opis", "opis_corrected", "opis_validation_range")
WRITERS = {".parquet": "write_parquet", ".csv": "write_csv"}


def evaluate(
    embeddings: Annotated[Path, typer.Option(help="NumPy file [N, D] of floats, one row per image.")],
    labels: Annotated[Path, typer.Option(help="NumPy file [N] of integers, the class of each row.")],
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the metrics here as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write utility against threshold here as PNG.")] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples of the classes for the interval of OPIS.")
    ] = 0,
) -> None:
    """Compute the accuracy and threshold consistency of your own embeddings.

    Example: dmlcore evaluate --embeddings test.npy --labels test_labels.npy --json metrics.json --plot utility.png
    """
    from dmlcore.core.io import write_atomically
    from dmlcore.metrics.evaluation import evaluate as compute_metrics
    from dmlcore.records import finite

    evaluation = compute_metrics(read_npy(embeddings), read_npy(labels), bootstrap=bootstrap)
    for name, value in evaluation.metrics.items():
        typer.echo(f"{name:36} {value:.6g}")
    if json_path is not None:
        write_atomically(json_path, json.dumps(finite(evaluation.metrics), indent=1) + "\n")
    if plot is not None:
        from dmlcore.report.figures.utility import save_utility_plot

        save_utility_plot(evaluation, plot)


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
    rows, errors = [], []
    for record in _finished_records(study):
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
    if out is not None and out.suffix not in WRITERS:
        raise ValueError(f"--out must end in {' or '.join(WRITERS)}, got {out}")


def _finished_records(study: Path) -> list[TrialRecord]:
    from dmlcore.records import RecordFolder

    folder = RecordFolder(study / "state" / "records")
    # not `all()`, which renames a damaged record: this command changes nothing in the study
    records = [folder.read(path.stem) for path in sorted(folder.folder.glob("[!.]*.json"))]
    finished = [record for record in records if record is not None and record.status == "finished"]
    if not finished:
        raise ValueError(f"{folder.folder} has no record of a finished trial; run the sweep")
    return finished


def _metrics_row(study: Path, record: TrialRecord, changes: dict[str, Any]) -> dict[str, Any]:
    from dmlcore.config.base import parse
    from dmlcore.config.trial import TrialConfig
    from dmlcore.records import finite
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

    from dmlcore.core.io import atomic_write_path

    table: pl.DataFrame = pl.DataFrame(rows, infer_schema_length=None)
    with atomic_write_path(out) as temporary:
        getattr(table, WRITERS[out.suffix])(temporary)
