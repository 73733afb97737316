"""The library where neither its own folder nor HOME can be written: one warning, and it computes."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import dmlcore

PACKAGE = Path(dmlcore.__file__).parent
ROOMS = {"metrics/pairwise": "dmlcore.metrics.evaluation", "data": "dmlcore.data.jpeg"}
"""Folders with compiled code, and a module that imports it; reading JPEG files needs an extra."""
COMPILED = {folder: name for folder, name in ROOMS.items() if folder != "data" or find_spec("torchvision")}
CODE = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import {modules}
    from dmlcore.metrics.pairwise.{module} import {function}
assert dmlcore.__file__.startswith({folder!r}), dmlcore.__file__
print([f"{{w.message}}" for w in caught if "numba" in f"{{w.message}}"])
import numpy
print({function}(numpy.int32(5)) == 5 + (1 << 31))
"""


@pytest.mark.parametrize("variable", [None, "NUMBA_CACHE_DIR"])
def test_without_a_place_for_the_cache_it_works_with_one_warning(tmp_path, variable):
    """Folders that cannot be made stand for those that may not be written: root may write everywhere."""
    shutil.copytree(PACKAGE, tmp_path / "dmlcore", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in COMPILED:
        (tmp_path / "dmlcore" / folder / "__pycache__").touch()
    taken = tmp_path / "taken"
    taken.touch()
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment |= {"HOME": f"{taken}", "XDG_CACHE_HOME": f"{taken}", "PYTHONPATH": f"{tmp_path}"}
    environment |= {variable: f"{taken}/numba"} if variable else {}
    code = CODE.format(
        modules=", ".join(COMPILED.values()),
        module="compiling",
        function="order_key",
        folder=f"{tmp_path}",
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    warned, computed = done.stdout.splitlines()
    assert warned.count("no folder for numba's cache can be written") == 1
    assert "NUMBA_CACHE_DIR" in warned
    assert computed == "True"
