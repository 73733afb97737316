"""The house keeps its shape: import layers are contracts that can fail, files and functions stay small, no circle."""

from __future__ import annotations

import ast
import shutil
import statistics
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from benchmarks.architecture import dependency_lines, functions, imports, span
from tests.test_stages import MOST_LINES

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for package in ("dmlcore", "pipeline") for path in (ROOT / package).rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
LINT = Path(sys.executable).with_name("lint-imports")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "dmlcore", folder / "dmlcore", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("analysis/statistics.py", "import ray", "only the sweep imports Ray"),
        ("sweep/grid.py", "import mlflow", "only tracking imports MLflow"),
        ("metrics/inputs.py", "from dmlcore.core.io import write_atomically", "import no other package"),
        ("training/store.py", "from dmlcore.sweep.grid import expand", "imports go one way"),
        (
            "datasets/acquire/unpack.py",
            "from dmlcore.datasets.prepare.splits import assign_splits",
            "acquired",
        ),
    ],
)
def test_a_contract_on_imports_breaks_where_it_should(copy, module, line, contract):
    file = copy / "dmlcore" / module
    sound = file.read_text(encoding="utf-8")
    file.write_text(f"{sound}\n{line}  # noqa\n", encoding="utf-8")
    try:
        done = subprocess.run([LINT, "--no-cache"], cwd=copy, capture_output=True, text=True, check=False)
    finally:
        file.write_text(sound, encoding="utf-8")
    assert done.returncode == 1
    broken = [row for row in done.stdout.splitlines() if row.endswith("BROKEN")]
    assert any(contract in row for row in broken), done.stdout[-2000:]


def test_files_and_functions_stay_small():
    longest = max(FILES, key=lambda path: path.read_text(encoding="utf-8").count("\n"))
    assert longest.read_text(encoding="utf-8").count("\n") <= 250, longest
    lengths = [span(node) for tree in TREES.values() for node in functions(tree)]
    assert 7 <= statistics.median(lengths) <= 12
    assert statistics.quantiles(lengths, n=10)[-1] <= 25


def test_stages_depend_on_folders():
    assert dependency_lines(ROOT) <= MOST_LINES


def test_no_module_imports_itself_through_others():
    """Packages whose `__init__` hands on what their modules define are left out, as are imports for types alone."""
    graph = {
        path: {
            target
            for target in imports(ROOT, _at_run_time(tree))
            if target in TREES and target != path and target.name != "__init__.py"
        }
        for path, tree in TREES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(str(path.relative_to(ROOT)) for path in circle.args[1]))


def _at_run_time(tree: ast.Module) -> ast.Module:
    body = [
        node
        for node in tree.body
        if not (
            isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        )
    ]
    return ast.Module(body=body, type_ignores=[])
