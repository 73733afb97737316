"""Options that several subcommands share, and where they find their files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
