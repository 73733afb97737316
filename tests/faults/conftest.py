"""The sweep that nothing befalls, run once, and a study to put a fault into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.study import Study, study_config
from tests.memory_tracker import MemoryTracker


@pytest.fixture(scope="session")
def reference(small_data, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = Study(tmp_path_factory.mktemp("reference"), small_data.folder.parent, study_config())
    study.run_here(MemoryTracker())
    return study


@pytest.fixture
def make_study(small_data, tmp_path) -> Callable[..., Study]:
    """A study in the test's folder: the address of its MLflow store or None, changes of its sweep."""

    def make(uri: str | None = None, **changes: Any) -> Study:
        return Study(tmp_path / "study", small_data.folder.parent, study_config(**changes), uri)

    return make
