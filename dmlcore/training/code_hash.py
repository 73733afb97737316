"""What code a result rests on: the source files that it runs through, each with a hash, and the libraries' versions."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "torchvision", "timm")
KEYED_BY_VALUE = (
    "dmlcore.config",
    "dmlcore.training.code_hash",
    "dmlcore.core.hashing",
    "dmlcore.data.manifest",
    "dmlcore.extras",
)
"""Modules that no code hash needs: what they make (a config, the data) enters each key by value, or they make keys, or
refuse to start."""
REGISTRIES = ("dmlcore.losses",)
"""Packages whose `__init__` names every loss: only the files of the losses that a trial uses count."""
REGISTRY_NAMES = ("LOSSES", "REGULARIZERS", "__all__")


def library_versions() -> dict[str, str]:
    """Return `major.minor` of the libraries whose releases change the bits of a trial.

    torch multiplies, torchvision decodes JPEG files, timm builds and initialises networks. Patch releases mend builds
    and crashes; were they counted, each would make every record of a study stale.
    """
    return {name: ".".join(importlib.metadata.version(name).split(".")[:2]) for name in LIBRARIES}


def loss_modules(name: str) -> list[str]:
    """Return the module of dmlcore.losses that holds a loss or regulariser, found in the source of the registry."""
    if name == "none":
        return []
    if name.startswith("pml:"):
        return ["dmlcore.losses.pml"]
    module = _registered_losses().get(name)
    return [module] if module else []


@cache
def _registered_losses() -> dict[str, str]:
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

    The closure errs on the safe side: a file that is imported but not run through makes results stale too early,
    never too late. `excluded` narrows it where that would cost much.

    Args:
        roots: module names.
        excluded: modules and packages that are left out, with what only they import.

    Returns:
        Path relative to the checkout -> the first 16 hex digits of the sha256 of its syntax tree, which comments,
        docstrings and formatting do not change.
    """
    todo, hashes = sorted(roots), {}
    while todo:
        module = todo.pop()
        name = _file(module).relative_to(PACKAGE.parent).as_posix()
        if name in hashes or f"{module}.".startswith(tuple(f"{prefix}." for prefix in excluded)):
            continue
        tree = _stripped(module)
        hashes[name] = hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]
        todo += sorted(_imports(tree))
    return dict(sorted(hashes.items()))


def _file(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _stripped(module: str) -> ast.Module:
    """Parse a module without docstrings, and a registry without what names its entries."""
    tree = ast.parse(_file(module).read_text(encoding="utf-8"))
    if module in REGISTRIES:
        tree.body = [node for node in tree.body if not _names_entries(node)]
    for node in [tree, *_statements(tree)]:
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # Attribute docstrings are statements as well, so every bare string goes, not the first alone.
            kept = [item for item in body if not _is_text(item)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all statements below a node, and what groups them: a tenth of what `ast.walk` visits."""
    for group in ("body", "orelse", "finalbody", "handlers", "cases"):
        children = getattr(node, group, None)
        if isinstance(children, list):
            for child in children:
                yield child
                yield from _statements(child)


def _names_entries(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return True
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(target, ast.Name) and target.id in REGISTRY_NAMES for target in targets)


def _is_text(node: ast.stmt) -> bool:
    constant = node.value if isinstance(node, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)


def _from_imports(tree: ast.AST) -> Iterator[ast.ImportFrom]:
    for node in _statements(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dmlcore"):
            yield node


def _imports(tree: ast.AST) -> set[str]:
    """Find the modules of dmlcore that the tree imports: `from package import module` names two."""
    found: set[str] = set()
    for node in _from_imports(tree):
        submodules = {f"{node.module}.{alias.name}" for alias in node.names}
        found |= {str(node.module)} | {name for name in submodules if _file(name).is_file()}
    return found
