"""data/dvc.yaml: each stage lists exactly what it reads, and DVC runs what changed and nothing else."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

REPOSITORY = Path(__file__).parents[2]


def imported_files(script: Path) -> set[str]:
    """Files of this repository that a script imports, directly or not; `dmlcore.metrics` as one folder."""
    found: set[str] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(REPOSITORY).as_posix()
        if name in found:
            continue
        found.add(name)
        if path.is_file():
            waiting += [file for module in imported_modules(path) if (file := file_of(module))]
    return found


def imported_modules(path: Path) -> list[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    direct = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return direct + [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]


def file_of(module: str) -> Path | None:
    if module == "dmlcore.metrics":
        return REPOSITORY / "dmlcore/metrics"
    file = REPOSITORY / (module.replace(".", "/") + ".py")
    return file if file.is_file() else None


@pytest.mark.parametrize("stage", ["write_archives", "download", "preprocess"])
def test_a_stage_lists_the_code_it_imports(stage):
    definition = yaml.safe_load((REPOSITORY / "data/dvc.yaml").read_text())["stages"][stage]["do"]
    listed = {name.removeprefix("../") for name in definition["deps"] if name.startswith("../")}
    assert listed == imported_files(REPOSITORY / f"pipeline/{stage}.py")


@pytest.mark.parametrize(
    "package", ["dmlcore", "dmlcore/data", "dmlcore/data/importers", "dmlcore/data/imitations"]
)
def test_packages_on_the_way_hold_no_code(package):
    # They are imported too but not listed: only a docstring may stand there.
    (docstring,) = ast.parse((REPOSITORY / package / "__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr)


@pytest.fixture
def project(tmp_path):
    """A copy of the data stages over a small image folder of its own, under DVC."""
    project = tmp_path / "project"
    shutil.copytree(REPOSITORY / "dmlcore", project / "dmlcore", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "pipeline", project / "pipeline")
    (project / "data").mkdir()
    shutil.copy(REPOSITORY / "data/dvc.yaml", project / "data")
    write_params(project, image_size=8)
    for name in "abcdefgh":
        (project / "photographs" / name).mkdir(parents=True)
        for number in range(4):
            write_image(project / "photographs" / name / f"{number}.png", seed=10 * ord(name) + number)
    dvc(project, "init", "--no-scm", "--quiet")
    return project


def write_params(project, image_size):
    split = {"test_share": 0.5, "validation_share": 0.25}
    preprocess = {"image_size": image_size, "split": split}
    mine = {"kind": "image_folder", "source": "../photographs", "preprocess": preprocess}
    (project / "data/params.yaml").write_text(yaml.safe_dump({"datasets": {"mine": mine}}))


def write_image(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def dvc(project, *arguments):
    environment = os.environ | {
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(project / "site-cache"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(project),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"Running stage '.*:(.*)'", done.stdout))


def cached(project):
    return [path.read_bytes() for path in (project / ".dvc/cache").rglob("*") if path.is_file()]


def test_dvc_runs_what_changed(project):
    both = {"download@mine", "preprocess@mine"}
    assert dvc(project, "repro", "data/dvc.yaml") == both
    assert (project / "data/prepared/mine/images.bin").stat().st_size == 32 * 8 * 8 * 3
    assert (project / "data/raw/mine/images.tar").read_bytes() not in cached(project)
    assert dvc(project, "repro", "data/dvc.yaml") == set()

    write_image(project / "photographs/a/0.png", seed=0)
    assert dvc(project, "repro", "data/dvc.yaml") == both

    write_params(project, image_size=16)
    assert dvc(project, "repro", "data/dvc.yaml") == {"preprocess@mine"}
