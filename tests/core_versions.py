"""`make test-core`: the core's tests on every Python that is found, where the wheel is installed without an extra.

The newest Pythons have the versions of constraints.txt; the oldest has the lower bounds of pyproject.toml. Run as
`python -m tests.core_versions WHEEL [light] [VERSION ...]`, in the checkout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "core"
PYTHONS = ("3.11", "3.12", "3.13")
TOOLS = ("hypothesis", "pytest", "pytest-timeout", "pytest-xdist")
TESTS = ("core", "losses", "metrics", "calibration", "cli/test_core.py", "cli/test_arrays.py")
LIGHT = (
    "calibration/test_calibrate.py",
    "cli/test_arrays.py",
    "cli/test_core.py",
    "losses/test_values.py",
    "metrics/test_against_reference.py",
    "metrics/test_numba_cache.py",
)
"""Each number against its slow twin, and the files that people give: what differs between versions, in CI's time."""
LEFT_OUT = (
    "calibration/test_page.py",  # of the documentation
    "losses/test_chosen_pairs.py",  # of an extra
    "losses/test_pml.py",
    "metrics/test_memory.py",  # of what the engine allocates, whatever the versions
)
UV = Path(sys.executable).with_name("uv")


def main() -> None:
    """Test each Python; exit with 1 if one fails, or if there is none."""
    wheel, chosen = Path(sys.argv[1]).resolve(), sys.argv[2:]
    tests = LIGHT if "light" in chosen else TESTS
    wanted = [version for version in chosen if version != "light"] or PYTHONS
    found = {version: path for version in wanted if (path := _interpreter(version))}
    print(f"Python found: {', '.join(found) or 'none'} of {', '.join(wanted)}", flush=True)
    suite = _copy_of_tests()
    failed = [version for version, path in found.items() if not _test(version, path, wheel, suite, tests)]
    if failed or not found:
        sys.exit(f"the core's tests failed on Python {', '.join(failed) or '(none found)'}")


def _interpreter(version: str) -> str | None:
    """Return the path of a Python on the PATH or of pyenv, whose shims fail for the versions not chosen."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for name in (f"python{version}", *sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)):
        with suppress(OSError):
            if subprocess.run([name, "--version"], capture_output=True, check=False).returncode == 0:
                return str(name)
    return None


def _copy_of_tests() -> Path:
    """Copy the tests out of the checkout, whose dmlcore would be imported in place of the wheel's."""
    suite = BUILD / "suite"
    shutil.rmtree(suite, ignore_errors=True)
    shutil.copytree(ROOT / "tests", suite / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", suite)
    return suite


def _test(version: str, interpreter: str, wheel: Path, suite: Path, tests: Sequence[str]) -> bool:
    oldest = version == PYTHONS[0]
    print(f"Python {version}, {'lower bounds' if oldest else 'pinned versions'} of the libraries", flush=True)
    python = BUILD / version / "bin" / "python"
    _run(UV, "venv", "--quiet", "--clear", "--python", interpreter, BUILD / version)
    pins = ("--constraint", ROOT / "constraints.txt")
    install = (UV, "pip", "install", "--quiet", "--python", python)
    _run(*install, wheel, *(("--resolution", "lowest-direct") if oldest else pins))
    _run(*install, *TOOLS, *pins)
    names = [f"tests/{name}" for name in tests]
    ignored = [f"--ignore=tests/{name}" for name in LEFT_OUT]
    options = ("--quiet", "--numprocesses=2", "--dist=worksteal", "-m", "not slow", "--durations=5", *ignored)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([python, "-m", "pytest", *options, *names], cwd=suite, env=environment, check=False)
    return done.returncode == 0


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
