"""The studies' dvc.yaml: every stage lists the code that it runs, no more, no less; every study is a valid one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from dmlcore.config.study import load_study
from dmlcore.sweep.grid import expand

ROOT = Path(__file__).resolve().parents[1]
STUDIES = [ROOT, *sorted(path.parent for path in (ROOT / "studies").glob("*/dvc.yaml"))]


def closure(script: Path) -> set[Path]:
    """The script and every file of dmlcore that it imports, directly or not."""
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if not _for_types_alone(node)]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dmlcore"):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                waiting += [file for name in names for file in files_of(name)]
    return found


def _for_types_alone(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def files_of(module: str) -> list[Path]:
    base = ROOT.joinpath(*module.split("."))
    return [path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()]


def code_deps(study: Path, stage: str) -> list[Path]:
    deps = yaml.safe_load((study / "dvc.yaml").read_text())["stages"][stage]["deps"]
    paths = [(study / dep).resolve() for dep in deps]
    return [
        path
        for path in paths
        if path.is_relative_to(ROOT / "dmlcore") or path.is_relative_to(ROOT / "pipeline")
    ]


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
@pytest.mark.parametrize("stage", ["sweep", "aggregate"])
def test_a_stage_lists_the_code_that_it_runs(study, stage):
    deps = code_deps(study, stage)
    used = closure(ROOT / "pipeline" / f"{stage}.py")
    packages = {
        ROOT / "dmlcore" / "__init__.py",
        ROOT / "dmlcore" / "data" / "__init__.py",
    }  # a docstring each
    unlisted = [path for path in used - packages if not any(path.is_relative_to(dep) for dep in deps)]
    assert not unlisted
    unread = [dep for dep in deps if not any(path.is_relative_to(dep) for path in used)]
    assert not unread


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_a_study_lists_the_data_that_it_trains_on(study):
    sweep = load_study(study / "params.yaml").sweep
    deps = yaml.safe_load((study / "dvc.yaml").read_text())["stages"]["sweep"]["deps"]
    prepared = {Path(dep).name for dep in deps if "data/prepared" in dep}
    assert prepared == set(sweep.datasets)
    assert expand(sweep)


def test_stages_are_named_as_their_scripts():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert {name: stage["cmd"] for name, stage in stages.items()} == {
        name: f"python pipeline/{name}.py" for name in ("sweep", "aggregate")
    }
