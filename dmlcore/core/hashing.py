"""Checksums of files, and one of a JSON value."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

Checksum = Literal["sha256", "md5"]


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    return file_digest(path, "sha256")


def file_digest(path: Path, kind: Checksum) -> str:
    """Hexadecimal checksum of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.new, kind, usedforsecurity=False)).hexdigest()


def json_sha256(value: Any) -> str:
    """sha256 of the canonical JSON of a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
