"""`dmlcore reevaluate`: past trials under other evaluation settings, from their stored embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmlcore.cli.options import FOUND, Study

if TYPE_CHECKING:
    import polars as pl

    from dmlcore.records import TrialRecord


SHOWN = ("map_at_r", "recall_at_1", "opis", "opis_corrected", "opis_validation_range")
WRITERS = {".parquet": "write_parquet", ".csv": "write_csv"}


def reevaluate(
    study: Study = Path(),
    far_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Pooled false-accept rates at the ends of the calibration range, two shares 0 to 1."
        ),
    ] = None,
    k: Annotated[
        list[int] | None, typer.Option(help="A k of recall_at_k, number of neighbours; may be repeated.")
    ] = None,
    num_thresholds: Annotated[int | None, typer.Option(help="Thresholds in the range, at least 2.")] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Share of the classes for epsilon_opis, 0 to 1.")
    ] = None,
    bootstrap: Annotated[
        int | None, typer.Option(help="Resamples of the classes for the interval of OPIS; 0: no interval.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write all metrics here, .parquet or .csv.")] = None,
) -> None:
    """Measure all finished trials of a study again from their stored embeddings: no training, records left alone.

    What is not given stays as in each trial's own config. Exits with 1 if a trial could not be measured.

    Example: dmlcore reevaluate --study . --far-range 0.001 0.01 --k 1 --k 10 --out again.parquet
    """
    given: dict[str, Any] = {"far_range": far_range, "ks": k or None, "num_thresholds": num_thresholds}
    given |= {"epsilon": epsilon, "bootstrap": bootstrap}
    changes = {name: value for name, value in given.items() if value is not None}
    _check(changes, out)
    rows, faults = [], []
    for record in _finished(study.resolve()):
        try:
            rows.append(_measure(study.resolve(), record, changes))
        except (ValueError, OSError) as error:
            faults.append(f"{record.trial_key}: {error}")
            continue
        typer.echo(_line(rows[-1]))
    if out is not None and rows:
        _write(rows, out)
    for fault in faults:
        typer.echo(f"dmlcore: not measured: {fault}", err=True)
    typer.echo(
        f"{len(rows)} of {len(rows) + len(faults)} finished trials measured" + (f": {out}" if out else "")
    )
    if faults:
        raise typer.Exit(FOUND)


def _check(changes: dict[str, Any], out: Path | None) -> None:
    from dmlcore.config.base import parse
    from dmlcore.config.trial import EvaluationConfig

    parse(EvaluationConfig, changes, "settings")
    if out is not None and out.suffix not in WRITERS:
        raise ValueError(f"--out must end in {' or '.join(WRITERS)}, got {out}")


def _finished(study: Path) -> list[TrialRecord]:
    from dmlcore.records import RecordFolder

    folder = RecordFolder(study / "state" / "records")
    found = [folder.read(path.stem) for path in sorted(folder.folder.glob("[!.]*.json"))]
    finished = [record for record in found if record is not None and record.status == "finished"]
    if not finished:
        raise ValueError(
            f"{folder.folder} must hold the record of a finished trial, it holds none; run the sweep"
        )
    return finished


def _measure(study: Path, record: TrialRecord, changes: dict[str, Any]) -> dict[str, Any]:
    from dmlcore.config.base import parse
    from dmlcore.config.trial import TrialConfig
    from dmlcore.records import finite
    from dmlcore.training.load import store_of
    from dmlcore.training.run import evaluate_stored

    values = {**record.config, "evaluation": {**record.config["evaluation"], **changes}}
    metrics, _ = evaluate_stored(store_of(study, record), parse(TrialConfig, values, "trial"))
    settings = {f"evaluation.{name}": str(value) for name, value in changes.items()}
    return {"trial_key": record.trial_key, **record.labels, **settings, **finite(metrics)}


def _line(row: dict[str, Any]) -> str:
    numbers = [f"{name} {row[f'test/{name}']:.5f}" for name in SHOWN if row.get(f"test/{name}") is not None]
    return f"{row['trial_key']}  " + "  ".join(numbers)


def _write(rows: list[dict[str, Any]], out: Path) -> None:
    import polars as pl

    from dmlcore.core.io import atomic_write_path

    table: pl.DataFrame = pl.DataFrame(rows, infer_schema_length=None)
    with atomic_write_path(out) as temporary:
        getattr(table, WRITERS[out.suffix])(temporary)
