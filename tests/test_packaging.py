"""What is distributed: the extras, the versions, and the files of the wheel."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest

import dmlcore
from dmlcore.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRA = PROJECT["optional-dependencies"]
NAME = re.compile(r"[\w.-]+")


def distributions(requirements: list[str]) -> set[str]:
    """Return the normalised names of requirements without this project's own extras."""
    found = {NAME.match(each).group().lower().replace("_", "-") for each in requirements}
    return found - {"dmlcore"}


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_modules_of_an_extra_are_those_of_its_requirements(extra):
    known = importlib.metadata.packages_distributions()
    providers = [{name.lower().replace("_", "-") for name in known[module]} for module in EXTRAS[extra]]
    wanted = distributions(EXTRA[extra])
    assert len(providers) == len(wanted)
    assert all(names & wanted for names in providers), providers


def test_each_extra_includes_the_one_before_it():
    names = list(EXTRAS)
    for before, extra in pairwise(names):
        assert f"dmlcore[{before}]" in EXTRA[extra]


def test_the_core_is_at_most_15_distributions_beside_those_of_torch():
    core = closure(PROJECT["dependencies"])
    assert {"torch", "numpy", "numba", "scipy", "safetensors", "typer"} <= core
    assert len(core - closure(["torch"])) <= 15, sorted(core - closure(["torch"]))


def closure(requirements: list[str]) -> set[str]:
    """Return the installed distributions that requirements bring, optional ones left out."""
    todo, found = sorted(distributions(requirements)), set()
    while todo:
        name = todo.pop()
        if name in found:
            continue
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # of another system
            continue
        found.add(name)
        todo += distributions([line for line in needed if "extra ==" not in line])
    return found


def test_exact_versions_are_in_the_constraints_alone():
    for name in ("pyproject.toml", "Makefile", "docker/Dockerfile", ".ci/run"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        pinned = [line for line in lines if re.search(r"[\w\])]==\d", line)]
        assert not pinned, (name, pinned)


def test_the_constraints_fit_the_requirements():
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in constraints if "==" in line}
    for requirements in (PROJECT["dependencies"], *(EXTRA[name] for name in (*EXTRAS, "dev"))):
        assert distributions(requirements) <= pinned


def test_classifiers_name_the_pythons_that_are_tested():
    from tests.core_versions import PYTHONS

    found = {each.rpartition(" :: ")[2] for each in PROJECT["classifiers"] if ":: Python :: 3." in each}
    assert found == set(PYTHONS)
    assert PROJECT["requires-python"] == f">={PYTHONS[0]},<3.{int(PYTHONS[-1][2:]) + 1}"


def test_the_wheel_has_every_file_of_the_package(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    source = tmp_path / "source"
    shutil.copytree(ROOT / "dmlcore", source / "dmlcore", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    files = {f"{path.relative_to(source)}" for path in source.glob("dmlcore/**/*") if path.is_file()}
    subprocess.run([*command, "--wheel-dir", tmp_path, source], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        found = {name for name in wheel.namelist() if name.startswith("dmlcore/")}
        licences = [name for name in wheel.namelist() if name.endswith("licenses/LICENSE")]
    assert found == files
    assert "dmlcore/py.typed" in found
    assert len(licences) == 1
    assert next(tmp_path.glob("*.whl")).name.startswith(f"dmlcore-{dmlcore.__version__}-")
