"""Real files next to the checkout: annotations and photographs that are not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def shared_data(name: str) -> Path:
    """The folder `name` of shared data; skips the test where it is absent."""
    folder = Path(os.environ.get("DMLCORE_SHARED_DATA", ROOT.parent / "shared" / "data")) / name
    if not folder.exists():
        pytest.skip(f"shared data not here: {name}")
    return folder
