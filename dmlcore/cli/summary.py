"""`dmlcore summary`: the trade-off table of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmlcore.cli.options import Study


def summary(
    study: Study = Path(),
    into: Annotated[
        Path | None,
        typer.Option(
            help="Put the table as Markdown between this file's results markers (of the study, or of any)."
        ),
    ] = None,
) -> None:
    """Print the trade-off table of a study and where its plot, results and MLflow store lie.

    Example: dmlcore summary --study . --into README.md
    """
    from dmlcore.config import load_study
    from dmlcore.report.insert import insert_between_markers
    from dmlcore.report.study import read_study
    from dmlcore.report.tables import markdown_table, print_summary
    from dmlcore.tracking.address import store_uri

    study = study.resolve()
    params = load_study(study / "params.yaml")
    found = read_study(study, params.aggregate)
    if into is not None:
        insert_between_markers(into, markdown_table(found), params.sweep.study)
    else:
        results = study / "results"
        plot, table = results / "tradeoff.png", results / "comparisons.csv"
        print_summary(found, plot=plot, results=table, mlflow=store_uri(study / "state"))
