"""Escape what the page embeds, so that no name or number of a study can become markup or a script."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable
from typing import Any


def plot_text(text: object) -> str:
    """Escape `text` for a plot: plotly reads its texts as HTML, so a name's `<` must be an entity."""
    return html.escape(" ".join(str(text).split()))


def script_json(value: Any) -> str:
    """Return JSON for a script element: it has no `<`, so nothing in it can close the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def content_policy(scripts: Iterable[str]) -> str:
    """Return a content security policy that allows these scripts alone, by their hashes, and no network access."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
