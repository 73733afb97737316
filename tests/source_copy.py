"""A copy of dmlcore's source to edit, for tests of what an edit makes stale; nothing is imported from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dmlcore.sweep import trial_key
from dmlcore.training import code_hash

ROOT = Path(__file__).resolve().parents[1]


class SourceCopy:
    """Makes `code_hash` read a copy of the source, unedited when it is made."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "dmlcore", folder / "dmlcore", ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(code_hash, "PACKAGE", folder / "dmlcore")
        self._forget()

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace the first `old` in `file` (as `dmlcore/...`) by `new`."""
        path = self.folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        self._forget()

    def append(self, file: str, line: str = "EXTRA = 1") -> None:
        """Add a statement at the end of `file`."""
        path = self.folder / file
        path.write_text(f"{path.read_text()}\n{line}\n")
        self._forget()

    @staticmethod
    def _forget() -> None:
        for cached in (code_hash.code_hashes, code_hash._registered_losses, trial_key._training_code):
            cached.cache_clear()


@pytest.fixture
def source_copy(tmp_path, monkeypatch):
    yield SourceCopy(tmp_path / "code", monkeypatch)
    SourceCopy._forget()
