"""The font files that `glyphs` is drawn from: taken from the installed matplotlib, pinned by sha256."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import matplotlib

from dmlcore.core.errors import DataError
from dmlcore.core.hashing import file_sha256
from dmlcore.core.io import atomic_folder


def copy_fonts(source: Path, folder: Path) -> None:
    """Copy the files that `source` lists from the installed matplotlib to `folder`, each checked first.

    Args:
        source: JSON, `{"files": {file name: sha256}}`.
        folder: written whole or not at all.

    Raises:
        DataError: a file is absent or is not the one listed.
    """
    listed = _read_list(source)
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    with atomic_folder(folder) as temporary:
        for name, sha256 in listed.items():
            _check(fonts / name, sha256)
            shutil.copyfile(fonts / name, temporary / name)


def _read_list(source: Path) -> dict[str, str]:
    try:
        files = json.loads(source.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{source}: must be JSON {{"files": {{name: sha256}}}}: {error!r}') from None
    for name in files:
        if Path(name).name != name:
            raise DataError(f"{source}: a font is a plain file name without folders, got {name!r}")
    return dict(files)


def _check(path: Path, sha256: str) -> None:
    found = file_sha256(path) if path.is_file() else "no such file"
    if found != sha256:
        raise DataError(
            f"{path.name} of matplotlib {matplotlib.__version__}: sha256 must be {sha256}, got {found}; "
            "install the matplotlib that the constraints file names"
        )
