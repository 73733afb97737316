"""A threshold on embeddings of known law, and the card against a naive float64 recount."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dmlcore.calibration import Target, calibrate, calibration_card
from tests.calibration.laws import draw, true_far, true_frr
from tests.reference.metrics import distances, smallest

SLACK = 1e-6
"""Between a distance of ours, from a float32 similarity, and the float64 one, at distances of 0.1 and more."""


@pytest.fixture(scope="module")
def splits():
    return draw(60, 5, np.random.default_rng(1)), draw(40, 4, np.random.default_rng(2))


def recount(embeddings, labels, threshold):
    """(accepted, pairs) of the negatives and (rejected, pairs) of the positives, whole and by class, pair by pair."""
    d = distances(embeddings)
    far, frr = np.zeros((labels.max() + 1, 2), int), np.zeros((labels.max() + 1, 2), int)
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            if labels[i] == labels[j]:
                frr[labels[i]] += (d[i, j] > threshold, 1)
            else:
                far[labels[i]] += (d[i, j] <= threshold, 1)
                far[labels[j]] += (d[i, j] <= threshold, 1)
    return far, frr


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
    rank = len(values) - math.floor(rate * len(values)) if kind == "frr" else None
    expected = smallest(list(values), rate) if rank is None else sorted(values)[rank - 1]
    assert found.distance == pytest.approx(expected, abs=SLACK)
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
        assert (card[name]["images"], card[name]["classes"]) == (len(y), len(np.unique(y)))
    for kind, counts in (("far", far), ("frr", frr)):
        rates = counts[:, 0] / counts[:, 1]
        spread = card["test"][f"class_{kind}"]
        assert list(spread["quantiles"].values()) == pytest.approx(
            np.quantile(rates, [float(q) for q in spread["quantiles"]])
        )
        worst = sorted(range(len(rates)), key=lambda c, r=rates: (-r[c], c))
        assert [row["label"] for row in spread["worst"]] == worst[:3]
        assert [row[kind] for row in spread["worst"]] == [rates[c] for c in worst[:3]]
        beyond = {int(c) for c in np.flatnonzero(rates > limits[kind])}
        assert {row["label"] for row in spread["beyond_limit"]} == beyond
        assert 0 < len(beyond) < len(rates)
        assert (
            card["drift"][kind]["difference"] == card["test"][kind]["rate"] - card["validation"][kind]["rate"]
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
    assert found.threshold.distance == pytest.approx(smallest(list(d[~same]), 0.05), abs=SLACK)
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
    assert found.validation.far.errors == math.ceil(0.03 * found.validation.far.pairs)


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


def test_tied_distances_are_noted():
    labels = np.repeat(np.arange(30), 2)
    x = np.eye(30)[labels]
    found = calibrate((x, labels), (x, labels), Target("far", 0.01))
    assert found.validation.far.value == 1.0
    assert any("distances tie" in note for note in calibration_card(found)["notes"])
