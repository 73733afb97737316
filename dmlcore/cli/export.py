"""`dmlcore export`: a study's table and figures in the formats of papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmlcore.cli.options import Study


def export(
    study: Study = Path(),
    into: Annotated[Path, typer.Option(help="Folder to write to; earlier files are replaced.")] = Path(
        "export"
    ),
) -> None:
    """Write a study's comparisons as CSV, parquet, Markdown and LaTeX (booktabs), its figures as PNG and PDF.

    Example: dmlcore export --study . --into paper/tables
    """
    from dmlcore.config import load_study
    from dmlcore.report.exports import write_exports
    from dmlcore.report.study import read_study

    study = study.resolve()
    for path in write_exports(read_study(study, load_study(study / "params.yaml").aggregate), into):
        typer.echo(path)
