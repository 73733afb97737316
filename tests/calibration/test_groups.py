"""The rates by group against a recount pair by pair, and thresholds that keep a target for each of them."""

from __future__ import annotations

import numpy as np
import pytest

from dmlcore.calibration import Target, calibrate, calibration_card
from tests.calibration.laws import draw
from tests.reference.calibration import SLACK, recount_by_group
from tests.reference.metrics import distances


def cameras(count, images, seed):
    """Classes seen by three cameras; the third one blurs."""
    rng = np.random.default_rng(seed)
    x, y = draw(count, images, rng)
    groups = rng.integers(0, 3, len(y))
    angle = np.arctan2(x[:, 1], x[:, 0]) + np.where(groups == 2, 0.4, 0.05) * rng.standard_normal(len(y))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1), y, groups


@pytest.mark.parametrize("with_query", [False, True])
def test_the_rates_equal_a_recount(with_query):
    x, y, groups = cameras(20, 5, 1)
    query = np.random.default_rng(2).random(len(y)) < 0.4 if with_query else None
    found = calibrate((x, y), None, Target("far", 0.1), is_query=(query, None), groups=(groups, None))
    counts = {
        (group.name, part, kind): (rate.errors, rate.pairs)
        for group in found.validation.groups
        for part, kinds in group.rates.items()
        for kind, rate in kinds.items()
        if rate
    }
    assert counts == recount_by_group(x, y, groups, found.threshold.distance + SLACK, query)
    assert [group.images for group in found.validation.groups] == np.bincount(groups).tolist()


def test_the_interval_across_groups_is_that_of_queries_and_gallery():
    """One group as the queries and the rest as the gallery is a split that is measured without groups, too."""
    x, y, groups = cameras(20, 5, 3)
    found = calibrate((x, y), None, Target("far", 0.1), groups=(groups, None))
    alone = calibrate((x, y), None, Target("far", 0.1), is_query=(groups == 1, None))
    rates = found.validation.groups[1].rates["across"]
    assert alone.validation.far.pairs == rates["far"].pairs
    at_same = calibrate((x, y), (x, y), Target("far", 0.1), is_query=(None, groups == 1)).test
    for kind in ("far", "frr"):
        assert rates[kind] == getattr(at_same, kind)


def test_people_of_one_group_have_no_false_rejects_across():
    x, y = draw(20, 5, np.random.default_rng(4))
    groups = np.where(y % 2 == 0, "north", "south")
    found = calibrate((x, y), None, Target("far", 0.1), groups=(groups, None))
    assert [group.name for group in found.validation.groups] == ["north", "south"]
    for group in found.validation.groups:
        assert group.rates["across"]["frr"] is None
        assert group.rates["across"]["far"].pairs == 50 * 50
        assert group.rates["within"]["frr"].pairs == 10 * 10
    card = calibration_card(found)
    assert card["validation"]["groups"][0]["across"]["frr"] is None


@pytest.mark.parametrize(("kind", "rate"), [("far", 0.1), ("frr", 0.4)])
@pytest.mark.parametrize("confidence", [None, 0.9])
def test_one_threshold_keeps_the_target_for_the_worst_group(kind, rate, confidence):
    x, y, groups = cameras(60, 6, 5)
    target = Target(kind, rate, confidence, "worst_group")
    found = calibrate((x, y), None, target, groups=(groups, None))
    rates = [
        rates[kind] for group in found.validation.groups for rates in group.rates.values() if rates[kind]
    ]
    plain = calibrate((x, y), None, Target(kind, rate), groups=(groups, None))
    assert any(
        rates[kind].value > rate for group in plain.validation.groups for rates in group.rates.values()
    )
    if confidence is None:
        assert rate - 0.01 < max(one.value for one in rates) <= rate
    else:
        assert max(one.upper(1 - 0.1 / 6) for one in rates) <= rate
        card = calibration_card(found)
        assert "for every group" in card["promise"]["statement"]
        assert card["promise"]["bound"] == pytest.approx(max(one.upper(1 - 0.1 / 6) for one in rates))


@pytest.mark.parametrize(("kind", "rate"), [("far", 0.1), ("frr", 0.4)])
def test_a_threshold_a_group_keeps_the_target_under_its_rule(kind, rate):
    """Pair by pair: the group's own threshold within, the stricter of the two across."""
    x, y, groups = cameras(40, 6, 6)
    found = calibrate((x, y), None, Target(kind, rate, None, "per_group"), groups=(groups, None))
    own = np.array([threshold.threshold.distance for threshold in found.group_thresholds])
    stricter = (np.minimum if kind == "far" else np.maximum)(own[groups][:, None], own[groups])
    d, same = distances(x), y[:, None] == y
    upper = np.triu(np.ones_like(same), 1)
    error = (d <= stricter + SLACK) if kind == "far" else (d > stricter + SLACK)
    counted = upper & (same == (kind == "frr"))
    for group in range(3):
        one, other = groups[:, None] == group, groups == group
        for pairs in (counted & one & other, counted & (one ^ other)):
            assert error[pairs].mean() <= rate
    assert len(set(own)) == 3
    card = calibration_card(found)
    assert [entry["distance"] for entry in card["group_thresholds"]] == own.tolist()
    assert card["threshold"]["distance"] == (own.min() if kind == "far" else own.max())
    within = card["group_thresholds"][2]["validation"]["within"][kind]
    assert within["low"] <= within["rate"] <= min(rate, within["high"])


def test_groups_surely_above_the_target_are_named():
    x, y, groups = cameras(150, 8, 7)
    card = calibration_card(calibrate((x, y), None, Target("frr", 0.3), groups=(groups, None)))
    named = next(note for note in card["notes"] if "surely above the target" in note)
    assert "2 (within" in named
    assert "0 (within" not in named


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (np.zeros(100, int), "2 to 200 different values, got 1"),
        (np.arange(99), r"groups must be \[N\] = \[100\]"),
        (np.linspace(0, 1, 100), "groups must be integers or texts"),
        (None, "needs --validation-groups"),
        (np.where(np.arange(100) == 3, 1, 0), "across group 0: --far must be at least one of the 95"),
    ],
)
def test_wrong_groups_are_refused(groups, words):
    x, y = draw(20, 5, np.random.default_rng(8))
    with pytest.raises(ValueError, match=words):
        calibrate((x, y), None, Target("far", 0.001, None, "worst_group"), groups=(groups, None))
