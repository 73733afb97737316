"""Early stopping: which trials pass which rung, against a naive ASHA; the same after a restart."""

from __future__ import annotations

import numpy as np
import pytest

from dmlcore.config.search import StopEarlyConfig
from dmlcore.sweep.grid import Cell, expand
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.search.early_stopping import ASHAPruner
from dmlcore.sweep.trial_key import TrialKeys
from tests.small import small_trial
from tests.sweep.search.searches import MAP, record_of
from tests.sweep.sweeps import sweep_config

EPOCHS = 20


def trial(number, comparison_group="r", epochs=EPOCHS):
    cell = Cell({"seed": number}, small_trial(train={"epochs": epochs}), comparison_group=comparison_group)
    return PlannedTrial(cell, TrialKeys(f"{number:016}", "e" * 16, {}), data_folder=None, store_folder=None)


def run(pruner, planned, curve):
    """The curve up to where the trial is stopped, and the reason."""
    for epoch, value in enumerate(curve):
        reason = pruner.should_stop(planned, epoch, value)
        if reason:
            return curve[: epoch + 1], reason
    return curve, None


def curves(count, seed=0):
    random = np.random.default_rng(seed)
    heights = random.uniform(0.1, 0.9, count)
    steps = np.arange(EPOCHS + 1) / EPOCHS
    return [(height * steps + random.normal(0, 0.05, EPOCHS + 1)).tolist() for height in heights]


def naive(curve, rungs, grace, factor):
    """Where one trial after the other ends: epochs, given what earlier ones left at the rungs."""
    epoch = grace
    while epoch < EPOCHS:
        here = rungs.setdefault(epoch, [])
        here.append(curve[epoch])
        best = sorted(here, reverse=True)[: max(1, len(here) // factor)]
        if curve[epoch] < best[-1]:
            return epoch
        epoch *= factor
    return EPOCHS


@pytest.mark.parametrize(("grace", "factor"), [(1, 2), (2, 3), (5, 2)])
def test_a_trial_ends_where_a_naive_asha_ends_it(grace, factor):
    pruner, rungs = ASHAPruner(StopEarlyConfig(grace_epochs=grace, reduction_factor=factor)), {}
    ends = []
    for number, curve in enumerate(curves(30)):
        seen, _ = run(pruner, trial(number), curve)
        ends.append(len(seen) - 1)
        assert ends[-1] == naive(curve, rungs, grace, factor)
    assert len(set(ends)) > 2
    assert ends.count(EPOCHS) < 15


def test_the_rungs_are_rebuilt_from_the_records():
    config, made = StopEarlyConfig(grace_epochs=2, reduction_factor=3), curves(24)
    whole, ended = ASHAPruner(config), []
    for number, curve in enumerate(made):
        seen, reason = run(whole, trial(number), curve)
        record = record_of("k", "stopped" if reason else "finished")
        ended.append((trial(number), record.model_copy(update={"curve": [{MAP: value} for value in seen]})))
    for cut in (1, 9, 20):
        pruner = ASHAPruner(config)
        pruner.replay(ended[:cut])
        for number in range(cut, len(made)):
            seen, _ = run(pruner, trial(number), made[number])
            assert len(seen) == len(ended[number][1].curve)


def test_epochs_that_are_reported_again_are_judged_as_they_were():
    pruner = ASHAPruner(StopEarlyConfig(grace_epochs=2, reduction_factor=2))
    run(pruner, trial(0), [0.9] * 5)
    seen, reason = run(pruner, trial(1), [0.1] * 5)
    assert len(seen) == 3
    assert reason == (
        "stopped early at epoch 2, rung 1: validation MAP@R 0.1000 is not among the best 1/2 that came so far"
    )
    assert [pruner.should_stop(trial(1), epoch, 0.1) for epoch in range(4)] == [None, None, reason, reason]
    assert run(pruner, trial(2), [0.95] * 3) == ([0.95] * 3, None)
    assert pruner.should_stop(trial(2), 1, 0.0) is None


def test_a_trial_is_not_stopped_at_its_last_epoch():
    pruner = ASHAPruner(StopEarlyConfig(grace_epochs=4))
    run(pruner, trial(0, epochs=4), [0.9] * 5)
    assert run(pruner, trial(1, epochs=4), [0.1] * 5)[1] is None
    assert "rung 1" in run(pruner, trial(2, epochs=5), [0.1] * 6)[1]


def test_only_rivals_are_compared_and_some_have_none():
    pruner = ASHAPruner(StopEarlyConfig(grace_epochs=1))
    run(pruner, trial(0), [0.9] * 3)
    assert run(pruner, trial(1, comparison_group="other"), [0.1] * 3)[1] is None
    assert run(pruner, trial(2, comparison_group=None), [0.1] * 3)[1] is None
    assert run(pruner, trial(3), [0.1] * 3)[1]
    assert pruner.should_stop(trial(4), 1, None) is None


def test_in_a_grid_settings_are_rivals_and_neither_variants_nor_seeds():
    variants = [[], *([{"name": "tcm", "params": {"positive_margin": margin}}] for margin in (0.8, 0.9))]
    config = sweep_config(
        regularizers=variants,
        seeds=[0, 1],
        axes={"train.batch_size": [8, 16]},
        stop_early={"grace_epochs": 1},
    )
    groups = {}
    for cell in expand(config):
        groups.setdefault(cell.comparison_group, []).append(cell)
    assert sorted(len(cells) for cells in groups.values()) == [2, 2, 4, 4]
    for cells in groups.values():
        assert len({(cell.seed, cell.labels["variant"].split("(")[0]) for cell in cells}) == 1
    assert {cell.comparison_group for cell in expand(sweep_config())} == {None}
