"""Errors as one line and an exit code; the traceback only for who asks."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

FOUND, WRONG_INPUT, DEFECT = 1, 2, 3
EXPECTED = (ValueError, OSError)


class Commands(TyperGroup):
    """A group whose subcommands end in a line on stderr where they raise."""

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand; an error becomes an exit code."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `dmlcore plan | head` is no error
            raise
        except EXPECTED as error:
            raise _exit(ctx, error, f"{error}", WRONG_INPUT) from None
        except Exception as error:
            if type(error).__module__.startswith(
                "typer"
            ):  # how typer ends a command, a wrong option included
                raise
            text = f"unexpected {type(error).__name__}: {error}; `dmlcore --traceback ...` shows where"
            raise _exit(ctx, error, text, DEFECT) from None


def _exit(ctx: Any, error: Exception, text: str, code: int) -> typer.Exit:
    if ctx.params.get("traceback"):
        traceback.print_exception(error, file=sys.stderr)
    typer.echo(f"dmlcore: {text}", err=True)
    return typer.Exit(code)
