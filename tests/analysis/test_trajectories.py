"""Accuracy x inconsistency along training: known answers, and what a faster learner must not gain."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.trajectories import mean_path, opis_at_equal_accuracy, trajectories, trajectory
from dmlcore.report.figures.trajectories import NO_PATH, trajectories_figure
from tests.analysis.synthetic import rows, study
from tests.analysis.trajectory_laws import simulate
from tests.report.test_figures import texts


def slow_isotonic(values: list[float]) -> list[tuple[float, list[int]]]:
    """Pool neighbours that fall, one pair at a time, until none does."""
    pools = [(value, [i]) for i, value in enumerate(values)]
    while True:
        falling = next((i for i in range(len(pools) - 1) if pools[i][0] >= pools[i + 1][0]), None)
        if falling is None:
            return pools
        members = pools[falling][1] + pools[falling + 1][1]
        pools[falling : falling + 2] = [(float(np.mean([values[i] for i in members])), members)]


def test_epochs_that_fall_are_pooled_with_their_opis() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        accuracy, opis = np.cumsum(rng.normal(0.3, 1.0, 15)).tolist(), rng.random(15).tolist()
        found, pools = trajectory(accuracy, opis), slow_isotonic(accuracy)
        assert found is not None
        assert found.accuracy == pytest.approx([value for value, _ in pools])
        assert found.opis == pytest.approx([np.mean([opis[i] for i in members]) for _, members in pools])


def test_epochs_without_a_value_are_left_out() -> None:
    found = trajectory([0.1, None, 0.3, math.nan, 0.5], [0.5, 0.4, None, 0.2, 0.1])
    assert found is not None
    assert (found.accuracy.tolist(), found.opis.tolist()) == ([0.1, 0.5], [0.5, 0.1])
    assert trajectory([0.1, None], [0.5, 0.4]) is None


def test_opis_is_read_off_where_both_are_equally_accurate() -> None:
    slow, fast = trajectory([0.0, 0.2, 0.4], [0.4, 0.2, 0.0]), trajectory([0.0, 0.4, 0.8], [0.4, 0.1, 0.0])
    assert slow is not None
    assert fast is not None
    top, before, after = opis_at_equal_accuracy(slow, fast) or (0.0, 0.0, 0.0)
    # from 0.36 to 0.4, its middle 0.38: 0.4 - 0.38 and 0.4 - 0.75 * 0.38
    assert (top, before, after) == pytest.approx((0.4, 0.02, 0.115))


def test_a_trial_that_began_above_the_other_is_not_compared() -> None:
    low, high = trajectory([0.0, 0.2], [0.4, 0.2]), trajectory([0.3, 0.4], [0.4, 0.1])
    assert low is not None
    assert high is not None
    assert opis_at_equal_accuracy(low, high) is None


@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
def test_a_faster_learner_gains_nothing_at_equal_accuracy(speed: float) -> None:
    rng = np.random.default_rng(0)
    baseline, variant = simulate(rng, noise=0.0), simulate(rng, speed=speed, noise=0.0)
    _, before, after = opis_at_equal_accuracy(baseline, variant) or (0.0, 0.0, 1.0)
    assert after == pytest.approx(before, rel=0.01)  # what is left is that the paths are read off linearly
    better = simulate(rng, speed=speed, effect=-0.2, noise=0.0)
    _, before, after = opis_at_equal_accuracy(baseline, better) or (0.0, 0.0, 1.0)
    assert after == pytest.approx(0.8 * before, rel=0.01)


def test_comparisons_pair_the_seeds_at_equal_accuracy() -> None:
    found = rows(("set",), ("vit",), ("ap",), seeds=(0, 1, 2))
    for row in found:
        on = row["variant"] != "baseline"
        accuracy = np.linspace(0.0, 0.5 if on else 0.4, 11)
        row["curve/validation/map_at_r"] = accuracy.tolist()
        row["curve/validation/opis_corrected"] = (
            0.02 - 0.03 * accuracy + 0.001 * on * (1 + row["seed"])
        ).tolist()
    (row,) = comparisons(study(found)).to_dicts()
    assert row["matched/seeds"] == 3
    assert row["matched/map_at_r/mean"] == pytest.approx(0.4)
    assert row["matched/opis_corrected/baseline/mean"] == pytest.approx(0.02 - 0.03 * 0.38)
    assert row["matched/opis_corrected/difference/mean"] == pytest.approx(0.002)
    assert (
        row["matched/opis_corrected/difference/low"] < 0.002 < row["matched/opis_corrected/difference/high"]
    )


def test_a_path_is_the_mean_at_equal_accuracy_with_the_seeds_as_its_band() -> None:
    paths = [trajectory([0.0, 1.0], [a, b]) for a, b in ((0.4, 0.2), (0.2, 0.0))]
    found = mean_path([path for path in paths if path is not None], points=3)
    assert found is not None
    assert found.mean.tolist() == pytest.approx([0.3, 0.2, 0.1])
    assert (found.low.tolist(), found.high.tolist()) == (
        pytest.approx([0.2, 0.1, 0.0]),
        pytest.approx([0.4, 0.3, 0.2]),
    )
    assert mean_path([]) is None


def test_the_figure_has_a_panel_a_cell_and_says_where_there_is_no_path() -> None:
    found = rows(backbones=("vit",))
    assert sum(bool(ax.lines) for ax in trajectories_figure(study(found)).axes) == 2
    for row in found:
        del row["curve/validation/opis_corrected"]
    assert trajectories(study(found).cells[0], "baseline") == {}
    assert NO_PATH in texts(trajectories_figure(study(found)))
