"""Answers that every plan needs again, kept for the next one: whether a network can be built, how large it is.

They depend on the code of this package, the libraries and the question alone, so one file for each of these versions
serves all studies of a user. Without it `dmlcore plan` spends most of its time on importing torch.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from dmlcore.core.hashing import file_sha256, json_sha256
from dmlcore.core.io import write_atomically
from dmlcore.core.sealed_json import check_seal, json_object, sealed

FOLDER = "DMLCORE_CACHE"
"""Environment variable: the folder of the cache."""
KEPT_FILES = 8
"""Files of other versions, the newest; older ones are removed."""
LIBRARIES = ("torch", "torchvision", "timm", "pytorch-metric-learning")
PACKAGE = Path(__file__).resolve().parents[1]


class PlanCache:
    """Answers by question, read from their file when the first is asked for, written by `save`.

    A file that is missing, damaged or cannot be written costs time and nothing else.
    """

    def __init__(self) -> None:
        self._added: dict[str, Any] = {}

    def answer(self, *question: str | int, compute: Callable[[], Any]) -> Any:
        """Return what is known, otherwise what `compute` returns, which is then known; an error is not.

        Args:
            question: the name of what is computed, and all that it depends on.
            compute: gives a value that JSON can hold.
        """
        key = json_sha256(question)
        if key not in self._answers:
            self._answers[key] = self._added[key] = compute()
        return self._answers[key]

    def save(self) -> None:
        """Write the file anew if there are new answers, with those that others have written meanwhile."""
        if not self._added:
            return
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self._file, sealed(self._read() | self._added))
            self._added = {}
            others = sorted(self._file.parent.glob("plan-*.json"), key=lambda file: file.stat().st_mtime)
            for file in others[: -1 - KEPT_FILES]:
                file.unlink()

    @cached_property
    def _answers(self) -> dict[str, Any]:
        return self._read()

    @cached_property
    def _file(self) -> Path:
        folder = os.environ.get(FOLDER)
        place = Path(folder) if folder else user_cache_path("dmlcore")
        return place / f"plan-{_version()[:16]}.json"

    def _read(self) -> dict[str, Any]:
        try:
            values = json_object(self._file.read_bytes())
            check_seal(values)
        except (OSError, ValueError):
            return {}
        return values


def _version() -> str:
    """Hash this package's files and the versions of all that builds a network or a loss."""
    files = {path.relative_to(PACKAGE).as_posix(): file_sha256(path) for path in PACKAGE.rglob("*.py")}
    return json_sha256([sys.version, files, {name: importlib.metadata.version(name) for name in LIBRARIES}])


PLAN_CACHE = PlanCache()
