"""A threshold on embeddings of known law, and the card against a naive float64 recount."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from dmlcore.calibration import Target, calibrate, calibration_card
from tests.calibration.laws import draw, true_far, true_frr
from tests.reference.calibration import (
    SLACK,
    class_interval,
    interval,
    parts_by_class,
    recount,
    standard_error,
)
from tests.reference.metrics import distances


@pytest.fixture(scope="module")
def splits():
    return draw(60, 5, np.random.default_rng(1)), draw(40, 4, np.random.default_rng(2))


@pytest.mark.parametrize("target", [Target("far", 0.05), Target("frr", 0.3)])
def test_the_threshold_of_a_known_law(target):
    """The rate asked for is the law's own rate at the threshold, as near as 400 classes can tell."""
    rng = np.random.default_rng(0)
    found = calibrate(draw(400, 8, rng), draw(400, 8, rng), target)
    true = {"far": true_far, "frr": true_frr}[target.kind](found.threshold.distance)
    rate = getattr(found.validation, target.kind)
    assert rate.value == pytest.approx(target.rate, abs=1e-5)  # a few of 5 million pairs tie in float32
    assert abs(true - target.rate) < 3 * rate.standard_error < 0.2 * target.rate


@pytest.mark.parametrize(("kind", "rate"), [("far", 0.05), ("far", 1 / 3), ("frr", 0.1), ("frr", 0.37)])
def test_the_threshold_is_the_order_statistic(splits, kind, rate):
    (x, y), test = splits
    d, same = distances(x), y[:, None] == y[None, :]
    upper = np.triu_indices(len(y), 1)
    values = d[upper][same[upper] == (kind == "frr")]
    found = calibrate((x, y), test, Target(kind, rate)).threshold
    allowed = math.floor(Fraction(repr(rate)) * len(values))
    rank = len(values) - allowed if kind == "frr" else allowed
    assert found.distance == pytest.approx(sorted(values)[rank - 1], abs=SLACK)
    assert found.distance == pytest.approx(math.sqrt(2 - 2 * found.similarity), abs=1e-12)


@pytest.mark.parametrize("target", [Target("far", 0.1), Target("frr", 0.6)])
def test_the_card_equals_a_recount(splits, target):
    found = calibrate(*splits, target)
    limits = {"far": 0.1, "frr": 0.6}
    card = calibration_card(found, limits=limits, worst=3)
    for name, (x, y) in zip(("validation", "test"), splits, strict=True):
        far, frr = recount(x, y, found.threshold.distance + SLACK)
        for kind, counts, ends in (("far", far, 2), ("frr", frr, 1)):
            errors, pairs = counts.sum(axis=0) // ends
            assert card[name][kind]["rate"] == errors / pairs
            assert card[name][kind]["pairs"] == pairs
            parts = parts_by_class(x, y, found.threshold.distance + SLACK, kind)
            ends = interval(parts, len(counts))
            assert (card[name][kind]["low"], card[name][kind]["high"]) == pytest.approx(ends, rel=1e-9)
        assert (card[name]["images"], card[name]["classes"]) == (len(y), len(np.unique(y)))
    for kind, counts in (("far", far), ("frr", frr)):
        rates = counts[:, 0] / counts[:, 1]
        spread = card["test"][f"class_{kind}"]
        assert list(spread["quantiles"].values()) == pytest.approx(
            np.quantile(rates, [float(q) for q in spread["quantiles"]])
        )
        assert (spread["classes"], spread["mean"]) == (len(rates), pytest.approx(sum(rates) / len(rates)))
        squares = sum((rates - sum(rates) / len(rates)) ** 2)
        assert spread["standard_deviation"] == pytest.approx(math.sqrt(squares / len(rates)))
        draws = 2 if kind == "frr" else 4  # disjoint pairs, or images, of a class of 4 images
        for row in spread["worst"]:
            ends = class_interval(row[kind], draws, 0.05)
            assert (row[f"{kind}_low"], row[f"{kind}_high"]) == pytest.approx(ends, abs=1e-9)
        worst = sorted(range(len(rates)), key=lambda c, r=rates: (-r[c], c))
        assert [row["label"] for row in spread["worst"]] == worst[:3]
        assert [row[kind] for row in spread["worst"]] == [rates[c] for c in worst[:3]]
        beyond = {int(c) for c in np.flatnonzero(rates > limits[kind])}
        named = [*spread["beyond_limit"], *spread["too_few_images_to_say"]]
        assert {row["label"] for row in named} == beyond
        assert 0 < len(beyond) < len(rates)
        before, after = card["validation"][kind]["rate"], card["test"][kind]["rate"]
        errors = [
            standard_error(parts_by_class(x, y, found.threshold.distance + SLACK, kind), len(np.unique(y)))
            for x, y in splits
        ]
        half = stats.t.ppf(0.975, 39) * math.sqrt(errors[0] ** 2 + errors[1] ** 2)  # 60 and 40 classes
        want = (after - before, after - before - half, after - before + half, after / before)
        drift = card["drift"][kind]
        assert (drift["difference"], drift["low"], drift["high"], drift["ratio"]) == pytest.approx(
            want, rel=1e-9
        )


@pytest.mark.parametrize("target", [Target("far", 0.1), Target("frr", 0.5)])
def test_queries_are_compared_with_the_gallery_alone(splits, target):
    """A recount pair by pair, the variance by Aronow et al., equation 5, over all pairs of class pairs."""
    (x, y), validation = splits[1], splits[0]
    query = np.random.default_rng(5).random(len(y)) < 0.4
    query[y == 3], query[y == 4] = True, False  # a class without gallery, a class without queries
    found = calibrate(validation, (x, y), target, is_query=(None, query))
    d, classes = distances(x), y.max() + 1
    accepted, pairs = np.zeros((classes, classes)), np.zeros((classes, classes))
    for i in np.flatnonzero(query):
        for j in np.flatnonzero(~query):
            accepted[y[i], y[j]] += d[i, j] <= found.threshold.distance + SLACK
            pairs[y[i], y[j]] += 1
    own, total = np.eye(classes, dtype=bool), np.array([pairs.trace(), pairs.sum() - pairs.trace()])
    assert [found.test.frr.pairs, found.test.far.pairs] == total.tolist()
    assert found.test.frr.errors == (pairs - accepted)[own].sum()
    assert found.test.far.errors == accepted[~own].sum()
    assert found.test.rejected.tolist() == (pairs - accepted)[own].tolist()
    assert found.test.accepted.tolist() == (np.where(own, 0, accepted + accepted.T).sum(axis=1)).tolist()
    both, rate = accepted + accepted.T - found.test.far.value * (pairs + pairs.T), found.test.far.value
    residual = {(i, j): both[i, j] for i in range(classes) for j in range(i + 1, classes)}
    shared = sum(a * b for p, a in residual.items() for q, b in residual.items() if set(p) & set(q))
    variance = max(shared, sum(a * a for a in residual.values())) * classes / (classes - 1) / total[1] ** 2
    assert found.test.far.standard_error == pytest.approx(variance**0.5)
    assert 0.0 < rate < 1.0
    card = calibration_card(found)
    assert card["validation"]["compared"] == "each image with every other of the split"
    assert card["test"]["compared"] == "each query with each gallery image"
    assert any("compare other pairs" in note for note in card["notes"])


def test_the_threshold_over_queries_and_gallery_is_the_order_statistic(splits):
    (x, y), test = splits
    query = np.arange(len(y)) % 3 == 0
    d, same = distances(x)[query][:, ~query], y[query][:, None] == y[~query][None, :]
    found = calibrate((x, y), test, Target("far", 0.05), is_query=(query, None))
    assert found.threshold.distance == pytest.approx(
        sorted(d[~same])[math.floor(0.05 * (~same).sum()) - 1], abs=SLACK
    )
    assert found.validation.far.pairs == (~same).sum()


def test_no_pair_is_near_the_threshold_by_chance(splits):
    """What the recount's slack needs: one pair, the threshold's own, is within it."""
    found = calibrate(*splits, Target("far", 0.1))
    for (x, y), own in zip(splits, (1, 0), strict=True):
        near = np.abs(distances(x)[np.triu_indices(len(y), 1)] - found.threshold.distance) <= 2 * SLACK
        assert near.sum() == own


def test_many_images_in_blocks_are_counted_like_few():
    """Strips, tiles and classes larger than a strip: the same counts as one product."""
    rng = np.random.default_rng(3)
    sizes = np.concatenate([[1300, 1, 2], rng.integers(1, 40, 60)])
    labels = rng.permutation(np.repeat(np.arange(len(sizes)) * 7, sizes))
    centres = rng.normal(size=(len(sizes) * 7, 6))
    x = centres[labels] + 0.5 * rng.normal(size=(len(labels), 6))
    found = calibrate((x, labels), (x, labels), Target("far", 0.03))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    accepted = np.sqrt(np.maximum(2 - 2 * unit @ unit.T, 0)) <= found.threshold.distance + 1e-9
    np.fill_diagonal(accepted, False)
    same = labels[:, None] == labels[None, :]
    for position, label in enumerate(found.test.labels):
        own = labels == label
        assert (
            abs(found.test.accepted[position] - (accepted & ~same)[own].sum()) <= 1
        )  # a pair in the last bit
        assert (
            abs(found.test.rejected[position] - (~accepted & same)[own].sum() // 2 + sizes[position] // 2)
            <= 1
        )
    assert found.validation.far.errors == math.floor(0.03 * found.validation.far.pairs)


def test_a_class_of_one_image_has_a_far_and_no_frr():
    x, y = draw(20, 3, np.random.default_rng(4))
    keep = np.flatnonzero((y != 5) | (np.arange(len(y)) == 15))
    card = calibration_card(calibrate((x, y), (x[keep], y[keep]), Target("far", 0.1)), worst=20)
    assert card["test"]["classes_without_positive_pair"] == 1
    assert card["test"]["class_frr"]["classes"] == 19
    assert 5 not in {row["label"] for row in card["test"]["class_frr"]["worst"]}
    lone = next(row for row in card["test"]["class_far"]["worst"] if row["label"] == 5)
    assert (lone["frr"], lone["images"], lone["negative_pairs"]) == (None, 1, 57)


def test_faults_are_named(splits):
    (x, y), test = splits
    broken = x.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"validation: embeddings must be finite"):
        calibrate((broken, y), test, Target("far", 0.1))
    with pytest.raises(ValueError, match="same width, got 2 and 3"):
        calibrate((x, y), (np.pad(test[0], ((0, 0), (0, 1))), test[1]), Target("far", 0.1))
    with pytest.raises(ValueError, match=r"validation: .*collapsed"):
        calibrate((np.ones_like(x), y), test, Target("far", 0.1))
    crowded = np.array([[1.0, 0.0]]) + 1e-4 * np.random.default_rng(0).normal(size=x.shape)
    with pytest.raises(ValueError, match="collapsed"):
        calibrate((crowded, y), test, Target("frr", 0.1))
    with pytest.raises(ValueError, match="at least one of the 44250 negative pairs"):
        calibrate((x, y), test, Target("far", 1e-5))
    with pytest.raises(ValueError, match="at least one of the 600 positive pairs"):
        calibrate((x, y), test, Target("frr", 1e-3))
    with pytest.raises(ValueError, match=r"in \(0, 1\), got 1"):
        Target("far", 1.0)


def under_two_labels():
    """60 classes of 5 images, of which 12 of 12 classes are one image."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(60), 5)
    x = rng.normal(size=(60, 32))[labels] + 0.6 * rng.normal(size=(300, 32))
    for image in range(12):
        classes = rng.choice(60, 12, replace=False)
        x[5 * classes + image % 5] = x[5 * classes[0] + image % 5]
    return x.astype(np.float32), labels


def test_identical_images_of_two_labels_tie_at_distance_zero():
    """Rounded, they were at similarities of 0.9999998 to 1.0000002, and a threshold among them meant nothing."""
    x, labels = under_two_labels()
    unit = x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True).astype(np.float64)
    upper = np.triu_indices(len(labels), 1)
    negative = (labels[:, None] != labels)[upper]
    apart = np.linalg.norm(unit[:, None] - unit, axis=2)[upper][negative]
    same = int((apart == 0).sum())
    with pytest.raises(
        ValueError, match=rf"{same} of the 44250 negative pairs .* can be kept is {same / 44250:.4g}"
    ):
        calibrate((x, labels), (x, labels), Target("far", 0.001))
    for rate in (same / 44250, 0.02):
        found = calibrate((x, labels), (x, labels), Target("far", rate))
        assert found.threshold.similarity <= 1.0
        assert (
            found.validation.far.errors
            == found.test.far.errors
            == (apart <= found.threshold.distance + SLACK).sum()
        )
        assert found.validation.far.value <= rate


@pytest.mark.parametrize("negatives", [101, 100, 37])
def test_a_far_is_at_most_its_target(negatives):
    """101 negative pairs at 1 %: two of them are 1.98 %."""
    angles = np.linspace(0.5, 1.5, negatives)
    x = np.stack([np.cos([0, 0.01, *angles]), np.sin([0, 0.01, *angles])], axis=1)
    labels = np.concatenate([[0, 0], np.arange(negatives) + 1])
    is_query = np.arange(len(x)) == 0
    rate = 0.01 if negatives > 99 else 0.03
    found = calibrate((x, labels), (x, labels), Target("far", rate), is_query=(is_query, is_query))
    assert found.validation.far.pairs == negatives
    assert found.validation.far.errors == 1
    with pytest.raises(ValueError, match=rf"at least one of the {negatives} negative pairs"):
        calibrate((x, labels), (x, labels), Target("far", 0.999 / negatives), is_query=(is_query, is_query))


def test_a_tie_across_the_target_is_left_out():
    """Of 190 negatives 40 are nearest and alike, then 50 alike: 30 % keeps the first 40, 10 % none of them."""
    x = np.concatenate([np.eye(20), np.eye(20)])[:, :20]
    labels = np.tile(np.arange(20), 2)
    found = calibrate((x, labels), (x, labels), Target("far", 0.01))
    assert found.validation.far.errors == 0
    assert found.validation.frr.errors == 0
    assert found.threshold.distance == pytest.approx(math.sqrt(2), abs=1e-6)
    assert any("tie" in note for note in calibration_card(found)["notes"])
    x[1, 0] = x[21, 0] = 0.5  # classes 0 and 1 come nearer: their 4 pairs alone are kept
    near = calibrate((x, labels), (x, labels), Target("far", 0.01))
    assert near.validation.far.errors == 4


@pytest.mark.parametrize("images", [3, 10])
def test_no_class_of_one_law_is_beyond_the_limit_by_chance(images):
    """By their rate alone, more than 10 of 200 such classes were once named."""
    rng = np.random.default_rng(images)
    labels = np.repeat(np.arange(200), images)
    x = rng.normal(size=(200, 32))[labels] + 0.8 * rng.normal(size=(len(labels), 32))
    found = calibrate((x, labels), (x, labels), Target("frr", 0.1))
    card = calibration_card(found, limits={"frr": 0.2, "far": 2 * found.test.far.value})
    above = (found.test.class_frr > 0.2).sum()
    classes = card["test"]["class_frr"]
    assert above > 10
    assert classes["beyond_limit"] == []
    assert len(classes["too_few_images_to_say"]) == above
    assert card["test"]["class_far"]["beyond_limit"] == []
    row = classes["worst"][0]
    assert row["frr_low"] <= row["frr"] <= row["frr_high"]


def test_a_class_that_is_surely_beyond_is_named():
    rng = np.random.default_rng(3)
    x, labels = draw(40, 60, rng)
    x[labels == 7] = rng.normal(size=((labels == 7).sum(), x.shape[1]))
    card = calibration_card(calibrate((x, labels), (x, labels), Target("frr", 0.1)), limits={"frr": 0.2})
    assert [row["label"] for row in card["test"]["class_frr"]["beyond_limit"]] == [7]


def test_doubled_and_shared_images_are_noted(splits):
    x, labels = under_two_labels()
    doubled = len(labels) - sum(
        set(labels[(x == row).all(axis=1)]) == {label} for row, label in zip(x, labels, strict=True)
    )
    notes = calibration_card(calibrate((x, labels), (x, labels), Target("far", 0.05)))["notes"]
    assert (
        f"validation: {doubled} images are identical to one of another label: remove one label of each"
        in notes
    )
    assert any(note.startswith("300 of the 300 images of test are in validation too") for note in notes)
    (v, vl), (t, tl) = splits
    t = np.concatenate([t, 2 * v[:3]])  # the same directions
    notes = calibration_card(calibrate((v, vl), (t, np.concatenate([tl, [0, 0, 1]])), Target("far", 0.05)))[
        "notes"
    ]
    assert any(note.startswith("3 of the 163 images of test are in validation too") for note in notes)
    assert not any("another label" in note for note in notes)
