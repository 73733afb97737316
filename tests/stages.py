"""The stages of every dvc.yaml of the repository, and the files that a stage's script imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = [ROOT / "dvc.yaml", ROOT / "data/dvc.yaml", *sorted((ROOT / "studies").glob("*/dvc.yaml"))]
CODE = ("dmlcore", "pipeline", "tests")


@dataclass(frozen=True)
class Stage:
    """One stage as its dvc.yaml writes it, templates unresolved."""

    folder: Path
    name: str
    deps: tuple[str, ...]
    script: Path

    def __str__(self) -> str:
        return f"{self.folder.relative_to(ROOT)}:{self.name}"

    def code_deps(self, kind: str = "") -> list[Path]:
        """Return the listed files and folders of code, for a data set of `kind`."""
        paths = [(self.folder / dep.replace("${item.kind}", kind)).resolve() for dep in self.deps]
        return [path for path in paths if path == self.script or path.relative_to(ROOT).parts[0] in CODE]


def stages() -> list[Stage]:
    return [stage for file in FILES for stage in _stages_of(file)]


def _stages_of(file: Path) -> Iterator[Stage]:
    for name, values in yaml.safe_load(file.read_text(encoding="utf-8"))["stages"].items():
        definition = values.get("do", values)
        script = (file.parent / definition["cmd"].split()[1]).resolve()
        yield Stage(file.parent, name, tuple(definition["deps"]), script)


def closure(*roots: Path) -> set[Path]:
    """Return the files and every file of this repository that they import, directly or not."""
    found: set[Path] = set()
    waiting = list(roots)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imported_files(path)
    return found


@cache
def imported_files(path: Path) -> tuple[Path, ...]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not _for_types_alone(node)]
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(file for name in names if name.startswith(CODE) for file in files_of(name))


def _for_types_alone(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def files_of(module: str) -> list[Path]:
    """Return the file of a module and the `__init__.py` of each package on the way, as Python runs them."""
    parts = module.split(".")
    packages = [ROOT.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
    return [path for path in (*packages, ROOT.joinpath(*parts).with_suffix(".py")) if path.is_file()]
