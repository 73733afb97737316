"""JSON files with a checksum of their content inside: a changed digit is noticed when the file is read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

CHECKSUM = "checksum"


class SealError(ValueError):
    """The content is not JSON, or not that of which the checksum was taken; the message completes "The file ..."."""


def sealed(values: Mapping[str, Any]) -> str:
    """Return `values` as indented JSON, with a checksum of them under `checksum`.

    Raises:
        ValueError: a number that is not finite, which JSON cannot hold.
    """
    return json.dumps({**values, CHECKSUM: _checksum(values)}, indent=1, allow_nan=False) + "\n"


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Replace values that JSON cannot hold by null."""
    return {key: float(value) if math.isfinite(value) else None for key, value in metrics.items()}


def json_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object from a file that anybody may have written.

    Raises:
        SealError: the content is something else.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SealError(f"is not JSON: {str(error)[:200]}") from None
    if not isinstance(values, dict):
        raise SealError(f"must hold a JSON object, it holds a {type(values).__name__}")
    return values


def check_seal(values: dict[str, Any]) -> None:
    """Remove the checksum from what `sealed` wrote, and compare.

    It finds accidents and careless edits. It is no signature: who computes it anew can write anything.

    Raises:
        SealError: there is none, or the values are not those of which it was taken.
    """
    found = values.pop(CHECKSUM, None)
    if found is None:
        raise SealError("has no checksum")
    try:
        expected = _checksum(values)
    except ValueError:
        raise SealError("holds a number that is not finite") from None
    if found != expected:
        raise SealError("was changed since it was written: its content does not have its checksum")


def _checksum(values: Mapping[str, Any]) -> str:
    """Hash the canonical JSON: order and white space do not count."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
