"""What a plan knows from earlier ones: right, never in the way, gone with the code that it was computed by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmlcore.models.weights import local_file
from dmlcore.sweep import plan_cache
from dmlcore.sweep.plan_cache import KEPT_FILES, PlanCache
from dmlcore.sweep.trial_key import weights_file
from tests.sweep.sweeps import sweep_config

PLAN = """
import sys
from pathlib import Path
from dmlcore.config.sweep import SweepConfig
from dmlcore.sweep.dry_run.preview import preview
from dmlcore.sweep.planning import make_plan

study, prepared, text = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
sweep = SweepConfig.model_validate_json(text)
for line in preview(make_plan(sweep, study=study, prepared=prepared), sweep, study / "storage"):
    print(line)
print("torch" in sys.modules)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(plan_cache.FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache"


def refuse():
    raise AssertionError("asked again")


def plan(tmp_path: Path, prepared: Path, cache: Path) -> list[str]:
    command = [sys.executable, "-c", PLAN, tmp_path / "study", prepared, sweep_config().model_dump_json()]
    environment = os.environ | {plan_cache.FOLDER: str(cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_second_plan_says_the_same_without_torch(tmp_path, small_data):
    prepared = small_data.folder.parent
    *first, imported = plan(tmp_path, prepared, tmp_path / "cache")
    assert imported == "True"
    assert any(line.startswith("disk:") for line in first)
    assert any("bottleneck" in line for line in first)
    assert plan(tmp_path, prepared, tmp_path / "cache") == [*first, "False"]
    # a damaged file costs time alone, and is mended
    (file,) = (tmp_path / "cache").iterdir()
    file.write_text(file.read_text().replace("true", "false", 1))
    assert plan(tmp_path, prepared, tmp_path / "cache") == [*first, "True"]
    assert plan(tmp_path, prepared, tmp_path / "cache") == [*first, "False"]


def test_a_plan_goes_on_where_the_cache_cannot_be_written(tmp_path, small_data):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    first, second = (plan(tmp_path, small_data.folder.parent, blocked) for _ in range(2))
    assert first == second
    assert blocked.read_text() == "a file where the folder should be"


def test_answers_are_kept_with_those_of_others_and_errors_are_not(folder):
    one, other = PlanCache(), PlanCache()
    assert one.answer("size", 1, compute=lambda: [1]) == [1]
    assert other.answer("size", 2, compute=lambda: [2]) == [2]
    with pytest.raises(ValueError, match="cannot be built"):
        one.answer("network", compute=lambda: int("cannot be built"))
    one.save()
    other.save()
    later = PlanCache()
    assert [later.answer("size", n, compute=refuse) for n in (1, 2)] == [[1], [2]]
    assert later.answer("network", compute=lambda: [3]) == [3]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"a": 1}', b"\xff", b"[" * 100_000])
def test_a_file_that_is_not_one_of_ours_counts_for_nothing(folder, content):
    cache = PlanCache()
    cache._file.parent.mkdir()
    cache._file.write_bytes(content)
    assert cache.answer("a", compute=lambda: 7) == 7
    cache.save()
    assert PlanCache().answer("a", compute=refuse) == 7


def test_an_edit_of_the_code_or_another_library_asks_anew(folder, tmp_path, monkeypatch):
    def names(copy: Path) -> str:
        monkeypatch.setattr(plan_cache, "PACKAGE", copy)
        return PlanCache()._file.name

    package = tmp_path / "dmlcore"
    package.mkdir()
    (package / "a.py").write_text("x = 1\n")
    first = names(package)
    assert names(package) == first
    (package / "a.py").write_text("x = 2\n")
    second = names(package)
    (package / "b.py").write_text("")
    third = names(package)
    monkeypatch.setattr(plan_cache.importlib.metadata, "version", lambda name: "0")
    assert len({first, second, third, names(package)}) == 4


def test_files_of_old_versions_are_removed(folder):
    folder.mkdir()
    for age in range(KEPT_FILES + 3):
        old = folder / f"plan-{age:016x}.json"
        old.write_text(json.dumps({}))
        os.utime(old, (1e9 - age, 1e9 - age))
    cache = PlanCache()
    cache.answer("a", compute=lambda: 1)
    cache.save()
    left = sorted(file.name for file in folder.iterdir())
    assert left == sorted([cache._file.name, *(f"plan-{age:016x}.json" for age in range(KEPT_FILES))])


def test_a_weights_file_is_found_as_training_finds_it(tmp_path):
    here = tmp_path / "own.safetensors"
    here.write_bytes(b"x")
    for weights in (None, "default", "tv_in1k", str(here), "data/weights/glyphs-resnet.safetensors"):
        assert weights_file(weights) == local_file(weights)
    for wrong in (str(tmp_path / "absent.pt"), "package:absent"):
        with pytest.raises(ValueError, match=r"backbone.weights"):
            weights_file(wrong)
