"""The `dmlcore` command: its subcommands, and how an error becomes one line and an exit code.

Each subcommand imports the heavy libraries that it needs, so that `--help` stays fast, and one that needs an extra says
so before it does anything.
"""

from __future__ import annotations

import functools
import sys
import traceback as tracebacks
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dmlcore import __version__
from dmlcore.cli.calibrate import calibrate
from dmlcore.cli.data import data
from dmlcore.cli.embed import embed
from dmlcore.cli.evaluate import evaluate
from dmlcore.cli.monitor import monitor
from dmlcore.cli.operate import cancel, drain, logs, status
from dmlcore.cli.options import DEFECT, WRONG_INPUT
from dmlcore.cli.records import records
from dmlcore.cli.retry import retry
from dmlcore.cli.study import check, export, overview, plan, summary
from dmlcore.cli.tracking import sync, ui
from dmlcore.cli.trials import export_model, publish, reevaluate
from dmlcore.core.errors import one_line, without_passwords
from dmlcore.extras import MissingExtraError, require

COMMANDS: dict[str | None, tuple[Callable[..., None], ...]] = {
    None: (evaluate, calibrate, monitor),
    "train": (embed, export_model),
    "pipeline": (
        *(
            plan,
            check,
            status,
            logs,
            drain,
            cancel,
            retry,
            summary,
            overview,
            export,
            reevaluate,
            publish,
            sync,
            ui,
        ),
    ),
}
"""Extra -> the subcommands that need it; None: the core's."""


class ErrorReportingGroup(TyperGroup):
    """A group that reports an error of a subcommand as one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `dmlcore plan | head` is not an error
            raise
        except (ValueError, OSError, MissingExtraError) as error:
            raise _exit(ctx, error, one_line(error, Path.cwd()), WRONG_INPUT) from None
        except Exception as error:
            # typer ends a command, by a wrong option too, with exceptions of its own
            if type(error).__module__.startswith(("typer", "click")):
                raise
            text = f"unexpected {type(error).__name__}: {error}; `dmlcore --traceback ...` shows where"
            raise _exit(ctx, error, text, DEFECT) from None


def _exit(ctx: Any, error: Exception, text: str, code: int) -> typer.Exit:
    if ctx.params.get("traceback"):
        tracebacks.print_exception(error, file=sys.stderr)
    typer.echo(f"dmlcore: {without_passwords(text)}", err=True)
    return typer.Exit(code)


app = typer.Typer(
    cls=ErrorReportingGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"dmlcore {__version__}")
        raise typer.Exit


@app.callback()
def main(
    traceback: Annotated[
        bool, typer.Option("--traceback", envvar="DMLCORE_TRACEBACK", help="Show where an error was raised.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Embeddings for which one distance threshold serves every class: plan and check a study,
    evaluate your own embeddings, and calibrate a threshold for them.

    Exit codes: 0 done; 1 done except for what is named (failed or missing trials, broken images, a store
    that does not answer); 2 a wrong argument or file, or an extra that is not installed; 3 a defect of dmlcore.

    Example: dmlcore evaluate --help
    """


def _needing(extra: str, command: Callable[..., None]) -> Callable[..., None]:
    """Return the subcommand with a check of its extra before it."""

    @functools.wraps(command)
    def checked(*args: Any, **kwargs: Any) -> None:
        require(extra, f"`dmlcore {command.__name__.replace('_', '-')}`")
        command(*args, **kwargs)

    return checked


app.add_typer(data, name="data")
app.add_typer(records, name="records")
for extra, commands in COMMANDS.items():
    for command in commands:
        app.command()(_needing(extra, command) if extra else command)
