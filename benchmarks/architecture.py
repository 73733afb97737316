"""How a checkout is built: sizes of files and functions, imports between files, dependency lines of DVC stages.

python -m benchmarks.architecture [PATH ...]

Prints the last table of benchmarks/RESULTS.md, a column per checkout. Functions and imports are counted in
`dmlcore` and `pipeline`, lines and comments in `dmlcore`. Nothing is imported or run, so that any revision can be read:
`git worktree add /tmp/old REVISION`.
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

PACKAGES = ("dmlcore", "pipeline")
TEMPLATES = (".css", ".js", ".j2")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def figures(root: Path) -> dict[str, str]:
    """Compute the rows of the table for one checkout."""
    texts = {path: path.read_text(encoding="utf-8") for path in _python_files(root)}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    product = {path: text for path, text in texts.items() if path.is_relative_to(root / "dmlcore")}
    templates = [path for path in (root / "dmlcore").rglob("*") if path.suffix in TEMPLATES]
    sizes = {path: _count(text) for path, text in texts.items()}
    longest_file = max(product, key=lambda path: sizes[path])
    spans = {
        f"{path.stem}.{node.name}": span(node) for path, tree in trees.items() for node in functions(tree)
    }
    lengths = [span(node) for tree in trees.values() for node in functions(tree)]
    longest = max(spans, key=lambda name: spans[name])
    importers = _fan_in(root, trees)
    top = max(importers, key=lambda path: importers[path])
    single = sum(count == 1 for count in importers.values())
    comments = sum(map(_comments, product.values()))
    lines = sum(sizes[path] for path in product)
    return {
        "Python files of dmlcore": f"{len(product)}",
        "lines of dmlcore, templates included": f"{lines + sum(_count(p.read_text()) for p in templates):,}",
        "function: median / 90th percentile / longest": (
            f"{statistics.median(lengths):g} / {_percentile(lengths, 0.9)} / {spans[longest]} (`{longest}`)"
        ),
        "file: median / longest": (
            f"{statistics.median(sizes[p] for p in product):g} / {sizes[longest_file]} "
            f"(`{longest_file.relative_to(root / 'dmlcore')}`)"
        ),
        "files that exactly one other imports": f"{single} of {len(texts)}: {single / len(texts):.0%}",
        "highest fan-in": f"{importers[top]} (`{top.relative_to(root / 'dmlcore')}`)",
        "dependency lines in all dvc.yaml": f"{dependency_lines(root)}",
        "comments per 100 lines": f"{100 * comments / lines:.1f}",
    }


def _python_files(root: Path) -> list[Path]:
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def _count(text: str) -> int:
    return len(text.splitlines())


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def span(node: Function) -> int:
    """Count the lines of a function from `def` to its end, its docstring included."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _percentile(values: list[int], share: float) -> int:
    return sorted(values)[int(share * (len(values) - 1))]


def _fan_in(root: Path, trees: dict[Path, ast.Module]) -> Counter[Path]:
    """Count for each file the other files that import it, at the top or inside a function."""
    importers: Counter[Path] = Counter()
    for path, tree in trees.items():
        # a set: several imports of one file are one arrow
        importers.update({target for target in imports(root, tree) if target in trees and target != path})
    return importers


def imports(root: Path, tree: ast.Module) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _file(root, alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                # `from package import module` is an arrow to the module, not to the package's __init__
                module = _file(root, f"{node.module}.{alias.name}")
                yield module if module.is_file() else _file(root, node.module)


def _file(root: Path, module: str) -> Path:
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def dependency_lines(root: Path) -> int:
    """Count the entries of `deps` of every stage, a `foreach` stage once, as it is written."""
    total = 0
    for path in [root / "dvc.yaml", root / "data" / "dvc.yaml", *(root / "studies").glob("*/dvc.yaml")]:
        stages = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"].values()
        total += sum(len(stage.get("do", stage).get("deps", [])) for stage in stages)
    return total


def _comments(text: str) -> int:
    """Count comments, `noqa` and `type:` marks left out: they tell a tool, not a reader."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found = (token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT)
    return sum(not comment.startswith(("noqa", "type:", "pragma")) for comment in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, default=[Path()], help="checkouts, a column each")
    columns = [figures(path.resolve()) for path in parser.parse_args().paths]
    print("| what | " + " | ".join(f"column {number + 1}" for number in range(len(columns))) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |")


if __name__ == "__main__":
    main()
