"""Precision, cost and F1 against every threshold one by one; listed pairs and identification against naive loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dmlcore.calibration import Target, calibrate, calibrate_pairs, calibration_card, find_threshold
from dmlcore.calibration.identification import identify
from dmlcore.calibration.listed_pairs import listed_pairs
from dmlcore.calibration.scores import MatrixScores
from dmlcore.metrics.inputs import build_pairs
from tests.calibration.laws import draw_sphere
from tests.reference.calibration import SLACK, interval, precision, score
from tests.reference.metrics import distances


def draw(classes, images, rng):
    """Draw on the sphere, where few distances are below what float32 tells apart."""
    return draw_sphere(classes, images, rng, 0.05)


CPU = torch.device("cpu")
TARGETS = [
    Target("precision", 0.9, prior=0.3),
    Target("precision", 0.5, prior=0.01),
    Target("cost", prior=0.1, cost_false_accept=10.0, cost_false_reject=2.0),
    Target("cost", prior=0.5, cost_false_accept=1.0, cost_false_reject=5.0),
    Target("f1"),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.kind} {target.prior}")
def test_no_threshold_is_better(target):
    x, y = draw(25, 5, np.random.default_rng(1))
    found = calibrate((x, y), None, target)
    d, (i, j) = distances(x), np.triu_indices(len(y), 1)
    values, same = d[i, j], (y[:, None] == y)[i, j]
    totals = same.sum(), (~same).sum()
    scores = [
        score(target, (values[~same] <= t).mean(), (values[same] > t).mean(), totals)
        for t in np.unique(values)
    ]
    ours = score(target, found.validation.far.value, found.validation.frr.value, totals)
    assert ours == pytest.approx(max(scores), abs=1e-12)
    assert np.isfinite(ours)
    card = calibration_card(found)
    if target.kind == "precision":
        reached = precision(target.prior, found.validation.far.value, found.validation.frr.value)
        assert card["validation"]["precision"] == pytest.approx(reached)
        assert reached >= target.rate
    else:
        assert card["validation"][target.kind] == pytest.approx(abs(ours))


def test_precision_out_of_reach_is_refused():
    x, y = draw(10, 3, np.random.default_rng(2))
    x[1:4:2] = x[0]  # the nearest pairs are of two classes
    with pytest.raises(
        ValueError, match=r"--precision 0.99 is not reached by any threshold at a prior of 0.001"
    ):
        find_threshold(build_pairs(x, y, None, CPU), Target("precision", 0.99, prior=0.001))


def test_the_curve_is_of_real_thresholds():
    x, y = draw(40, 6, np.random.default_rng(3))
    scores = MatrixScores(build_pairs(x, y, None, CPU), 1.0)
    curve = scores.curve()
    assert 50 < len(curve.similarity) <= 401
    assert (np.diff(curve.far) >= 0).all()
    assert (np.diff(curve.frr) <= 0).all()
    for point in range(0, len(curve.similarity), 17):
        rates = scores.rates(curve.similarity[point])
        assert rates["far"].value == pytest.approx(curve.far[point], abs=1e-4)
        assert rates["frr"].value == pytest.approx(curve.frr[point], abs=2e-3)


def listed(seed, count=400):
    """Pairs of 150 images, some used often; labels 0 and 1."""
    x, y = draw(50, 3, np.random.default_rng(seed))
    rng = np.random.default_rng((seed, 1))
    one, other = rng.integers(0, 150, (2, count))
    other[: count // 2] = one[: count // 2] // 3 * 3 + (one[: count // 2] + 1) % 3
    keep = one != other
    one, other = one[keep], other[keep]
    return x, one, other, (y[one] == y[other]).astype(int)


@pytest.mark.parametrize(
    "target", [Target("far", 0.1), Target("frr", 0.3), Target("far", 0.1, 0.9), *TARGETS[2:]]
)
def test_listed_pairs_equal_a_naive_loop(target):
    x, one, other, same = listed(4)
    found = calibrate_pairs((x[one], x[other], same), None, [target])[0]
    d = np.linalg.norm(x[one] - x[other], axis=1)
    accepted = d <= found.threshold.distance + SLACK
    assert found.validation.far.errors == accepted[same == 0].sum()
    assert found.validation.frr.errors == (~accepted)[same == 1].sum()
    if target.kind in ("far", "frr"):
        rate = getattr(found.validation, target.kind)
        assert rate.value <= target.rate
        assert rate.value >= (target.rate - 1.5 / rate.pairs if target.confidence is None else 0)
        assert target.confidence is None or rate.upper(0.9) <= target.rate
    else:
        totals = same.sum(), (same == 0).sum()
        scores = [
            score(target, (d[same == 0] <= t).mean(), (d[same == 1] > t).mean(), totals) for t in np.unique(d)
        ]
        ours = score(target, found.validation.far.value, found.validation.frr.value, totals)
        assert ours == pytest.approx(max(scores), abs=1e-12)


def test_the_variance_of_listed_pairs_counts_pairs_that_share_an_image():
    x, one, other, same = listed(5)
    scores = listed_pairs(x[one], x[other], same)
    rate = scores.rates(0.7)["far"]
    of = same == 0
    wrong = (np.sum(x[one] * x[other], axis=1) >= 0.7)[of] - rate.value
    ends = [set(pair) for pair in zip(one[of], other[of], strict=True)]
    total = sum(
        a * b for p, a in zip(ends, wrong, strict=True) for q, b in zip(ends, wrong, strict=True) if p & q
    )
    assert rate.standard_error == pytest.approx(
        np.sqrt(total / len(wrong) ** 2 * rate.classes / (rate.classes - 1)), rel=0.02
    )


def test_wrong_pairs_are_refused():
    x, one, other, same = listed(6)
    with pytest.raises(ValueError, match="validation: labels of pairs must be 1"):
        calibrate_pairs((x[one], x[other], same + 1), None, [Target("f1")])
    with pytest.raises(ValueError, match=r"test: pairs must be two arrays \[P, D\]"):
        calibrate_pairs((x[one], x[other], same), (x[one], x[other][1:], same), [Target("f1")])
    with pytest.raises(ValueError, match="needs --validation-groups"):
        calibrate_pairs((x[one], x[other], same), None, [Target("far", 0.1, None, "worst_group")])


@pytest.mark.parametrize("unknown", [False, True])
def test_identification_equals_a_naive_search(unknown):
    x, y = draw(30, 5, np.random.default_rng(7))
    query = np.arange(len(y)) % 5 == 0
    if unknown:
        query |= y % 3 == 0
    found = identify(build_pairs(x, y, query, CPU), 1 - 0.65**2 / 2)
    d, gallery = distances(x), np.flatnonzero(~query)
    returned, missed = [], []
    for q in np.flatnonzero(query):
        mated = (y[gallery] == y[q]).any()
        others = gallery[y[gallery] != y[q]]
        if not unknown or not mated:
            returned.append((d[q, others].min() <= 0.65, y[q]))
        if mated:
            nearest = gallery[d[q, gallery].argmin()]
            missed.append((y[nearest] != y[q] or d[q, nearest] > 0.65, y[q]))
    assert found.unknown is unknown
    for rate, searches in ((found.false_positive, returned), (found.false_negative, missed)):
        assert (rate.errors, rate.pairs) == (sum(wrong for wrong, _ in searches), len(searches))
        assert 0 < rate.errors < rate.pairs
        of_class = {c: [wrong for wrong, other in searches if other == c] for _, c in searches}
        parts = [(np.array([sum(found), len(found)]), frozenset({c})) for c, found in of_class.items()]
        assert (rate.low, rate.high) == pytest.approx(interval(parts, len(parts)), rel=1e-9)
    assert 0 < found.false_positive.low < found.false_positive.value < found.false_positive.high < 1
