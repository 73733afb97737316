"""Names and numbers as they stand in the page, in its data and in its plots."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Iterable
from typing import Any

DIGITS = 6
"""Significant digits, as in the other files of the stage."""


def rounded(value: float | None) -> float | None:
    """`value` to 6 significant digits; None where it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def plot_text(text: object) -> str:
    """`text` for a plot: plotly reads its texts as HTML, so a name's `<` must be an entity."""
    return html.escape(" ".join(str(text).split()))


def script_json(value: Any) -> str:
    """JSON that can stand inside a script element: no `<`, so nothing in it can close the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def content_policy(scripts: Iterable[str]) -> str:
    """A content security policy that runs these scripts and nothing else, and reaches no network."""
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
