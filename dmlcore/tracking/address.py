"""Where a study's runs go, and what is known of the code that they ran."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def store_uri(state: Path) -> str:
    """MLFLOW_TRACKING_URI, else the SQLite file of the study; a relative SQLite path is made absolute."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        return f"sqlite:///{(state / 'mlflow.db').resolve()}"
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}"
    return uri


def git_tags(repository: Path) -> dict[str, str]:
    """The commit that the code is at, and whether files differ from it; empty outside a checkout."""
    commit = _git(repository, "rev-parse", "HEAD")
    if not commit:
        return {}
    return {
        "git_commit": commit,
        "git_dirty": str(bool(_git(repository, "status", "--porcelain", "-uno"))).lower(),
    }


def _git(repository: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=repository, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
