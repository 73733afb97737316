"""Options that several subcommands share, and where they find their files."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Study = Annotated[Path, typer.Option(help="Folder of the study: the one with params.yaml.")]


def prepared_folder(study: Path) -> Path:
    """The folder of prepared data: `data/prepared` beside or above the study.

    Raises:
        FileNotFoundError: there is no data/dvc.yaml there or above.
    """
    for folder in (study, *study.parents):
        if (folder / "data" / "dvc.yaml").is_file():
            return folder / "data" / "prepared"
    raise FileNotFoundError(f"{study} must lie in a checkout with data/dvc.yaml, none found there or above")


def read_npy(path: Path) -> NDArray[np.generic]:
    """The array of a .npy file; nothing in it is unpickled.

    Raises:
        ValueError: the file is not a .npy file of plain numbers.
    """
    import numpy as np

    try:
        found: Any = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} must be a .npy file of numbers: {error}") from None
    if not isinstance(found, np.ndarray):
        raise ValueError(
            f"{path} must be a .npy file of one array, it is an archive of several; save each alone"
        )
    return found


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
