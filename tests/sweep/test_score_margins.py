"""Margins from a model's own scores: rates become numbers once the base has finished, the same after a restart."""

from __future__ import annotations

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from typer.testing import CliRunner

from dmlcore.analysis.results import read_study
from dmlcore.analysis.searches import rate_sentences
from dmlcore.analysis.tuned_settings import tuned_settings
from dmlcore.cli import app
from dmlcore.config.base import ConfigError
from dmlcore.config.study import AggregateConfig
from dmlcore.records import RecordFolder
from dmlcore.sweep.dry_run.preview import preview
from dmlcore.sweep.margin_rates import NEGATIVES, POSITIVES, Rate
from dmlcore.sweep.pair_scores import _margin, count_pairs, margins_from_scores
from dmlcore.sweep.ray.remote_worker import download_results, run_remote, upload_inputs
from dmlcore.sweep.ray.shared_storage import SharedStorage
from dmlcore.sweep.run import SweepFolders, publish, run_sweep
from dmlcore.training.store import TrialStore
from tests.memory_tracker import MemoryTracker
from tests.sweep.sweeps import plan_of, run_here, sweep_config, worker_context

RATES = {"positive_margin": {POSITIVES: 0.5}, "negative_margin": {NEGATIVES: 0.05}}
LABEL = "tcm(negative_margin=share_of_negatives:0.05,positive_margin=share_of_positives:0.5)"
FROM_SCORES = [[], [{"name": "tcm", "params": RATES}]]


@pytest.fixture
def folders(tmp_path, small_data):
    return SweepFolders(tmp_path / "study", small_data.folder.parent)


def config_of(**changes):
    return sweep_config(**{"regularizers": FROM_SCORES, "seeds": [0, 1], **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_data):
    """Two bases and their two dependants, run to the end without Ray: bases first, as the stage does."""
    folders = SweepFolders(tmp_path_factory.mktemp("whole"), small_data.folder.parent)
    bases = run_here(config_of(), folders, MemoryTracker())
    return folders, bases, run_here(config_of(), folders, MemoryTracker())


def naive_margins(embeddings, labels, positive_share, negative_share, groups=None):
    """Sort every pair's similarity: the ceil(s P)-th smallest positive, the ceil(s M)-th largest negative."""
    positives, negatives = [], []
    for i in range(len(labels)):
        for j in range(i):
            a, b = embeddings[i].astype(np.float64), embeddings[j].astype(np.float64)
            similarity = float(a @ b / np.sqrt((a @ a) * (b @ b)))
            if labels[i] != labels[j]:
                negatives.append(similarity)
            elif groups is None or groups[i] != groups[j]:
                positives.append(similarity)
    place = int(np.ceil(round(positive_share * len(positives), 9))) - 1
    rank = int(np.ceil(round(negative_share * len(negatives), 9))) - 1
    return sorted(positives)[place], sorted(negatives, reverse=True)[rank]


@pytest.mark.parametrize("grouped", [False, True])
def test_margins_are_the_order_statistics_of_a_naive_loop(grouped, monkeypatch, tmp_path):
    monkeypatch.setattr("dmlcore.sweep.pair_scores.ROWS", 7)
    random = np.random.default_rng(3)
    labels = random.integers(0, 5, 40)
    groups = random.integers(0, 3, 40) if grouped else None
    embeddings = (random.normal(size=(40, 6)) + 2 * np.eye(6)[labels]).astype(np.float32)
    tensors = (torch.from_numpy(x) for x in (embeddings, labels))
    counts = count_pairs(*tensors, None if groups is None else torch.from_numpy(groups))
    for shares in ((0.5, 0.05), (0.1, 0.3), (0.999, 0.0001)):
        expected = naive_margins(embeddings, labels, *shares, groups)
        found = [
            _margin(Rate(0, "m", kind, share), counts[place], tmp_path)
            for place, (kind, share) in enumerate(zip((POSITIVES, NEGATIVES), shares, strict=True))
        ]
        assert found == pytest.approx(expected, abs=6.0e-5)
        assert found == [round(value, 4) for value in found]


def test_rates_wait_for_their_base_and_become_numbers(whole):
    folders, bases, dependants = whole
    assert [(r.labels["variant"], r.labels["seed"]) for r in bases] == [("baseline", 0), ("baseline", 1)]
    assert [(r.labels["variant"], r.labels["seed"], r.status) for r in dependants] == [
        (LABEL, 0, "finished"),
        (LABEL, 1, "finished"),
    ]
    for base, record in zip(bases, dependants, strict=True):
        store = TrialStore(folders.study / "state/storage" / base.train_key[:16], base.files)
        stored = store.load("validation")
        expected = naive_margins(stored["embeddings"].numpy(), stored["labels"].numpy(), 0.5, 0.05)
        params = record.config["regularizers"][0]["params"]
        assert params["positive_margin"] == pytest.approx(expected[0], abs=6.0e-5)
        assert params["negative_margin"] == pytest.approx(expected[1], abs=6.0e-5)
        assert record.hashes["scores"] == {"trial": base.trial_key, "validation": base.files["validation"]}
    assert plan_of(config_of(), folders).is_complete


def test_the_plan_says_what_waits_before_and_nothing_afterwards(folders, whole):
    config = config_of()
    plan = plan_of(config, folders)
    assert plan.counts() == {
        "planned": 4,
        "done": 0,
        "failed before": 0,
        "to evaluate again": 0,
        "to run": 2,
        "waiting for the scores of others": 2,
    }
    assert not plan.is_complete
    said = "\n".join(preview(plan, config, folders.study / config.storage))
    assert f"small resnet ms {LABEL} seed 0: waits for [small resnet ms baseline seed 0]" in said
    assert "4 cells: 0 cached, 2 new, 0 stale, 0 failed, 2 waiting for scores" in said
    assert "to run: 2 trials" in said
    assert "then 2 whose margins those give" in said
    done = list(preview(plan_of(config, whole[0]), config, whole[0].study / config.storage))
    assert "4 cells: 4 cached, 0 new, 0 stale, 0 failed" in done


def test_the_table_has_the_rate_and_the_number_and_a_row_for_what_waits(folders, whole):
    publish(plan_of(config_of(), folders), folders)
    before = pl.read_parquet(folders.results / "trials.parquet")
    waiting = before.filter(variant=LABEL)
    assert waiting["status"].to_list() == ["missing", "missing"]
    assert waiting["error"].str.starts_with("waits for [small resnet ms baseline seed ").all()
    assert waiting["trial_key"].n_unique() == 2
    publish(plan_of(config_of(), whole[0]), whole[0])
    after = pl.read_parquet(whole[0].results / "trials.parquet").filter(variant=LABEL)
    assert after["status"].to_list() == ["finished", "finished"]
    assert json.loads(after["regularizers_as_given"][0])[0]["params"] == RATES
    assert json.loads(after["config/regularizers"][0])[0]["params"]["positive_margin"] < 1
    study = read_study(whole[0].study, AggregateConfig())
    # One setting of two seeds, though each seed has its own numbers
    (setting,) = tuned_settings(study)["small", "resnet", "ms", "tcm"]
    assert setting.trials.height == 2
    assert "share_of_negatives:0.05" in setting.text
    (sentence,) = rate_sentences(study)
    assert sentence.startswith("Margins of small resnet ms from the scores of its base model")
    assert "tcm.positive_margin share_of_positives:0.5 = 0." in sentence


def test_a_rerun_gives_the_same_numbers_even_without_the_embeddings(whole, folders):
    shutil.copytree(whole[0].state, folders.state)
    again = {trial.key for trial in plan_of(config_of(), folders).trials}
    for record in whole[2]:
        RecordFolder(folders.records).path(record.trial_key).unlink()
    plan = plan_of(config_of(), folders)
    assert {trial.key for trial in plan.trials} == again  # resolved anew from the embeddings
    assert [trial.cell.labels["variant"] for trial in plan.missing] == [LABEL, LABEL]
    margins_from_scores.cache_clear()
    shutil.rmtree(whole_storage := folders.state / "storage")
    lost = plan_of(config_of(), folders)
    assert [waiting.failed for waiting in lost.waiting] == [True, True]
    assert "does not have the sha256" in lost.waiting[0].reason
    for record in whole[2]:
        RecordFolder(folders.records).write(record)
    assert not whole_storage.exists()
    assert {trial.key for trial in plan_of(config_of(), folders).trials} == again  # known from their records


def test_the_trials_of_a_failed_base_fail_with_its_reason(folders):
    config = config_of(seeds=[0])
    (base,) = run_here(config, folders, MemoryTracker())
    failed = base.model_copy(
        update={"status": "failed", "error": "ValueError: boom", "metrics": {}, "files": {}}
    )
    RecordFolder(folders.records).write(failed)
    plan = plan_of(config, folders)
    (waiting,) = plan.waiting
    assert waiting.reason == "its base [small resnet ms baseline seed 0] failed: ValueError: boom"
    publish(plan, folders)
    row = pl.read_parquet(folders.results / "trials.parquet").filter(variant=LABEL).to_dicts()[0]
    assert (row["status"], row["error"]) == ("failed", waiting.reason)
    assert "1 failed" not in row["trial_key"]


def test_check_lists_what_waits(folders):
    data = folders.study.parent / "data"
    data.mkdir()
    (data / "dvc.yaml").touch()
    (data / "prepared").symlink_to(folders.prepared)
    folders.study.mkdir()
    values = {"sweep": config_of(seeds=[0]).model_dump(mode="json", exclude_none=True)}
    (folders.study / "params.yaml").write_text(yaml.safe_dump(values))
    found = CliRunner().invoke(app, ["check", "--study", str(folders.study)])
    assert (
        f"MISSING small resnet ms {LABEL} seed 0: waits for [small resnet ms baseline seed 0]" in found.output
    )
    assert "0 of 2 trials are finished" in found.output
    assert found.exit_code == 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"positive_margin": {"quantile": 0.5}}, "positive_margin"),
        ({"positive_margin": {POSITIVES: 1.5}}, "in \\(0, 1\\)"),
        ({"positive_margin": {POSITIVES: True}}, "must be a number"),
        ({"positive_margin": {POSITIVES: 0.5, NEGATIVES: 0.1}}, "must be a number"),
        ({"margin": {POSITIVES: 0.5}}, "margin"),
    ],
)
def test_a_rate_that_is_none_is_refused(folders, params, message):
    with pytest.raises(ConfigError, match=message):
        plan_of(config_of(regularizers=[[], [{"name": "tcm", "params": params}]]), folders)


def test_rates_without_a_base_are_refused(folders):
    with pytest.raises(ConfigError, match=r"add \[\] to `regularizers`"):
        plan_of(config_of(regularizers=FROM_SCORES[1:]), folders)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_stage_runs_the_bases_and_then_what_waits_for_them(folders, whole):
    tracker = MemoryTracker()
    plan = run_sweep(config_of(), folders, tracker)
    assert plan.is_complete
    assert [record.config for record in sorted(plan.records.values(), key=lambda r: r.trial_key)] == [
        record.config for record in sorted([*whole[1], *whole[2]], key=lambda r: r.trial_key)
    ]
    assert len(tracker.started) == 4


def test_scores_that_come_through_an_exchange_give_the_same_margins(folders, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("DMLCORE_SCRATCH", str(tmp_path / "scratch"))
    storage = SharedStorage(f"file://{tmp_path / 'exchange'}")
    config = config_of(seeds=[0])
    for _ in range(2):
        (trial,) = plan_of(config, folders).missing
        upload_inputs([trial], storage)
        run_remote(trial, worker_context(folders), lambda report: None, storage)
        download_results(trial, storage, RecordFolder(folders.records))
    plan = plan_of(config, folders)
    assert plan.is_complete
    assert {trial.key for trial in plan.trials} == {whole[1][0].trial_key, whole[2][0].trial_key}
