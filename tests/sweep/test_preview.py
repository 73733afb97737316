"""What `dmlcore plan` says: which cells are done, which changed and by what, and what the rest will need."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks import paper_scale
from dmlcore.config.data import PreprocessConfig, SplitConfig
from dmlcore.config.trial import ModelConfig
from dmlcore.datasets.prepare.build import prepare
from dmlcore.sweep.dry_run import gpu_forecast
from dmlcore.sweep.dry_run.disk import ImageCounts, disk_estimate, folder_bytes, missing_features, over_budget
from dmlcore.sweep.dry_run.forecast import PastTrials, concurrent_trials
from dmlcore.sweep.dry_run.network_sizes import operations_of
from dmlcore.sweep.dry_run.preview import cell_states, preview
from dmlcore.sweep.planning import make_plan
from dmlcore.sweep.progress import size
from dmlcore.sweep.run import SweepFolders
from tests.memory_tracker import MemoryTracker
from tests.small import SIDE, TRIAL, small_catalogue, small_trial
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
from dmlcore.sweep.progress import size
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
    assert PastTrials([base, ms]).seconds(trial) == 30.0
    assert PastTrials([base, ms]).memory_bytes(trial) == 500
    assert PastTrials([ms]).seconds(trial) == 300.0
    resumed = base.model_copy(update={"attempts": 2})
    assert PastTrials([resumed]).seconds(trial) is None
    elsewhere = ms.model_copy(update={"labels": ms.labels | {"dataset": "other"}})
    assert PastTrials([elsewhere]).seconds(trial) is None
    assert PastTrials([elsewhere]).memory_bytes(trial) is None


def test_the_disk_need_is_what_trials_leave(swept):
    folders, _ = swept
    for trial in plan_of(first(), folders).trials:
        stored = sum(path.stat().st_size for path in trial.store_folder.glob("*.safetensors"))
        assert disk_estimate(trial).persistent == pytest.approx(stored, rel=0.05)


def test_a_loss_with_proxies_needs_more_while_it_trains(swept):
    folders, _ = swept
    losses = {"ms": LOSSES["ms"], "proxies": {"loss": {"name": "proxy_anchor"}}}
    plain, proxies = (
        disk_estimate(trial).temporary for trial in plan_of(first(losses=losses), folders).trials
    )
    assert proxies > plain


def test_trials_at_a_time_keep_to_the_configured_number(swept):
    folders, _ = swept
    config = first(resources={"max_concurrent": 1})
    assert concurrent_trials(plan_of(config, folders).trials, config.resources) == 1


def test_the_needs_are_those_of_what_is_to_run(swept):
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


# ------------------------------------------------------------------------------------------- on GPUs


def gpu_figure(section, row):
    text = (ROOT / "benchmarks" / "GPU.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    return float(re.search(rf"^\| {re.escape(row)} \| ([0-9.,]+)", text, re.MULTILINE)[1].replace(",", ""))


@pytest.mark.parametrize(
    ("name", "section"),
    [("resnet50", "images/s, resnet50"), ("vit_base_patch16_224", "images/s, vit_base")],
)
def test_the_measured_rates_are_those_of_the_committed_run(name, section):
    row = gpu_forecast.MEASURED[name]
    assert row.resident == gpu_figure(section, "resident random data, deterministic kernels")
    assert row.nvjpeg == gpu_figure(section, "Trainer, JPEG files, nvJPEG")
    assert row.threads == gpu_figure(section, "Trainer, JPEG files, 16 threads")
    assert row.nvjpeg_input == gpu_figure(section, "input path alone, nvJPEG")
    assert row.threads_input == gpu_figure(section, "input path alone, 16 threads")
    model = ModelConfig(backbone={"name": name}, pooling="token" if "vit" in name else "average")
    counted, convolutional = operations_of(model.model_dump_json(), 3, gpu_forecast.MEASURED_SIZE)
    assert convolutional == (name == "resnet50")
    assert counted == pytest.approx(row.operations, rel=0.01)


def test_the_page_on_paper_scale_has_the_table_that_the_benchmark_prints():
    text = (ROOT / "docs" / "how-to" / "paper-scale.md").read_text(encoding="utf-8")
    assert "\n".join(paper_scale.rows()) in text


COUNTS = ImageCounts(100, 20, 50)
TINY = ImageCounts(100, 20, 50, side=SIDE, jpeg=False)


def large_trial(**train):
    config = small_trial(input={"size": 224}, threads=16, train={"batches_per_epoch": None} | train)
    return config.model_copy(update={"model": ModelConfig(backbone={"name": "resnet50"})})


def test_the_cost_of_a_trial_is_its_images_over_the_rate_and_its_evaluations():
    sweeps = 11.06 / 136_093**2 * (4 * 50**2 + (3 + 2) * 20**2)
    plain = large_trial(epochs=3, decoder="gpu")
    images = 3 * 100 + (3 + 2) * 20 + 3 * 50
    assert gpu_forecast.trial_cost(plain, COUNTS).seconds == pytest.approx(images / 3961 + sweeps)
    everything = large_trial(epochs=3, final=True, chunk_size=8, precision="bfloat16")
    images = 3 * (100 + 120) * 4 / 3 + (3 + 2) * 20 + 3 * 50
    cost = gpu_forecast.trial_cost(everything, COUNTS)
    assert cost.seconds == pytest.approx(images / 1691 + sweeps)
    assert cost.bottleneck == "decoding by 16 CPU threads a GPU"
    fewer = everything.model_copy(update={"threads": 4})
    rate = 1 / (1 / 4360 + 4 / 2586)
    assert gpu_forecast.trial_cost(fewer, COUNTS).seconds == pytest.approx(images / rate + sweeps)
    many_pairs = ImageCounts(100, 20, 10**6)
    assert gpu_forecast.trial_cost(plain, many_pairs).bottleneck == "evaluation"


def test_another_size_is_scaled_by_its_operations():
    small = large_trial(epochs=3).model_copy(update={"input": None})
    raw = ImageCounts(100, 20, 50, side=112, jpeg=False)
    cost = gpu_forecast.trial_cost(small, raw)
    assert cost.bottleneck == "the GPU"
    # a quarter of the pixels and about of the operations (the last maps round up): four times the images
    assert cost.seconds == pytest.approx(
        (3 * 100 + 5 * 20 + 3 * 50) / (4 * 4360) + 11.06 / 136_093**2 * (4 * 50**2 + 5 * 20**2), rel=0.1
    )
    assert "scaled by operations from resnet50" in cost.source
    assert gpu_forecast.trial_cost(small_trial(), TINY).source.startswith("25,895 images/s")


def forecast_of(config, folders, past=()):
    trials = [(trial, 1) for trial in plan_of(config, folders).trials]
    return list(gpu_forecast.forecast_lines(trials, {"small": TINY}, PastTrials(past)))


def test_past_trials_on_a_gpu_come_before_the_table(swept):
    folders, records = swept
    there = records[0].model_copy(
        update={"machine": {"gpu": "NVIDIA H7"}, "seconds": 7200.0, "labels": records[0].labels}
    )
    config = with_trial(train=TRIAL["train"] | {"epochs": 4})
    said = forecast_of(config, folders, [there])
    assert said[1].startswith(
        "  2 of small resnet: a trial 4.0 h on 1, 30 min on the 8 of a node; bottleneck not recorded"
    )
    assert said[1].endswith("rate of 1 similar trials on NVIDIA H7")
    # On 64 the longest trial, over the GPUs of one node, takes as long as on 16.
    assert said[2].startswith("  all 2: 8.0 h on 1, 60 min on 8, 30 min on 64; ")
    assert said[2].endswith("on 64 the longest trial")
    assert "highest rate measured" in forecast_of(config, folders, records)[1]  # those ran on the CPU


def test_a_network_that_does_not_take_its_images_has_no_forecast(swept):
    folders, _ = swept
    model = {"backbone": {"name": "vit_tiny_patch16_224", "arguments": {"img_size": 224}}}
    said = forecast_of(with_trial(model=model), folders)
    assert len(said) == 2
    assert "not known: vit_tiny_patch16_224 does not take images of 16 pixels" in said[1]


def test_the_features_of_frozen_trunks_are_in_the_disk_need(small_data, tmp_path):
    folders = SweepFolders(tmp_path / "study", small_data.folder.parent)
    config = with_trial(model=TRIAL["model"] | {"trunk": "frozen"})
    trials = plan_of(config, folders).trials
    ((file, size_of_it),) = missing_features(trials).items()
    said = list(preview(plan_of(config, folders), config, folders.study / config.storage))
    assert any(f"{size(size_of_it)} of it features of frozen trunks" in line for line in said)
    needed = sum(disk_estimate(trial).persistent for trial in trials) + max(
        disk_estimate(trial).temporary for trial in trials
    )
    storage = folders.study / config.storage
    assert not over_budget(trials, storage, needed + size_of_it, 1)
    assert over_budget(trials, storage, needed + size_of_it - 1, 1)
    run_here(config, folders, MemoryTracker())
    assert file.stat().st_size == pytest.approx(size_of_it, abs=128)
    assert missing_features(trials) == {}
