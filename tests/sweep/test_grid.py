"""The cells of a sweep: how many, in which order, with which config and label."""

from __future__ import annotations

import pytest

from dmlcore.config.base import ConfigError, parse
from dmlcore.config.sweep import SweepConfig, merge
from dmlcore.sweep.grid import check_distinct, expand, variant_label
from tests.small import TRIAL
from tests.sweep.sweeps import sweep_config

SWEEP = {
    "study": "t",
    "trial": {"train": TRIAL["train"], "model": TRIAL["model"]},
    "datasets": ["small"],
    "backbones": {"a": {"train": {"epochs": 5}}, "b": {"model": {"embedding_dim": 4}}},
    "losses": {"ap": {"loss": {"name": "smooth_ap"}}, "ms": {"loss": {"name": "multi_similarity"}}},
    "regularizers": [[], [{"name": "tcm", "params": {"positive_margin": 0.9, "negative_margin": 0.5}}]],
    "seeds": [0, 1, 2],
}


def sweep(**changes):
    return parse(SweepConfig, SWEEP | changes, "params.yaml")


def test_the_grid_is_the_product_and_seeds_are_outermost():
    cells = expand(sweep())
    assert len(cells) == 2 * 2 * 2 * 3
    assert [cell.seed for cell in cells] == [0] * 8 + [1] * 8 + [2] * 8
    assert len({cell.name for cell in cells}) == 24


def test_labels_are_laid_over_the_shared_trial():
    first, last = expand(sweep())[0], expand(sweep())[-1]
    assert first.config.train.epochs == 5
    assert first.config.train.batch_size == TRIAL["train"]["batch_size"]
    assert last.config.model.embedding_dim == 4
    assert last.labels == {
        "dataset": "small",
        "backbone": "b",
        "loss": "ms",
        "variant": "tcm(negative_margin=0.5,positive_margin=0.9)",
        "seed": 2,
    }


def test_axes_sweep_any_dotted_path():
    cells = expand(sweep(axes={"train.optimizer.learning_rate": [0.1, 0.2]}, seeds=[0]))
    assert len(cells) == 16
    assert {cell.config.train.optimizer.learning_rate for cell in cells} == {0.1, 0.2}


@pytest.mark.parametrize(
    "change", [{"losses": {"x": {}}}, {"axes": {"train.bach_size": [1]}}, {"trial": {"x": 1}}]
)
def test_a_cell_that_breaks_the_schema_is_named(change):
    with pytest.raises(ConfigError, match="sweep cell small a"):
        expand(sweep(**change))


def test_a_repeated_seed_is_refused():
    cells = expand(sweep(seeds=[0, 0]))
    with pytest.raises(ConfigError, match="one and the same"):
        check_distinct([str(cell.config) for cell in cells], cells)


def test_variant_labels():
    variants = expand(
        sweep(regularizers=[[], [{"name": "tcm"}], [{"name": "tcm"}, {"name": "unified_threshold"}]])
    )
    assert {variant_label(cell.config.regularizers) for cell in variants} == {
        "baseline",
        "tcm",
        "tcm+unified_threshold",
    }


def test_merge_changes_neither_side():
    base, over = {"a": {"b": 1, "c": [1]}}, {"a": {"b": 2}}
    merged = merge(base, over)
    merged["a"]["c"].append(2)
    assert (base, over) == ({"a": {"b": 1, "c": [1]}}, {"a": {"b": 2}})
    assert merged == {"a": {"b": 2, "c": [1, 2]}}


def test_overrides_and_grids():
    values = {
        "study": "two-grids",
        "datasets": ["a", "b"],
        "backbones": {"small": {}, "large": {}},
        "losses": {"ms": {"loss": {"name": "multi_similarity"}}, "none": {"loss": {"name": "none"}}},
        "regularizers": [[], [{"name": "tcm"}]],
        "overrides": [
            {"where": {"dataset": "b"}, "set": {"train": {"epochs": 3}}},
            {"where": {"dataset": "b", "backbone": "large"}, "set": {"train": {"epochs": 4}}},
        ],
        "grids": [
            {"losses": ["ms"]},
            {"losses": ["ms"], "datasets": ["a"], "seeds": [0, 7]},
            {"losses": ["none"], "regularizers": [[{"name": "tcm"}]], "axes": {"train.batch_size": [8, 16]}},
        ],
    }
    cells = expand(parse(SweepConfig, values, "test"))
    assert len(cells) == 8 + 4 + 8  # the second grid's seed 0 is in the first
    epochs = {(cell.labels["dataset"], cell.labels["backbone"]): cell.config.train.epochs for cell in cells}
    assert epochs == {("a", "small"): 10, ("a", "large"): 10, ("b", "small"): 3, ("b", "large"): 4}
    assert {cell.config.train.batch_size for cell in cells if cell.config.loss.name == "none"} == {8, 16}


@pytest.mark.parametrize(
    "change",
    [
        {"overrides": [{"where": {"dataset": "z"}, "set": {}}]},
        {"grids": [{"backbones": ["z"]}]},
    ],
)
def test_an_override_or_grid_of_no_cell_is_refused(change):
    values = {
        "study": "s",
        "datasets": ["a"],
        "backbones": {"small": {}},
        "losses": {"ms": {"loss": {"name": "multi_similarity"}}},
    }
    with pytest.raises(ConfigError, match="must be among"):
        expand(parse(SweepConfig, values | change, "test"))


@pytest.mark.parametrize("name", ["datasets", "backbones", "losses", "regularizers", "seeds"])
def test_an_empty_dimension_is_refused(name):
    with pytest.raises(ConfigError, match=rf"`{name}`: .* at least 1 item"):
        sweep(**{name: {} if name in ("backbones", "losses") else []})


@pytest.mark.parametrize("name", ["datasets", "backbones", "losses", "regularizers", "seeds"])
def test_an_empty_dimension_of_one_of_several_grids_is_refused(name):
    with pytest.raises(ConfigError, match=rf"`grids.1.{name}`: .* at least 1 item"):
        sweep(grids=[{}, {name: []}])


@pytest.mark.parametrize("change", [{"axes": {"seed": []}}, {"grids": [{"axes": {"threads": []}}]}])
def test_an_axis_without_values_is_refused(change):
    with pytest.raises(ConfigError, match="at least 1 item"):
        sweep(**change)


def test_cells_with_priority_come_first_each_in_the_order_of_the_grid():
    losses = {name: {"loss": {"name": name}} for name in ("contrastive", "triplet", "multi_similarity")}
    config = {"losses": losses, "datasets": ["a", "b"], "seeds": [0, 1], "regularizers": [[]]}
    priority = [{"loss": "triplet", "dataset": "b"}, {"loss": "multi_similarity"}]
    plain = [cell.labels for cell in expand(sweep_config(**config))]
    ordered = [cell.labels for cell in expand(sweep_config(**config, priority=priority))]
    first = [labels for labels in plain if labels["loss"] == "triplet" and labels["dataset"] == "b"]
    second = [labels for labels in plain if labels["loss"] == "multi_similarity"]
    assert ordered == first + second + [labels for labels in plain if labels not in first + second]
    assert (len(first), len(second), len(ordered)) == (2, 4, 12)


@pytest.mark.parametrize(("where", "words"), [({"loss": "tripplet"}, "loss must be among"), ({}, "priority")])
def test_a_priority_that_matches_no_cell_is_refused(where, words):
    with pytest.raises(ConfigError, match=words):
        expand(sweep_config(priority=[where]))


def test_a_longer_run_is_added_for_each_data_set_and_backbone():
    schedule = {"name": "milestones", "milestones": [1, 2]}
    config = sweep_config(
        backbones={"a": {}, "b": {"train": {"epochs": 4, "schedule": schedule}}},
        regularizers=[[{"name": "tcm"}], []],
        seeds=[3, 0],
        stop_early={"grace_epochs": 1},
        longer_run={"factor": 2.5},
    )
    cells = expand(config)
    plain = expand(config.model_copy(update={"longer_run": None}))
    assert [cell.name for cell in cells[2:]] == [cell.name for cell in plain]
    first, second = cells[:2]  # the longest come first
    assert [cell.name for cell in (first, second)] == [
        "small a ms baseline longer seed 3",
        "small b ms baseline longer seed 3",
    ]
    assert second.config.train.epochs == 10
    assert second.config.train.schedule.milestones == (2, 5)
    assert first.comparison_group is None
    same = next(c for c in plain if c.name == "small b ms baseline seed 3").config
    train = same.train.model_copy(update={"epochs": 10, "schedule": second.config.train.schedule})
    assert second.config == same.model_copy(update={"train": train})


def test_a_longer_run_that_the_grid_has_already_is_not_added():
    config = sweep_config(axes={"train.epochs": [2, 4]}, longer_run={"factor": 2.0})
    assert len(expand(config)) == 4
