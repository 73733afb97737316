"""The log of a search: one line with a checksum for each suggested setting, on disk before its trial starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dmlcore.core.sealed_json import SealError, check_seal, json_object, sealed
from dmlcore.records import RecordError

Scalar = bool | int | float | str


class Suggestion(BaseModel):
    """A setting that the sampler suggested. Its result is in the record of its trial."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    params: dict[str, Scalar]
    """Dotted path -> value."""
    trial_key: str | None = None
    refused: str | None = None
    """Why there is no such trial: its values contradict each other."""
    margins: dict[str, float] = {}
    """`PLACE.PARAMETER` -> margin, of the rates among the regularisers' parameters."""
    scores: dict[str, str] = {}
    """The trial that gave them, and the sha256 of its validation embeddings."""
    attributes: dict[str, Any] = {}
    """What the sampler noted, such as the generation."""


class SearchLog:
    """The file `state/search/HASH.jsonl`, which only grows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def suggestions(self) -> list[Suggestion]:
        """Read all suggestions; an incomplete final line, as a killed process leaves it, is ignored.

        Raises:
            RecordError: another line is damaged.
        """
        return self._read()[0]

    def append(self, suggestion: Suggestion) -> None:
        """Write a line and flush it to the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        valid_bytes = self._read()[1]
        with self.path.open("ab") as file:
            file.truncate(valid_bytes)  # an incomplete final line would damage the one that follows it
            file.write(_line(suggestion))
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> tuple[list[Suggestion], int]:
        """Return the suggestions and the number of bytes that hold them."""
        suggestions: list[Suggestion] = []
        valid_bytes = 0
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.is_file() else []
        for number, line in enumerate(lines, start=1):
            if number == len(lines) and _is_torn(line):
                break
            try:
                suggestions.append(_parse(line))
            except (SealError, ValidationError):
                raise RecordError(
                    f"{self.path}: line {number} is not a suggestion as a search wrote it; remove the file to start "
                    "the search anew, its trials are kept"
                ) from None
            valid_bytes += len(line)
        return suggestions, valid_bytes


def _line(suggestion: Suggestion) -> bytes:
    values = sealed(suggestion.model_dump(mode="json", exclude_defaults=True))
    return values.replace("\n", "").encode() + b"\n"  # in JSON, a line break is never inside a text


def _parse(line: bytes) -> Suggestion:
    values = json_object(line)
    check_seal(values)
    return Suggestion.model_validate(values)


def _is_torn(line: bytes) -> bool:
    """Tell a line whose writing was cut off from one that was changed afterwards."""
    try:
        json_object(line)
    except SealError:
        return True
    return not line.endswith(b"\n")
