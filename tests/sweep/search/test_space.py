"""The space of a search: which variant has which paths, and values put at dotted paths."""

from __future__ import annotations

import pytest

from dmlcore.config.base import ConfigError, parse
from dmlcore.config.search import ParameterConfig, SearchConfig
from dmlcore.sweep.search.groups import (
    applicable_space,
    check_groups,
    corners,
    search_groups,
    with_values,
)
from tests.sweep.search.searches import MARGIN, RATE, SEARCH, searching

BASE = "loss.multi_similarity.params.base"
TCM = {"name": "tcm", "params": {"negative_margin": 0.5}}
RANGE = ParameterConfig(low=0.0, high=1.0)


def test_a_path_of_a_regulariser_belongs_to_the_variants_that_have_it():
    space = dict.fromkeys([MARGIN, RATE, "regularizers.0.params.negative_margin"], RANGE)
    assert list(applicable_space(space, {"regularizers": [TCM]})) == [
        RATE,
        MARGIN,
        "regularizers.0.params.negative_margin",
    ]
    assert list(applicable_space(space, {"regularizers": []})) == [RATE]
    other = {"name": "unified_threshold", "params": {}}
    assert MARGIN not in applicable_space(space, {"regularizers": [other]})
    assert MARGIN in applicable_space(space, {"regularizers": [other, TCM]})


def test_a_path_of_a_loss_belongs_to_the_cells_that_have_it():
    losses = {"ms": {"loss": {"name": "multi_similarity"}}, "ap": {"loss": {"name": "smooth_ap"}}}
    space = {RATE: RANGE.model_dump(exclude_none=True), BASE: {"low": 0.3, "high": 0.7}}
    config = searching({"space": space}, losses=losses)
    found = {(g.labels["loss"], g.labels["variant"]): g for g in search_groups(config, config.search)}
    assert {names: BASE in group.space for names, group in found.items()} == {
        ("ms", "baseline"): True,
        ("ms", "tcm"): True,
        ("ap", "baseline"): False,
        ("ap", "tcm"): False,
    }
    cell = found["ms", "baseline"].cell({BASE: 0.4}, "searched", 0)
    assert cell.config.loss.params == {"base": 0.4}
    assert cell.searched == {"loss.params.base": 0.4}  # as the column of the table names its setting
    other = searching({"space": {"loss.triplet.params.margin": {"low": 0.1, "high": 0.2}}}, losses=losses)
    with pytest.raises(ConfigError, match="one of the losses"):
        search_groups(other, other.search)


def test_values_are_put_at_their_paths_and_nothing_else_changes():
    values = {"train": {"epochs": 3}, "regularizers": [{"name": "a"}, TCM]}
    found = with_values(values, {RATE: 0.1, MARGIN: 0.8, "regularizers.0.params.weight": 2})
    assert found == {
        "train": {"epochs": 3, "optimizer": {"learning_rate": 0.1}},
        "regularizers": [
            {"name": "a", "params": {"weight": 2}},
            {"name": "tcm", "params": {"negative_margin": 0.5, "positive_margin": 0.8}},
        ],
    }
    assert values == {"train": {"epochs": 3}, "regularizers": [{"name": "a"}, TCM]}


@pytest.mark.parametrize("path", ["train.epochs.x", "regularizers.7.params.x"])
def test_a_path_to_nowhere_is_refused(path):
    with pytest.raises(ConfigError, match="must lead to a setting"):
        with_values({"train": {"epochs": 3}, "regularizers": [TCM]}, {path: 1})


def test_the_ends_of_a_space():
    space = {"x": RANGE, "y": ParameterConfig(values=("a", "b", "c"))}
    assert corners(space) == ({"x": 0.0, "y": "a"}, {"x": 1.0, "y": "c"})


def test_a_group_is_a_cell_without_its_seed():
    groups = search_groups(config := searching(axes={"train.batch_size": [8, 16]}), config.search)
    assert [
        (group.labels["variant"], group.config.train.batch_size, list(group.space)) for group in groups
    ] == [
        ("baseline", 8, [RATE]),
        ("baseline", 16, [RATE]),
        ("tcm", 8, [RATE, MARGIN]),
        ("tcm", 16, [RATE, MARGIN]),
    ]
    assert {group.seeds for group in groups} == {(0, 1)}


def test_a_setting_keeps_the_labels_of_the_grid():
    config = searching()
    _, tcm = search_groups(config, config.search)
    cell = tcm.cell({RATE: 0.02, MARGIN: 0.7}, "chosen", 5, seed=1)
    assert cell.name == "small resnet ms tcm chosen 5 seed 1"
    assert cell.config.seed == 1
    assert cell.config.train.optimizer.learning_rate == 0.02
    assert cell.config.regularizers[0].params == {"positive_margin": 0.7}


def test_the_name_of_a_variant_leaves_out_what_is_searched():
    variants = [[], [{"name": "tcm", "params": {"positive_margin": 0.9, "negative_margin": 0.5}}]]
    config = searching(regularizers=variants)
    assert [group.labels["variant"] for group in search_groups(config, config.search)] == [
        "baseline",
        "tcm(negative_margin=0.5)",
    ]


def test_the_identity_changes_with_what_the_asks_rest_on():
    config = searching()

    def identity(changed=config, data="d"):
        return search_groups(changed, changed.search)[0].identity(changed.search, data)

    assert identity(searching({"trials": 99})) == identity()
    assert (
        identity(searching({"space": {**SEARCH["space"], MARGIN: {"low": 0.1, "high": 0.2}}})) == identity()
    )
    others = [
        searching({"space": {**SEARCH["space"], RATE: {"low": 1.0e-4, "high": 1.0}}}),
        searching({"sampler": "random"}),
        searching({"seed": 1}),
        searching({"objectives": ["validation/opis"]}),
        searching(losses={"ms": {"loss": {"name": "triplet"}}}),
    ]
    found = {identity(), identity(data="e"), *map(identity, others)}
    assert len(found) == 2 + len(others)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"objectives": ["test/map_at_r"]}, "nothing is chosen on test classes"),
        ({"objectives": ["validation/loss"]}, "must be one of"),
        ({"objectives": ["validation/opis", "validation/opis"]}, "two different"),
        ({"choose": "validation/opis"}, "must be one of the objectives"),
        ({"space": {}}, "at least 1"),
        ({"space": {"seed": {"values": [1, 2]}}}, "must not search"),
        ({"space": {"evaluation.epsilon": {"low": 0.1, "high": 0.2}}}, "must not search"),
        ({"space": {RATE: {"low": 0.1}}}, "give `low` and `high`, or `values`"),
        ({"space": {RATE: {"low": 0.1, "high": 0.2, "values": [1]}}}, "give `low` and `high`, or `values`"),
        ({"space": {RATE: {"low": 0.2, "high": 0.1}}}, "below `high`"),
        ({"space": {RATE: {"values": [0.1, "a"]}}}, "all numbers"),
        ({"space": {RATE: {"low": 0.0, "high": 0.1, "log": True}}}, "above 0"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        parse(SearchConfig, SEARCH | change, "params.yaml")


def test_whole_numbers_stay_whole():
    found = parse(SearchConfig, SEARCH | {"space": {"train.epochs": {"low": 2, "high": 9}}}, "params.yaml")
    assert [type(end) for point in corners(found.space) for end in point.values()] == [int, int]


def test_a_path_of_no_variant_is_refused():
    config = searching({"space": {"regularizers.0.params.x": {"low": 0.0, "high": 1.0}}}, regularizers=[[]])
    with pytest.raises(ConfigError, match="variant's regulariser"):
        search_groups(config, config.search)


def test_two_searches_of_the_same_trials_are_refused():
    variants = [[{"name": "tcm", "params": {"positive_margin": margin}}] for margin in (0.8, 0.9)]
    config = searching(regularizers=variants)
    groups = search_groups(config, config.search)
    with pytest.raises(ConfigError, match="one and the same"):
        check_groups(groups, lambda cells: None, lambda cell: repr(cell.config))
