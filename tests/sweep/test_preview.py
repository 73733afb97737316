"""What `dmlcore plan` says: which cells are done, which changed and by what, and what the rest will need."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dmlcore.config.data import PreprocessConfig, SplitConfig
from dmlcore.datasets.prepare.build import prepare
from dmlcore.sweep.dry_run.forecast import (
    at_a_time,
    disk_estimate,
    folder_bytes,
    trial_memory_bytes,
    trial_seconds,
)
from dmlcore.sweep.dry_run.preview import cell_states, preview, size
from dmlcore.sweep.planning import make_plan
from dmlcore.sweep.run import SweepFolders
from tests.memory_tracker import MemoryTracker
from tests.small import SIDE, TRIAL, small_catalogue
from tests.sweep.sweeps import plan_of, run_here, sweep_config

ROOT = Path(__file__).resolve().parents[2]
TRIPLET = {"triplet": {"loss": {"name": "triplet"}}}
LOSSES = {"ms": {"loss": {"name": "multi_similarity"}}} | TRIPLET


@pytest.fixture(scope="module")
def swept(tmp_path_factory, small_data):
    """A sweep of two losses, no regulariser, that has run."""
    folders = SweepFolders(tmp_path_factory.mktemp("study"), small_data.folder.parent)
    return folders, run_here(first(), folders, MemoryTracker())


def first(**changes):
    return sweep_config(**({"losses": LOSSES, "regularizers": [[]]} | changes))


def with_trial(**changes):
    return first(trial=dict(first().trial) | changes)


def states(config, folders):
    plan = plan_of(config, folders)
    found = cell_states(plan)
    return {trial.cell.labels["loss"]: found[trial.key] for trial in plan.trials}


def test_a_cell_is_cached_new_or_failed(swept):
    folders, records = swept
    found = states(first(losses=LOSSES | {"circle": {"loss": {"name": "circle"}}}), folders)
    assert {loss: state.status for loss, state in found.items()} == {
        "ms": "cached",
        "triplet": "cached",
        "circle": "new",
    }
    assert not any(state.changes for state in found.values())
    plan = plan_of(first(), folders)
    plan.records[records[0].trial_key] = records[0].model_copy(update={"status": "failed"})
    assert cell_states(plan)[records[0].trial_key].status == "failed"


def test_a_changed_config_field_is_named_with_both_values(swept):
    folders, _ = swept
    found = states(with_trial(train=TRIAL["train"] | {"epochs": 5}), folders)
    assert {state.status for state in found.values()} == {"stale"}
    assert found["ms"].changes == ("train.epochs: 2 -> 5",)
    found = states(with_trial(train=TRIAL["train"] | {"final": True}), folders)
    assert found["ms"].changes == ("train.final: default -> True",)


def test_another_evaluation_is_stale_but_trained(swept):
    folders, _ = swept
    found = states(with_trial(evaluation={"epsilon": 0.3}), folders)
    assert found["ms"].trained
    assert found["ms"].changes == ("evaluation.epsilon: 0.1 -> 0.3",)


def test_a_further_value_of_an_axis_is_new(swept):
    folders, _ = swept
    plan = plan_of(first(axes={"train.epochs": [2, 3]}), folders)
    found = cell_states(plan)
    status = {
        (trial.cell.labels["loss"], trial.cell.config.train.epochs): found[trial.key].status
        for trial in plan.trials
    }
    assert status == {
        ("ms", 2): "cached",
        ("triplet", 2): "cached",
        ("ms", 3): "new",
        ("triplet", 3): "new",
    }


def test_changed_data_are_named(swept, tmp_path):
    folders, _ = swept
    config = PreprocessConfig(image_size=SIDE, split=SplitConfig(test_share=0.34, validation_share=0.25))
    prepare("small", small_catalogue(images=7), config, tmp_path / "small")
    plan = make_plan(first(), study=folders.study, prepared=tmp_path)
    (change,) = cell_states(plan)[plan.trials[0].key].changes
    assert change.startswith("data: ")


def test_a_changed_library_is_named_with_both_versions(swept, monkeypatch):
    folders, records = swept
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "98.7.6" if name == "torch" else real(name)
    )
    before = ".".join(records[0].versions["torch"].split(".")[:2])
    found = states(first(), folders)
    assert {state.status for state in found.values()} == {"stale"}
    assert found["ms"].changes == (f"version of torch: {before} -> 98.7",)


@pytest.fixture
def code_copy(tmp_path):
    """A copy of the code to edit."""
    shutil.copytree(ROOT / "dmlcore", tmp_path / "dmlcore", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


EDIT = """
from pathlib import Path
from dmlcore.config.sweep import SweepConfig
from dmlcore.sweep.planning import make_plan
from dmlcore.sweep.dry_run.preview import preview
import sys
sweep = SweepConfig.model_validate_json(sys.argv[1])
plan = make_plan(sweep, study=Path(sys.argv[2]), prepared=Path(sys.argv[3]))
print(*preview(plan, sweep, Path(sys.argv[2]) / sweep.storage), sep="\\n")
"""


def edited(copy, folders, file):
    """What the plan says under code in which `file` was edited."""
    path = copy / file
    text = path.read_text()
    path.write_text(text + "\nEXTRA = 1\n")
    command = [sys.executable, "-c", EDIT, first().model_dump_json(), folders.study, folders.prepared]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    path.write_text(text)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_edit_makes_stale_what_it_concerns_and_is_named(swept, code_copy):
    folders, _ = swept
    assert "2 cached, 0 new, 0 stale, 0 failed" in edited(code_copy, folders, "dmlcore/report/text/tables.py")
    said = edited(code_copy, folders, "dmlcore/losses/triplet.py")
    assert "1 cached, 0 new, 1 stale, 0 failed" in said
    assert "training code: dmlcore/losses/triplet.py" in said
    said = edited(code_copy, folders, "dmlcore/metrics/pairwise/ranks.py")
    assert "training code: dmlcore/metrics/pairwise/ranks.py" in said
    assert "0 cached, 0 new, 2 stale, 0 failed" in said
    assert "evaluated again" not in said
    said = edited(code_copy, folders, "dmlcore/metrics/consistency.py")
    assert "evaluation code: dmlcore/metrics/consistency.py" in said
    assert "0 cached, 0 new, 2 stale, 0 failed" in said
    assert said.count("evaluated again from its stored embeddings") == 2


def test_the_stage_has_a_dry_run(swept, code_copy):
    folders, _ = swept
    shutil.copytree(ROOT / "pipeline", code_copy / "pipeline")
    (code_copy / "data").mkdir()
    (code_copy / "data" / "prepared").symlink_to(folders.prepared)
    study = code_copy / "study"
    study.mkdir()
    (study / "params.yaml").write_text(yaml.safe_dump({"sweep": json.loads(first().model_dump_json())}))
    command = [sys.executable, "pipeline/sweep.py", str(study), "--dry-run"]
    environment = os.environ | {"PYTHONPATH": str(code_copy)}
    said = subprocess.run(
        command, cwd=code_copy, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "2 cells: 0 cached, 2 new, 0 stale, 0 failed" in said
    assert "time: unknown" in said
    assert [path.name for path in study.iterdir()] == ["params.yaml"]


def test_time_and_memory_are_those_of_like_trials_scaled_to_the_epochs(swept):
    folders, records = swept
    (trial,) = plan_of(
        with_trial(train=TRIAL["train"] | {"epochs": 6}).model_copy(update={"losses": TRIPLET}), folders
    ).trials
    base = records[1].model_copy(update={"seconds": 10.0, "peak_memory_bytes": 500})
    assert base.labels["loss"] == "triplet"
    ms = records[0].model_copy(update={"seconds": 100.0, "peak_memory_bytes": 900})
    assert trial_seconds(trial, [base, ms]) == 30.0
    assert trial_memory_bytes(trial, [base, ms]) == 500
    assert trial_seconds(trial, [ms]) == 300.0
    resumed = base.model_copy(update={"attempts": 2})
    assert trial_seconds(trial, [resumed]) is None
    elsewhere = ms.model_copy(update={"labels": ms.labels | {"dataset": "other"}})
    assert trial_seconds(trial, [elsewhere]) is None
    assert trial_memory_bytes(trial, [elsewhere]) is None


def test_the_disk_need_is_what_trials_leave(swept):
    folders, _ = swept
    for trial in plan_of(first(), folders).trials:
        stored = sum(path.stat().st_size for path in trial.store_folder.glob("*.safetensors"))
        assert disk_estimate(trial).kept == pytest.approx(stored, rel=0.05)


def test_a_loss_with_proxies_needs_more_while_it_trains(swept):
    folders, _ = swept
    losses = {"ms": LOSSES["ms"], "proxies": {"loss": {"name": "proxy_anchor"}}}
    plain, proxies = (disk_estimate(trial).passing for trial in plan_of(first(losses=losses), folders).trials)
    assert proxies > plain


def test_trials_at_a_time_keep_to_the_configured_number(swept):
    folders, _ = swept
    config = first(resources={"max_concurrent": 1})
    assert at_a_time(plan_of(config, folders).trials, config.resources) == 1


def test_the_needs_are_told_for_what_is_to_run(swept):
    folders, _ = swept
    config = with_trial(train=TRIAL["train"] | {"epochs": 4})
    said = list(preview(plan_of(config, folders), config, folders.study / config.storage))
    assert any(line.startswith("to run: 2 trials") for line in said)
    assert any(line.startswith("time: about ") for line in said)
    assert any(line.startswith("memory: up to ") for line in said)
    there = size(folder_bytes(folders.study / config.storage))
    assert any(line.startswith("disk: ") and there in line for line in said)
    done = list(preview(plan_of(first(), folders), first(), folders.study / config.storage))
    assert done[-1] == "2 cells: 2 cached, 0 new, 0 stale, 0 failed"


def test_size():
    assert [size(value) for value in (310_000, 12_000_000, 3_440_000_000)] == ["310 kB", "12 MB", "3.44 GB"]
