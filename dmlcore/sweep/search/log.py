"""The log of a search: a line for each setting that was asked for, on disk before its trial starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dmlcore.records import RecordError

Scalar = bool | int | float | str


class Ask(BaseModel):
    """A setting that the sampler gave. What came of it is in the record of its trial."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    params: dict[str, Scalar]
    """Dotted path -> value."""
    trial_key: str | None = None
    refused: str | None = None
    """Why there is no such trial: values that do not go together."""
    attributes: dict[str, Any] = {}
    """What the sampler noted, such as the generation."""


class SearchLog:
    """The file `state/search/HASH.jsonl`, which only grows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def asks(self) -> list[Ask]:
        """All that was asked; a last line that a killed process left unfinished is none of it.

        Raises:
            RecordError: another line is broken.
        """
        return self._read()[0]

    def append(self, ask: Ask) -> None:
        """Write a line through to the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._read()[1]
        with self.path.open("ab") as file:
            file.truncate(whole)
            file.write(ask.model_dump_json(exclude_defaults=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> tuple[list[Ask], int]:
        """The asks and the bytes that hold them."""
        asks: list[Ask] = []
        whole = 0
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.is_file() else []
        for number, line in enumerate(lines):
            ask = _parse(line)
            if ask is None and number < len(lines) - 1:
                raise RecordError(
                    f"{self.path}: each line must be what a search asked for, line {number + 1} is not; remove the "
                    "file and the search begins anew, its trials are kept"
                )
            if ask is not None:
                asks.append(ask)
                whole += len(line)
        return asks, whole


def _parse(line: bytes) -> Ask | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return Ask.model_validate_json(line)
    except ValidationError:
        return None
