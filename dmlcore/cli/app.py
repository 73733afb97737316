"""The app: which subcommands there are."""

from __future__ import annotations

from typing import Annotated

import typer

from dmlcore.cli.calibrate import calibrate
from dmlcore.cli.data import data
from dmlcore.cli.embed import embed
from dmlcore.cli.evaluate import evaluate
from dmlcore.cli.options import Commands
from dmlcore.cli.publish import publish
from dmlcore.cli.reevaluate import reevaluate
from dmlcore.cli.study import check, export, plan, summary, sync

app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main(
    traceback: Annotated[
        bool, typer.Option("--traceback", envvar="DMLCORE_TRACEBACK", help="Show where an error was raised.")
    ] = False,
) -> None:
    """Embeddings for which one distance threshold serves every class: plan and check a study;
    evaluate embeddings of your own, and calibrate a threshold for them.

    Exit codes: 0 done; 1 done but for what is named (failed or missing trials, broken images, a store
    that does not answer); 2 a wrong argument or file; 3 a defect of dmlcore.

    Example: dmlcore evaluate --help
    """


app.add_typer(data, name="data")
for command in (plan, check, summary, evaluate, calibrate, embed, reevaluate, export, sync, publish):
    app.command()(command)
