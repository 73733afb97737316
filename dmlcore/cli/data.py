"""`dmlcore data ...`: the data sets of a checkout."""

from __future__ import annotations

from pathlib import Path

import typer

from dmlcore.cli.options import Study, prepared_folder

data = typer.Typer(no_args_is_help=True, help="The data sets: what they are, what of them is here.")


@data.command("list")
def list_(study: Study = Path()) -> None:
    """List the data sets with their size, licence and origin, and what of each is missing here.

    Example: dmlcore data list
    """
    from dmlcore.data.listing import list_datasets

    for row in list_datasets(prepared_folder(study.resolve()).parent):
        counts = row.counts
        size = f"{counts.images:,} images, {counts.classes:,} classes" if counts else "counted once prepared"
        typer.echo(f"{row.name}: {size}")
        typer.echo(f"    licence: {row.licence}\n    origin:  {row.origin}\n    here:    {row.here}")
