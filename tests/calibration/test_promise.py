"""A threshold with a confidence: its bound by a naive recount, its law, and what it says where it cannot promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dmlcore.calibration import Target, calibrate, calibration_card, find_threshold, measure_rates
from dmlcore.calibration.scores import largest_kept
from dmlcore.metrics.inputs import build_pairs
from tests.calibration.laws import draw, draw_sphere, true_far, true_frr
from tests.reference.calibration import SLACK, class_interval, parts_by_class, upper_bound

CPU = torch.device("cpu")


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_bound_equals_a_naive_recount(confidence):
    x, y = draw_sphere(15, 4, np.random.default_rng(1), 0.1)
    pairs = build_pairs(x, y, None, CPU)
    found = measure_rates(pairs, 0.7).far
    parts = parts_by_class(x, y, math.sqrt(0.6), "far")
    assert found.upper(confidence) == pytest.approx(upper_bound(parts, 15, confidence), rel=1e-6)


@pytest.mark.parametrize("target", [Target("far", 0.05, 0.95), Target("frr", 0.5, 0.9)])
def test_the_threshold_is_the_largest_that_keeps_the_bound(target):
    """Against every order statistic of validation, one by one."""
    x, y = draw(20, 4, np.random.default_rng(3))
    pairs = build_pairs(x, y, None, CPU)
    same, (i, j) = y[:, None] == y, np.triu_indices(len(y), 1)
    similarity = (x.astype(np.float32) @ x.astype(np.float32).T)[i, j][same[i, j] == (target.kind == "frr")]
    ordered = np.sort(similarity)[::-1] if target.kind == "far" else np.sort(similarity)
    most, kept = int(target.rate * len(ordered)), []
    for errors in range(1, most + 1):
        at = ordered[errors - 1] if target.kind == "far" else ordered[errors]
        rate = getattr(measure_rates(pairs, float(at)), target.kind)
        kept += [rate.errors] if rate.upper(target.confidence) <= target.rate else []
    found = getattr(measure_rates(pairs, find_threshold(pairs, target).similarity), target.kind)
    assert found.upper(target.confidence) <= target.rate
    assert 0 < found.errors < most
    assert found.errors >= max(kept) - max(1, most // 1000) - 1  # a pair in the last bit


def test_the_search_finds_the_last_kept_number():
    for last in (0, 1, 7, 500, 999, 1000):
        assert largest_kept(lambda k, last=last: 0.5 if k <= last else 1.5, 1000, 1.0) == last
    for power in (0.5, 1.0, 3.0):
        assert largest_kept(lambda k, power=power: (k / 37.5) ** power, 1000, 1.0) == 37


@pytest.mark.parametrize(("kind", "rate", "law"), [("far", 0.05, true_far), ("frr", 0.3, true_frr)])
def test_the_promise_is_kept_where_the_plain_target_is_not(kind, rate, law):
    """In 25 draws of 50 classes: the true rate of the law, on classes not seen."""
    kept = {None: 0, 0.95: 0}
    for number in range(25):
        pairs = build_pairs(*draw(50, 6, np.random.default_rng((11, number))), None, CPU)
        for confidence in kept:
            kept[confidence] += law(find_threshold(pairs, Target(kind, rate, confidence)).distance) <= rate
    assert kept[None] < 20
    assert kept[0.95] >= 23


def test_too_few_classes_are_told_the_smallest_target():
    x, y = draw(6, 4, np.random.default_rng(5))
    with pytest.raises(
        ValueError, match=r"0.01 cannot be promised .* smallest target that can be is ([0-9.]+)"
    ) as told:
        find_threshold(build_pairs(x, y, None, CPU), Target("far", 0.01, 0.95))
    smallest = float(str(told.value).split("that can be is ")[1].split(":")[0])
    assert 0.01 < smallest < 1.0
    assert find_threshold(build_pairs(x, y, None, CPU), Target("far", smallest, 0.95))
    with pytest.raises(ValueError, match=r"--confidence must be in \[0.5, 1\)"):
        Target("far", 0.1, 95.0)


def test_the_card_says_what_is_promised_and_whether_test_broke_it():
    held_out = draw(40, 5, np.random.default_rng(6))
    card = calibration_card(calibrate(held_out, held_out, Target("far", 0.05, 0.95)))
    promise = card["promise"]
    assert promise["statement"].startswith("FAR of at most 0.05 for classes not seen, with 95 % confidence")
    assert promise["bound"] <= 0.05 < promise["bound_of_any_law"]
    x, y = held_out
    parts = parts_by_class(x, y, card["threshold"]["distance"] + SLACK, "far")
    assert promise["bound"] == pytest.approx(upper_bound(parts, 40, 0.95), rel=1e-6)
    any_law = class_interval(card["validation"]["far"]["rate"], 20, 0.1)[
        1
    ]  # 20 disjoint pairs of classes, one side
    assert promise["bound_of_any_law"] == pytest.approx(any_law, rel=1e-9)
    assert promise["on_test"] == "kept"
    assert any("rests on 40 classes" in note for note in card["notes"])
    x, y = draw(40, 5, np.random.default_rng(7))
    near = np.stack(
        [np.cos(np.arctan2(x[:, 1], x[:, 0]) / 8), np.sin(np.arctan2(x[:, 1], x[:, 0]) / 8)], axis=1
    )
    card = calibration_card(calibrate(held_out, (near, y), Target("far", 0.05, 0.95)))
    assert card["promise"]["on_test"].startswith("broken")
    assert any("promise is broken on test" in note for note in card["notes"])
    assert calibration_card(calibrate(held_out, None, Target("far", 0.05)))["promise"] is None
