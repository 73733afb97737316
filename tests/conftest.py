"""A skip is printed with its reason, and one that tests/allowed_skips.txt does not list fails the run."""

from __future__ import annotations

import ast
import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from dmlcore.extras import MissingExtraError

with suppress(MissingExtraError):  # where the core is installed alone, no test asks for this fixture
    from tests.source_copy import source_copy  # noqa: F401

if TYPE_CHECKING:
    from dmlcore.data.dataset import PreparedDataset

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if "DMLCORE_CACHE" not in os.environ:  # the processes of pytest-xdist have that of the first
    os.environ["DMLCORE_CACHE"] = tempfile.mkdtemp(prefix="dmlcore-cache-")
    atexit.register(shutil.rmtree, os.environ["DMLCORE_CACHE"], ignore_errors=True)
# No test is a timed one: on a loaded machine the 200 ms that hypothesis allows an example are too few.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
ALLOWED = Path(__file__).with_name("allowed_skips.txt")
CORE_ALONE = find_spec("pydantic") is None
"""In an environment of `make test-core` the libraries of the extras are not installed."""
LONGEST = (
    "test_paper_small.py",
    "sweep/test_cluster.py",
    "metrics/test_opis_corrected.py",
    "test_pipeline.py",
    "sweep/search/test_ray.py",
    "sweep/test_run.py",
    "test_additions.py",
    "sweep/test_limits.py",
    "datasets/test_build.py",
    "sweep/test_preview.py",
)
"""Files of a minute and more, the longest first, from `--durations`. A file is run by one worker as a whole."""
_unlisted: list[str] = []
_left_out: list[str] = []


def allowed_reasons() -> list[str]:
    lines = ALLOWED.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out, of the core's tests, the files that import a library of an extra themselves; others must run."""
    if not CORE_ALONE or collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    absent = [name for name in _imported(collection_path) if find_spec(name) is None]
    if absent:
        _left_out.append(f"{collection_path.name} ({', '.join(absent)})")
    return bool(absent) or None


def _imported(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    return sorted({name.partition(".")[0] for name in names})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first: at the end of a run every worker then has something to do."""
    place = {f"tests/{name}": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))


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
    if _left_out:
        terminalreporter.write_line(f"left out, they import what is not installed: {', '.join(_left_out)}")
    for line in _unlisted:
        terminalreporter.write_line(f"skip that tests/allowed_skips.txt does not list: {line}", red=True)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """A data set of 24 classes x 6 images of 16 x 16, at `prepared/small`."""
    from tests.small import small_dataset

    return small_dataset(tmp_path_factory.mktemp("prepared") / "small")
