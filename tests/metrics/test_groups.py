"""Groups (camera, sequence, encounter) and junk labels: the protocol of re-identification, in every metric."""

import numpy as np
import pytest
import torch

from dmlcore.metrics.evaluation import Evaluation, evaluate, evaluate_pairs
from dmlcore.metrics.inputs import Settings, build_pairs
from dmlcore.metrics.pairwise.torch_sweep import TorchSweep
from tests.metrics.samples import draw
from tests.metrics.test_against_reference import make_input, make_queries
from tests.reference.metrics import Oracle, expected_metrics


def four_cameras() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """25 identities x 4 cameras x 2 images; those of one camera are near, 15 identities are swapped across cameras.

    Seen by another camera, identity i of the first 15 is nearest to identity i + 1 (of 15), so that only the other ten
    are found: R@1 is 10 / 25 once the query's own camera is left out.
    """
    rng, label = np.random.default_rng(0), np.repeat(np.arange(25), 8)
    camera = np.tile(np.repeat(np.arange(4), 2), 25)
    shown = np.where(label < 15, (label + 4 * camera) % 15, label)  # whom the picture looks like
    x = np.eye(64)[shown] + 0.5 * np.eye(64)[25 + camera] * (label < 15)[:, None]
    return x + 0.01 * rng.standard_normal(x.shape), label, camera


@pytest.mark.parametrize("protocol", ["all", "query and gallery"])
def test_the_known_answer_of_re_identification(protocol: str) -> None:
    x, y, camera = four_cameras()
    is_query = None if protocol == "all" else np.arange(len(y)) % 2 == 0
    assert evaluate(x, y, is_query=is_query).metrics["recall_at_1"] == 1.0
    found = evaluate(x, y, is_query=is_query, groups=camera).metrics
    assert found["recall_at_1"] == pytest.approx(0.4)
    assert found["num_groups"] == 4
    assert found["num_queries_without_positive"] == 0


def scattered_groups(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(["north", "south", "gate 7"], count)


@pytest.mark.parametrize("protocol", ["all", "query and gallery"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_metrics_equal_the_oracle(seed: int, protocol: str) -> None:
    x, y = make_input(seed)
    groups, is_query = scattered_groups(len(y), seed), make_queries(len(y)) if protocol != "all" else None
    e = evaluate(x, y, is_query=is_query, groups=groups, num_thresholds=21)
    want = expected_metrics(x, y, len(e.thresholds), is_query, groups)
    assert {key: e.metrics[key] for key in want} == pytest.approx(want, abs=1e-5)
    oracle = Oracle(x, y, is_query, groups)
    np.testing.assert_array_equal(e.class_labels, oracle.classes)
    inner = slice(1, -1)  # the ends are distances of pairs, which rounding may move to the other side
    np.testing.assert_allclose(e.utility[:, inner], oracle.utility(e.thresholds[inner]), atol=1e-5)


@pytest.mark.parametrize("protocol", ["all", "query and gallery"])
def test_both_engines_agree(protocol: str) -> None:
    x, y, camera = four_cameras()
    camera = camera + np.arange(len(y)) % 2 * 2 * (y % 3 == 0)
    is_query = None if protocol == "all" else np.arange(len(y)) % 5 < 2
    compiled = evaluate(x, y, is_query=is_query, groups=camera).metrics
    with torch.inference_mode():
        pairs = build_pairs(x, y, is_query, torch.device("cpu"), groups=camera)
        plain = evaluate_pairs(pairs, TorchSweep(pairs, 2**24), Settings()).metrics
    assert plain == pytest.approx(compiled, rel=1e-12, abs=1e-12)
    assert np.isfinite(compiled["opis_corrected"])


@pytest.mark.parametrize("protocol", ["all", "query and gallery"])
def test_groups_of_one_image_change_nothing(protocol: str) -> None:
    x, y = draw([3, 4, 5, 8, 9, 12] * 6, 1.2, np.random.default_rng(0))
    is_query = None if protocol == "all" else np.arange(len(y)) % 2 == 0
    alone = np.random.default_rng(1).permutation(len(y))
    assert_same(
        evaluate(x, y, is_query=is_query, bootstrap=20),
        evaluate(x, y, is_query=is_query, bootstrap=20, groups=alone),
    )


def test_neither_order_nor_names_of_groups_move_a_number() -> None:
    x, y = draw([6, 9, 12, 20] * 8, 1.2, np.random.default_rng(0))
    groups = np.random.default_rng(2).integers(0, 6, len(y))
    order = np.random.default_rng(3).permutation(len(y))
    names = np.array(["f", "c", "e", "a", "d", "b"])
    assert_same(evaluate(x, y, groups=groups), evaluate(x[order], y[order], groups=names[groups][order]))


def assert_same(one: Evaluation, other: Evaluation) -> None:
    counted = {"num_groups", "num_queries_positive_in_own_group_only"}
    a, b = ({k: v for k, v in e.metrics.items() if k not in counted} for e in (one, other))
    assert a == pytest.approx(b, rel=1e-12, abs=1e-15)
    np.testing.assert_array_equal(one.utility, other.utility)


def test_junk_is_left_out_wholly() -> None:
    """Not a number of it matters, NaN included."""
    x, y, camera = four_cameras()
    junk = np.full((30, x.shape[1]), np.nan)
    with_junk = np.concatenate([junk[:10], x, junk[10:]])
    labels = np.concatenate([np.full(10, -1), y, np.full(20, -1)])
    groups = np.concatenate([np.zeros(10, int), camera, np.zeros(20, int)])
    found = evaluate(with_junk, labels, groups=groups, ignore_label=-1)
    assert found.metrics["num_images_ignored"] == 30
    want = evaluate(x, y, groups=camera)
    assert {k: v for k, v in found.metrics.items() if k != "num_images_ignored"} == want.metrics
    named = evaluate(
        torch.from_numpy(with_junk), labels.astype(np.str_), groups=groups.astype(np.str_), ignore_label="-1"
    )
    assert named.metrics["recall_at_1"] == found.metrics["recall_at_1"]
    is_query = np.arange(len(labels)) % 2 == 0
    found = evaluate(with_junk, labels, is_query=is_query, groups=groups, ignore_label=-1)
    assert found.metrics["num_queries"] == 100


def test_queries_whose_positives_are_all_in_their_group_are_counted() -> None:
    x, y = make_input(0)
    groups = np.where(y == 3, 0, np.arange(len(y)))  # label 3 has one image
    groups[y == 12] = 1000  # 3 images of one group
    found = evaluate(x, y, groups=groups).metrics
    one_image = int(sum((y == label).sum() == 1 for label in set(y.tolist())))
    assert found["num_queries_positive_in_own_group_only"] == int((y == 12).sum())
    assert found["num_queries_without_positive"] == int((y == 12).sum()) + one_image
    assert found["num_singleton_classes"] == 1 + one_image


def test_halves_are_of_groups() -> None:
    """Images of one group share their noise: classes of one law, 8 groups of 3 near images, score 0 once corrected."""
    found = []
    for seed in range(16):
        x, y = draw([8] * 60, 1.5, np.random.default_rng(seed))
        noise = np.random.default_rng(seed + 100).standard_normal((len(y) * 3, x.shape[1])).astype(np.float32)
        x = np.repeat(x, 3, axis=0) + 0.01 * noise
        group = np.repeat(np.arange(len(y)), 3)
        found.append(evaluate(x, np.repeat(y, 3), groups=group, num_thresholds=21).metrics)
    raw, corrected = (np.mean([each[name] for each in found]) for name in ("opis", "opis_corrected"))
    assert abs(corrected) < 0.1 * raw
    few = evaluate(x, np.repeat(y, 3), groups=group % 3, num_thresholds=21).metrics
    assert few["num_classes_too_small_for_correction"] == 60  # 3 groups each


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": np.zeros(7, int)}, r"groups must be \[N\] = \[58\], one for each embedding, got \(7,\)"),
        ({"groups": np.zeros(58)}, "groups must be integers or texts, got float64"),
        ({"groups": [None] * 58}, "groups must be all integers or all texts, group 0 is None"),
        ({"groups": np.zeros(58, int)}, "give some class two images of different groups"),
        (
            {"ignore_label": "junk"},
            "ignore_label must be of the kind of the labels, which are integers, got 'junk'",
        ),
        ({"ignore_label": True}, "ignore_label must be of the kind"),
    ],
)
def test_what_is_no_group_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(*make_input(0), **options)  # type: ignore[arg-type]
