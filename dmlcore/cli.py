"""The `dmlcore` command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

if TYPE_CHECKING:
    from dmlcore.tuning.plan import Plan

app = typer.Typer(
    help="Embeddings for which one distance threshold serves every class: plan, check and evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Study = Annotated[Path, typer.Option(help="Folder of the study: the one with params.yaml.")]


def _fail(message: object) -> typer.Exit:
    typer.echo(f"dmlcore: {message}", err=True)
    return typer.Exit(2)


@app.command()
def plan(study: Study = Path()) -> None:
    """Say what a sweep would run, without running it.

    Example: dmlcore plan --study .
    """
    found = _plan(study)
    for trial in found.trials:
        record = found.records.get(trial.key)
        typer.echo(f"{record.status if record else 'new':9} {trial.key}  {trial.name}")
    typer.echo(", ".join(f"{count} {name}" for name, count in found.counts().items()))


def _plan(study: Path) -> Plan:
    from dmlcore.config import load_study
    from dmlcore.tuning.plan import make_plan

    study = study.resolve()
    try:
        return make_plan(load_study(study / "params.yaml").sweep, study=study, prepared=_prepared(study))
    except (ValueError, OSError) as error:
        raise _fail(error) from None


def _prepared(study: Path) -> Path:
    """The folder of prepared data: `data/prepared` beside or above the study."""
    for folder in (study, *study.parents):
        if (folder / "data" / "dvc.yaml").is_file():
            return folder / "data" / "prepared"
    raise FileNotFoundError(f"{study} must lie in a checkout with data/dvc.yaml, none found there or above")


@app.command()
def check(study: Study = Path()) -> None:
    """List the failed and missing trials of a study; exit with 1 if there are any.

    Example: dmlcore check --study .
    """
    found = _plan(study)
    for trial in found.missing:
        record = found.records.get(trial.key)
        reason = (
            f"FAILED {trial.key} {trial.name}: {record.error}"
            if record
            else f"MISSING {trial.key} {trial.name}"
        )
        typer.echo(reason)
    typer.echo(f"{len(found.trials) - len(found.missing)} of {len(found.trials)} trials are finished")
    if found.missing:
        typer.echo("`dvc repro` runs the others again")
        raise typer.Exit(1)


@app.command()
def summary(
    study: Study = Path(),
    into: Annotated[
        Path | None, typer.Option(help="Put the table as Markdown between this file's results markers.")
    ] = None,
) -> None:
    """Print the trade-off table of a study and where its plot, results and MLflow store lie.

    Example: dmlcore summary --study . --into README.md
    """
    from dmlcore.config import load_study
    from dmlcore.report.study import read_study
    from dmlcore.report.tables import markdown_table, print_summary
    from dmlcore.tracking.mlflow import store_uri

    study = study.resolve()
    try:
        found = read_study(study, load_study(study / "params.yaml").aggregate)
    except (ValueError, OSError) as error:
        raise _fail(error) from None
    if into is not None:
        from dmlcore.report.insert import insert_between_markers

        insert_between_markers(into, markdown_table(found))
    else:
        results = study / "results"
        plot, table = results / "tradeoff.png", results / "comparisons.csv"
        print_summary(found, plot=plot, results=table, mlflow=store_uri(study / "state"))


@app.command()
def evaluate(
    embeddings: Annotated[Path, typer.Option(help="NumPy file [N, D] of floats, one row an image.")],
    labels: Annotated[Path, typer.Option(help="NumPy file [N] of integers, the class of each row.")],
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the metrics here as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write utility against threshold here as PNG.")] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples of the classes for the interval of OPIS.")
    ] = 0,
) -> None:
    """Accuracy and threshold consistency of embeddings of your own.

    Example: dmlcore evaluate --embeddings test.npy --labels test_labels.npy --json metrics.json --plot utility.png
    """
    from dmlcore.metrics import evaluate as measure

    try:
        found = measure(_load(embeddings), _load(labels), bootstrap=bootstrap)
    except (ValueError, OSError) as error:
        raise _fail(error) from None
    for key, value in found.metrics.items():
        typer.echo(f"{key:36} {value:.6g}")
    if json_path is not None:
        from dmlcore.atomic import write_atomically
        from dmlcore.records import finite

        write_atomically(json_path, json.dumps(finite(found.metrics), indent=1) + "\n")
    if plot is not None:
        from dmlcore.report.utility import save_utility_plot

        save_utility_plot(found, plot)


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} must be a .npy file of numbers: {error}") from None


if __name__ == "__main__":
    app()
