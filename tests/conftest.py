"""A skip is printed with its reason, and one that tests/allowed_skips.txt does not list fails the run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dmlcore.data.dataset import PreparedDataset
from tests.small import small_dataset
from tests.source_copy import source_copy  # noqa: F401 (a fixture)

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
ALLOWED = Path(__file__).with_name("allowed_skips.txt")
_unlisted: list[str] = []


def allowed_reasons() -> list[str]:
    lines = ALLOWED.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if not any(allowed in reason for allowed in allowed_reasons()):
        _unlisted.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _unlisted and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _unlisted:
        terminalreporter.write_line(f"skip that tests/allowed_skips.txt does not list: {line}", red=True)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """A data set of 24 classes x 6 images of 16 x 16, at `prepared/small`."""
    return small_dataset(tmp_path_factory.mktemp("prepared") / "small")
