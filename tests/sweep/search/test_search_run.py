"""The run of a search without Ray: what runs, what a restart changes (nothing), what is published."""

from __future__ import annotations

import shutil

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.results import read_study
from dmlcore.cli import app
from dmlcore.config.base import ConfigError
from dmlcore.config.study import AggregateConfig
from dmlcore.records import RecordFolder
from dmlcore.sweep.dry_run.preview import preview
from dmlcore.sweep.execution.outcomes import record_lost, relabel
from dmlcore.sweep.execution.worker import make_record
from dmlcore.sweep.margin_rates import NEGATIVES, Rate
from dmlcore.sweep.pair_scores import margins_from_scores
from dmlcore.sweep.run import SweepFolders, publish
from dmlcore.sweep.search.log import SearchLog
from dmlcore.training.store import TrialStore
from tests.memory_tracker import MemoryTracker
from tests.sweep.search.searches import (
    MAP,
    MARGIN,
    OPIS,
    RATE,
    SEARCH,
    opened,
    search_here,
    search_untrained,
    searching,
)
from tests.sweep.sweeps import plan_of, run_here, sweep_config, worker_context

RATE_ALONE = {"space": {RATE: SEARCH["space"][RATE]}}


@pytest.fixture
def folders(tmp_path, small_data):
    return SweepFolders(tmp_path / "study", small_data.folder.parent)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_data):
    """A search with early stopping that ran to its end."""
    folders = SweepFolders(tmp_path_factory.mktemp("whole"), small_data.folder.parent)
    return folders, search_here(stopping(), folders)


def stopping(**search):
    """Four settings a variant; at epoch 1 of 2 the weaker half ends."""
    early = {"grace_epochs": 1, "reduction_factor": 2}
    return searching({"trials": 4} | search, stop_early=early)


def logs(folders):
    return {
        path.name: SearchLog(path).suggestions()
        for path in sorted((folders.state / "search").glob("*.jsonl"))
    }


def test_each_variant_searches_and_its_best_setting_runs_at_all_seeds(whole):
    folders, records = whole
    plan = plan_of(stopping(), folders)
    assert not plan.missing
    assert not plan.remaining_trials
    assert len(records) == len(plan.trials) == 2 * 4 + 2
    assert [len(suggestions) for suggestions in logs(folders).values()] == [4, 4]
    for variant in ("baseline", "tcm"):
        here = [trial for trial in plan.trials if trial.cell.labels["variant"] == variant]
        chosen = [trial for trial in here if trial.cell.labels["role"] == "chosen"]
        assert sorted(trial.cell.seed for trial in chosen) == [0, 1]
        assert len({repr(trial.cell.searched) for trial in chosen}) == 1
        scores = {t.key: plan.records[t.key].metrics.get(MAP, 0.0) for t in here if t.cell.seed == 0}
        assert max(scores, key=scores.get) == next(trial.key for trial in chosen if trial.cell.seed == 0)
        assert chosen[0].cell.searched.keys() == ({RATE} if variant == "baseline" else {RATE, MARGIN})


def test_weak_settings_are_stopped_and_leave_nothing_but_their_record(whole):
    folders, records = whole
    stopped = [record for record in records if record.status == "stopped"]
    assert stopped
    assert not [record for record in stopped if record.labels["seed"] == 1]
    trials = {trial.key: trial for trial in plan_of(stopping(), folders).trials}
    for record in stopped:
        assert [set(epoch) >= {MAP} for epoch in record.curve] == [True, True]
        assert record.error.startswith("stopped early at epoch 1, rung 1: validation MAP@R ")
        assert record.metrics == {}
        store = TrialStore(trials[record.trial_key].store_folder)
        assert not list(store.folder.glob("*.safetensors"))


@pytest.mark.parametrize("cut", [5, 8])
def test_an_interrupted_search_resumes_to_the_same_trials(whole, folders, cut):
    """As a process leaves it that is killed while it runs the trial after `cut` trials."""
    finished, records = whole
    shutil.copytree(finished.state, folders.state)
    for record in records[cut:]:
        RecordFolder(folders.records).path(record.trial_key).unlink()
    asked = {record.trial_key for record in records[: cut + 1]}
    for path in (folders.state / "search").iterdir():
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if any(key in line for key in asked)))
    rest = search_here(stopping(), folders)
    assert [record.trial_key for record in rest] == [record.trial_key for record in records[cut:]]
    assert [record.curve for record in rest] == [record.curve for record in records[cut:]]
    assert [record.error for record in rest] == [record.error for record in records[cut:]]
    assert logs(folders) == logs(finished)


def test_a_suggestion_whose_trial_never_ended_is_run_first(folders):
    asked = opened(searching(), folders, worker_context(folders)).next_trial()
    assert not folders.records.exists()
    assert plan_of(searching(), folders).missing[0].key == asked.key
    assert search_untrained(searching(), folders, most=1)[0].trial_key == asked.key
    assert [len(suggestions) for suggestions in logs(folders).values()] == [1]


def test_more_trials_continue_the_same_log(folders):
    search_untrained(searching({"trials": 2}), folders)
    before = logs(folders)
    plan = plan_of(searching({"trials": 5}), folders)
    assert [(state.suggested, state.remaining) for state in plan.searches] == [(2, 3), (2, 3)]
    search_untrained(searching({"trials": 5}), folders)
    after = logs(folders)
    assert {name: suggestions[:2] for name, suggestions in after.items()} == before
    assert [len(suggestions) for suggestions in after.values()] == [5, 5]
    assert not plan_of(searching({"trials": 5}), folders).missing


def test_several_at_a_time_lose_and_double_nothing(folders):
    config, context = searching(), worker_context(folders)
    search = opened(config, folders, context)
    running, ended = [], []
    while len(running) < 4 and (trial := search.next_trial()):
        running.append(trial)
    while running:
        trial = running.pop(len(running) // 2)
        record_lost([trial], {trial.key: "not run"}, context, MemoryTracker())
        ended.append(trial.key)
        search.record_result(trial)
        while len(running) < 4 and (found := search.next_trial()):
            running.append(found)
    assert search.finished
    assert len(ended) == len(set(ended)) == 6
    assert sorted(
        suggestion.trial_key for suggestions in logs(folders).values() for suggestion in suggestions
    ) == sorted(ended)


def test_several_that_a_kill_cut_are_run_first_and_once(folders):
    config = searching()
    search = opened(config, folders, worker_context(folders))
    cut = [search.next_trial().key for _ in range(4)]
    before = logs(folders)
    records = search_untrained(config, folders)
    assert sorted(record.trial_key for record in records[:4]) == sorted(cut)
    assert len({record.trial_key for record in records}) == len(records) == 2 * (3 + 1)
    after = logs(folders)
    assert [len(suggestions) for suggestions in after.values()] == [3, 3]
    assert all(after[name][: len(suggestions)] == suggestions for name, suggestions in before.items())


def test_a_failed_trial_is_tried_again_by_the_next_run_alone(folders):
    config, context = searching({"trials": 2} | RATE_ALONE, regularizers=[[]]), worker_context(folders)
    search = opened(config, folders, context)
    died = []
    while trial := search.next_trial():
        record_lost([trial], {trial.key: "it died"}, context, MemoryTracker())
        search.record_result(trial)
        died.append(trial.key)
    assert len(died) == 2
    assert [trial.key for trial in plan_of(config, folders).missing] == died
    records = search_untrained(config, folders)
    assert [record.trial_key for record in records[:2]] == died
    assert [record.labels["role"] for record in records[2:]] == ["chosen"]
    assert [len(suggestions) for suggestions in logs(folders).values()] == [2]


def test_nothing_is_chosen_while_a_failed_setting_runs_again(folders):
    config = searching({"trials": 2} | RATE_ALONE, regularizers=[[]])
    _, second = search_untrained(config, folders, most=2)
    failed = second.model_copy(update={"status": "failed", "error": "it died", "metrics": {}})
    RecordFolder(folders.records).write(failed)
    search = opened(config, folders, worker_context(folders))
    assert search.next_trial().key == second.trial_key
    assert search.next_trial() is None


def test_a_setting_that_diverges_is_complete(folders):
    trial = sweep_config().trial
    trial = trial | {"train": trial["train"] | {"optimizer": {"name": "sgd"}}}
    losses = {"contrastive": {"loss": {"name": "contrastive"}}}
    space = {RATE: {"values": [1.0e30, 0.01]}}
    few = {"trial": trial, "losses": losses, "regularizers": [[]], "seeds": [0]}
    config = searching({"space": space, "trials": 6}, **few)
    status = {
        record.config["train"]["optimizer"]["learning_rate"]: record
        for record in search_here(config, folders)
    }
    assert (status[1.0e30].status, status[0.01].status) == ("failed", "finished")
    plan = plan_of(config, folders)
    assert not plan.missing
    assert {plan.records[trial.key].status for trial in plan.trials} == {"failed", "finished"}
    assert search_here(config, folders) == []
    grid = sweep_config(axes={RATE: [1.0e30, 0.01]}, **few)
    assert [trial.cell.config.train.optimizer.learning_rate for trial in plan_of(grid, folders).missing] == [
        1.0e30
    ]


def test_settings_that_repeat_are_not_run_again(folders):
    space = {"train.batch_size": {"values": [8, 16]}}
    config = searching({"space": space, "trials": 6}, regularizers=[[]], seeds=[0])
    records = search_untrained(config, folders)
    assert len(records) == 2
    assert [len(suggestions) for suggestions in logs(folders).values()] == [6]


def test_values_that_do_not_go_together_are_logged_and_not_run(folders):
    space = {
        "train.batch_size": {"values": [8, 16]},
        "train.images_per_class": {"values": [4, 8, 16]},
        "train.batches_per_epoch": {"low": 1, "high": 4},
    }
    config = searching({"space": space, "trials": 8}, regularizers=[[]], seeds=[0])
    records = search_untrained(config, folders)
    (suggestions,) = logs(folders).values()
    refused = [suggestion for suggestion in suggestions if suggestion.refused]
    assert refused
    assert all("multiple of images_per_class" in suggestion.refused for suggestion in refused)
    assert len(records) == len({suggestion.trial_key for suggestion in suggestions if not suggestion.refused})
    assert not plan_of(config, folders).missing


def test_a_search_of_which_no_setting_can_run_is_reported(folders):
    space = {
        "train.images_per_class": {"low": 4, "high": 16}
    }  # 4 and 16 divide the batch, little between them does
    config = searching({"space": space, "trials": 1}, regularizers=[[]], seeds=[0])
    assert search_untrained(config, folders) == []
    plan = plan_of(config, folders)
    assert (plan.trials, plan.missing, plan.remaining_trials) == ([], [], 0)
    assert plan.searches_without_result == ["small resnet ms baseline"]


def test_a_variant_without_a_space_has_one_setting(folders):
    config = searching({"space": {MARGIN: SEARCH["space"][MARGIN]}, "trials": 2})
    search_untrained(config, folders)
    roles = [
        (trial.cell.labels["variant"], trial.cell.labels["role"], trial.cell.seed)
        for trial in plan_of(config, folders).trials
    ]
    assert [role for role in roles if role[0] == "baseline"] == [
        ("baseline", "chosen", 0),
        ("baseline", "chosen", 1),
    ]
    assert len(roles) == 2 + 3


def test_two_objectives_keep_the_front(folders):
    config = searching({"trials": 9, "objectives": [MAP, OPIS]} | RATE_ALONE, regularizers=[[]], seeds=[0])
    search_untrained(config, folders)
    plan = plan_of(config, folders)
    role = {trial.key: trial.cell.labels["role"] for trial in plan.trials}
    points = {key: (-record.metrics[MAP], record.metrics[OPIS]) for key, record in plan.records.items()}
    for key, (a, b) in points.items():
        beaten = any(x <= a and y <= b and (x, y) != (a, b) for x, y in points.values())
        assert (role[key] == "searched") == beaten
    assert role[min(points, key=points.get)] == "chosen"


def test_every_arm_keeps_the_accuracy_of_the_baseline(folders):
    """By hand over the records: the smallest OPIS of those at or above 90 % of the baseline's best MAP@R."""
    config = searching(
        {
            "trials": 9,
            "objectives": [MAP, OPIS],
            "choose": "no_accuracy_loss",
            "accuracy_loss": 0.1,
            "sampler": "random",
        }
    )
    search_untrained(config, folders)
    plan = plan_of(config, folders)
    assert not plan.missing
    here = [trial for trial in plan.trials if trial.cell.seed == 0]
    scores = {trial.key: plan.records[trial.key].metrics for trial in here}
    named = {trial.key: trial.cell.labels for trial in here}
    bar = 0.9 * max(scores[key][MAP] for key in scores if named[key]["variant"] == "baseline")
    for variant in ("baseline", "tcm"):
        kept = [k for k in scores if named[k]["variant"] == variant and scores[k][MAP] >= bar]
        assert kept
        best = min(kept, key=lambda key: scores[key][OPIS])
        assert named[best]["role"] == "chosen"
        notes = next(trial.cell.notes for trial in here if trial.key == best)
        assert notes["choice"] == (
            f"smallest {OPIS} at {MAP} of at least {bar:.4f} (the baseline's best less 10 %)"
        )
        chosen = [
            t
            for t in plan.trials
            if t.cell.labels["role"] == "chosen" and t.cell.labels["variant"] == variant
        ]
        assert sorted(trial.cell.seed for trial in chosen) == [0, 1]


def test_an_arm_that_has_ended_waits_for_the_accuracy_of_the_baseline(folders):
    config = searching({"trials": 2, "objectives": [MAP, OPIS], "choose": "no_accuracy_loss"})
    search = opened(config, folders, worker_context(folders))
    baseline, tcm = search.groups
    assert tcm.baseline is baseline
    for group in (tcm, baseline):
        for _ in range(2):
            trial = group.next_trial()
            RecordFolder(folders.records).write(
                make_record(trial, status="finished", metrics={MAP: 0.5, OPIS: 0.1})
            )
            group.record_result(trial)
        if group is tcm:
            assert tcm.next_trial() is None
            assert tcm.remaining == 1
            waiting = next(s for s in plan_of(config, folders).searches if s.waits)
            assert (waiting.name, waiting.chosen) == ("small resnet ms tcm", False)
            assert "small resnet ms tcm" not in plan_of(config, folders).searches_without_result
    assert tcm.next_trial().cell.labels["role"] == "chosen"


def test_the_chosen_baseline_is_trained_longer_too(folders):
    config = searching({"trials": 2}, longer_run={"factor": 3.0})
    search_untrained(config, folders)
    plan = plan_of(config, folders)
    assert plan.is_complete
    (longer,) = (trial for trial in plan.trials if trial.cell.labels["role"] == "longer")
    assert (longer.cell.labels["variant"], longer.cell.seed) == ("baseline", 1)
    (same,) = (
        trial
        for trial in plan.trials
        if trial.cell.labels["role"] == "chosen"
        and trial.cell.labels["variant"] == "baseline"
        and trial.cell.seed
    )
    train = same.cell.config.train
    train = train.model_copy(update={"epochs": 3 * train.epochs})
    assert longer.cell.config == same.cell.config.model_copy(update={"train": train})
    publish(plan, folders)
    study = read_study(folders.study, AggregateConfig(accuracy=MAP, inconsistency=OPIS))
    assert study.longer["trial_key"].to_list() == [longer.key]
    assert longer.key not in study.searched["trial_key"].to_list()


def test_the_table_and_the_records_say_what_was_chosen(whole):
    folders, _ = whole
    plan = plan_of(stopping(), folders)
    relabel(plan, RecordFolder(folders.records))
    publish(plan, folders)
    table = pl.read_parquet(folders.results / "trials.parquet")
    assert table.height == 10
    assert table["role"].value_counts().sort("role").rows() == [("chosen", 4), ("searched", 6)]
    assert table[f"search/{RATE}"].to_list() == table[f"config/{RATE}"].to_list()
    assert (table.filter(variant="baseline")[f"search/{MARGIN}"].is_null()).all()
    stopped = table.filter(status="stopped")
    assert stopped["error"].str.starts_with("stopped early at epoch 1").all()
    assert stopped["test/map_at_r"].is_null().all()
    for key, record in plan_of(stopping(), folders).records.items():
        assert record.labels["role"] == table.filter(trial_key=key)["role"].item()


def test_stopped_and_searched_trials_are_out_of_the_comparisons(whole):
    folders, _ = whole
    plan = plan_of(stopping(), folders)
    publish(plan, folders)
    fresh = read_study(folders.study, AggregateConfig())
    assert fresh.trials["seed"].unique().to_list() == [1]
    assert (fresh.searched.height, fresh.searched["seed"].unique().to_list()) == (8, [0])
    study = read_study(folders.study, AggregateConfig(count_search_seed=True))
    (row,) = comparisons(study).to_dicts()
    assert (row["variant"], row["seeds/planned"], row["seeds/paired"], row["status"]) == ("tcm", 2, 2, None)
    assert (row["baseline/settings_tried"], row["variant/settings_tried"]) == (4, 4)
    chosen = [
        plan.records[trial.key].metrics["test/map_at_r"]
        for trial in plan.trials
        if (trial.cell.labels["variant"], trial.cell.labels["role"]) == ("baseline", "chosen")
    ]
    assert row["test/map_at_r/baseline/mean"] == pytest.approx(sum(chosen) / 2)
    assert study.searched["status"].to_list().count("stopped") > 0


def test_an_unfinished_search_is_reported(folders):
    """`dmlcore check` of a study whose search has settings left to try."""
    data = folders.study.parent / "data"
    data.mkdir()
    (data / "dvc.yaml").touch()
    (data / "prepared").symlink_to(folders.prepared)
    values = {"sweep": searching({"trials": 2}).model_dump(mode="json", exclude_none=True)}
    folders.study.mkdir()
    (folders.study / "params.yaml").write_text(yaml.safe_dump(values))
    search_untrained(searching({"trials": 1}), folders)
    arguments = ["check", "--study", str(folders.study)]
    unfinished = CliRunner().invoke(app, arguments)
    assert "2 settings are still to be tried by the search" in unfinished.output
    assert unfinished.exit_code == 1
    search_untrained(searching({"trials": 2}), folders)
    assert CliRunner().invoke(app, arguments).exit_code == 0


def test_a_grid_has_no_such_columns(folders):
    run_here(sweep_config(), folders, MemoryTracker())
    publish(plan_of(sweep_config(), folders), folders)
    table = pl.read_parquet(folders.results / "trials.parquet")
    assert not [name for name in table.columns if name in ("role", "ask") or name.startswith("search/")]


def test_without_early_stopping_a_stopped_trial_runs_to_its_end(whole, folders):
    config, (finished, _) = stopping(), whole
    shutil.copytree(finished.state, folders.state)
    stopped = {key for key, record in plan_of(config, folders).records.items() if record.status == "stopped"}
    patient = config.model_copy(update={"stop_early": None})
    assert {trial.key for trial in plan_of(patient, folders).missing} >= stopped
    records = search_here(patient, folders)
    assert {record.trial_key for record in records} >= stopped
    assert {record.status for record in records} == {"finished"}


def test_the_plan_tells_what_a_search_has_still_to_ask(folders):
    config = searching()
    search_untrained(config, folders, most=1)
    said = list(preview(plan_of(config, folders), config, folders.study / config.storage))
    assert (
        "search of [small resnet ms baseline]: 1 tried, 2 still to try, then the chosen setting at 2 seeds"
        in said
    )
    assert (
        "search of [small resnet ms tcm]: 0 tried, 3 still to try, then the chosen setting at 2 seeds" in said
    )
    assert any(line.startswith("time of the searches: ") for line in said)
    search_untrained(config, folders)
    done = list(preview(plan_of(config, folders), config, folders.study / config.storage))
    assert "search of [small resnet ms baseline]: 3 tried, 0 still to try" in done
    assert not any(line.startswith("time") for line in done)


def test_other_evaluation_settings_search_anew_and_train_nothing_twice(folders):
    search_here(searching({"trials": 2} | RATE_ALONE, regularizers=[[]], seeds=[0]), folders)
    trial = sweep_config().trial | {"evaluation": {"epsilon": 0.3}}
    other = searching({"trials": 2} | RATE_ALONE, regularizers=[[]], seeds=[0], trial=trial)
    assert search_here(other, folders) == []
    plan = plan_of(other, folders)
    assert not plan.missing
    assert len(plan.records) == 2
    assert len(logs(folders)) == 2


def test_the_searches_with_priority_come_first_and_the_others_where_they_wait(folders):
    losses = {name: {"loss": {"name": name}} for name in ("contrastive", "triplet")}
    config = searching({"trials": 2} | RATE_ALONE, losses=losses, regularizers=[[]])
    context = worker_context(folders)

    def order(**changes):
        search = opened(config.model_copy(update=changes), folders, context)
        return [trial.cell.labels["loss"] for trial in iter(search.next_trial, None)]

    first = order(priority=({"loss": "triplet"},))
    assert first == ["triplet", "triplet", "contrastive", "contrastive"]
    shutil.rmtree(folders.state / "search")
    assert order() == ["contrastive", "triplet", "contrastive", "triplet"]


def test_margins_come_from_the_scores_of_the_chosen_baseline(folders):
    share = "regularizers.tcm.params.positive_margin.share_of_positives"
    tcm = {"name": "tcm", "params": {"negative_margin": {"share_of_negatives": 0.1}}}
    space = {RATE: SEARCH["space"][RATE], share: {"low": 0.2, "high": 0.8}}
    config = searching({"space": space, "trials": 2}, regularizers=[[tcm], []])
    assert not plan_of(config, folders).is_complete
    records = search_here(config, folders)
    variants = [record.labels["variant"].partition("(")[0] for record in records]
    assert variants[:2] == ["baseline", "baseline"]  # although the grid names TCM first
    plan = plan_of(config, folders)
    assert plan.is_complete
    assert len(plan.trials) == 2 * (2 + 1)
    chosen = {
        (trial.cell.labels["variant"].partition("(")[0], trial.cell.seed): plan.records[trial.key]
        for trial in plan.trials
        if trial.cell.labels["role"] == "chosen"
    }
    assert len(chosen) == 4
    for seed in (0, 1):
        base, record = chosen["baseline", seed], chosen["tcm", seed]
        assert record.hashes["scores"] == {"trial": base.trial_key, "validation": base.files["validation"]}
        params = record.config["regularizers"][0]["params"]
        store = TrialStore(folders.study / config.storage / base.train_key[:16])
        rate = Rate(0, "negative_margin", NEGATIVES, 0.1)
        found = margins_from_scores((rate,), store.folder, base.files["validation"])
        assert params["negative_margin"] == found[rate]
        assert -1 <= params["positive_margin"] <= 1
    assert chosen["tcm", 0].config["regularizers"] != chosen["tcm", 1].config["regularizers"]
    tried = [s for suggestions in logs(folders).values() for s in suggestions if s.margins]
    assert [s.margins.keys() for s in tried] == [{"0.positive_margin", "0.negative_margin"}] * 2
    # A restart plans the same trials from the log and the records
    assert search_here(config, folders) == []


def test_rates_in_a_search_without_a_baseline_are_refused(folders):
    tcm = {"name": "tcm", "params": {"negative_margin": {"share_of_negatives": 0.1}}}
    with pytest.raises(ConfigError, match=r"add \[\] to `regularizers`"):
        plan_of(searching({"trials": 2}, regularizers=[[tcm]]), folders)
