"""The source files that a trial depends on, and a hash of each that ignores docstrings and comments."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

REGISTRIES = ("dmlcore.losses",)
"""Packages whose `__init__` names every loss: only the files of the losses that a trial uses count."""

REGISTRY_NAMES = ("LOSSES", "REGULARIZERS", "__all__")


def loss_modules(name: str) -> list[str]:
    """Return the modules that define a loss or regulariser, read from the source of the registry: nothing is imported."""
    if name == "none":
        return []
    if name.startswith("pml:"):
        return ["dmlcore.losses.pml"]
    module = _registered().get(name)
    return [module] if module else []


@cache
def _registered() -> dict[str, str]:
    tree = ast.parse(_file("dmlcore.losses").read_text(encoding="utf-8"))
    origin = {alias.name: str(node.module) for node in _from_imports(tree) for alias in node.names}
    found: dict[str, str] = {}
    for node in tree.body:
        value = getattr(node, "value", None)
        if isinstance(value, ast.Dict):
            for key, item in zip(value.keys, value.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(item, ast.Name) and item.id in origin:
                    found[str(key.value)] = origin[item.id]
    return found


@cache
def code_hashes(roots: frozenset[str], excluded: tuple[str, ...]) -> dict[str, str]:
    """Hash each file of dmlcore that the modules `roots` import, directly or not.

    Args:
        roots: module names.
        excluded: prefixes of modules that are left out, with the modules that only they import.

    Returns:
        Path relative to the checkout -> the first 16 hex digits of the sha256 of its syntax tree.
    """
    todo, hashes = sorted(roots), {}
    while todo:
        module = todo.pop()
        name = _file(module).relative_to(PACKAGE.parent).as_posix()
        if name in hashes or module.startswith(excluded):
            continue
        tree = _stripped(module)
        hashes[name] = hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]
        todo += sorted(_imports(tree))
    return dict(sorted(hashes.items()))


def _file(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _stripped(module: str) -> ast.Module:
    """Return the syntax tree without docstrings, and of a registry without its entries: a new loss changes no key."""
    tree = ast.parse(_file(module).read_text(encoding="utf-8"))
    if module in REGISTRIES:
        tree.body = [node for node in tree.body if not _names_entries(node)]
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [item for item in body if not _is_text(item)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def _names_entries(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return True
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(target, ast.Name) and target.id in REGISTRY_NAMES for target in targets)


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _from_imports(tree: ast.AST) -> Iterator[ast.ImportFrom]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dmlcore"):
            yield node


def _imports(tree: ast.AST) -> set[str]:
    """Return the modules of dmlcore that the tree imports, `from package import module` included."""
    found: set[str] = set()
    for node in _from_imports(tree):
        module = str(node.module)
        found.add(module)
        found |= {
            f"{module}.{alias.name}" for alias in node.names if _file(f"{module}.{alias.name}").is_file()
        }
    return found
