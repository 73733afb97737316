"""Checksums of files and of JSON values."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

Checksum = Literal["sha256", "md5"]


def file_sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes."""
    return file_digest(path, "sha256")


def file_digest(path: Path, kind: Checksum) -> str:
    """Return the hexadecimal checksum of a file's bytes."""
    # md5 identifies a published file here, it secures nothing: machines in FIPS mode would refuse it otherwise.
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.new, kind, usedforsecurity=False)).hexdigest()


def json_sha256(value: Any) -> str:
    """Return the hexadecimal sha256 of the canonical JSON of a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
