"""What must hold for every metric: no order, name, rotation, scale, block or number type may move a number."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dmlcore.metrics.evaluation import Evaluation, evaluate, evaluate_pairs
from dmlcore.metrics.inputs import Settings, build_pairs
from dmlcore.metrics.pairwise.order_statistics import LOW_BITS, key_to_float
from dmlcore.metrics.pairwise.similarity_cutoff import SimilarityCutoff, find_similarity_cutoff
from dmlcore.metrics.pairwise.torch_sweep import TorchSweep
from tests.metrics.test_against_reference import make_input
from tests.reference.metrics import expected_metrics

COUNTS = {
    "num_queries": 56,
    "num_queries_without_positive": 2,
    "num_classes": 9,
    "num_singleton_classes": 2,
    "num_images_under_two_labels": 0,
    "num_classes_too_small_for_correction": 2,
}
INTERVALS = {"opis_low", "opis_high", "opis_raw_low", "opis_raw_high"}
OF_HALVES = {"opis_corrected", "opis_corrected_error", "opis_floor"}  # other last bits, other halves


def big_input(count: int = 1500, classes: int = 150) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, count)
    x = rng.standard_normal((classes, 32))[y] + rng.standard_normal((count, 32))
    return x.astype(np.float32), y


def rotate(x: np.ndarray) -> np.ndarray:
    q = np.linalg.qr(np.random.default_rng(3).standard_normal((x.shape[1],) * 2))[0]
    return (x @ q).astype(np.float32)


CHANGES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "names of the classes": lambda x, y: (x, np.unique(y, return_inverse=True)[1] * 3 - 5),
    "rotation": lambda x, y: (rotate(x), y),
    "scale of each row": lambda x, y: (x * np.linspace(0.1, 50, len(x), dtype=np.float32)[:, None], y),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_no_number_moves(change: Callable) -> None:
    x, y = make_input()
    before, after = evaluate(x, y).metrics, evaluate(*change(x, y)).metrics
    for name in before.keys() - OF_HALVES:
        assert after[name] == pytest.approx(before[name], abs=1e-6), name


@pytest.mark.parametrize("is_query", [None, np.arange(58) % 3 == 0], ids=["all", "query and gallery"])
def test_the_order_of_the_rows_moves_no_bit(is_query: np.ndarray | None) -> None:
    x, y = make_input()
    order = np.random.default_rng(5).permutation(len(y))
    whole = evaluate(x, y, is_query=is_query, bootstrap=20)
    same(
        whole,
        evaluate(x[order], y[order], is_query=None if is_query is None else is_query[order], bootstrap=20),
    )
    renamed = evaluate(x, -y, is_query=is_query).metrics
    assert renamed["opis_corrected"] == pytest.approx(whole.metrics["opis_corrected"], rel=1e-9)


@pytest.mark.parametrize("power", [1e20, 1e30, 1e-30, 1e-42], ids=str)
def test_rows_of_any_length(power: float) -> None:
    """Squares of 1e20 overflow float32, those of 1e-30 underflow, and 1e-42 has few bits left."""
    x, y = make_input()
    lengths = np.where(np.arange(len(y)) % 3 == 0, power, 1.0).astype(np.float64)[:, None]
    exact = x.astype(np.float64) * lengths
    rounded = exact.astype(np.float32)
    want = evaluate((rounded.astype(np.float64) / lengths), y).metrics  # what is left of the rows
    for given in (rounded, rounded * np.float32(-1.0)):
        found = evaluate(given, y).metrics
        for name in found.keys() - OF_HALVES:
            assert found[name] == pytest.approx(want[name], abs=1e-6), name
    doubles = evaluate(x * np.where(lengths == 1, 1.0, 1e200 if power > 1 else 1e-200), y).metrics
    assert doubles["map_at_r"] == pytest.approx(evaluate(x, y).metrics["map_at_r"], abs=1e-6)


def test_every_metric_is_tested() -> None:
    x, y = make_input()
    e = evaluate(x, y, bootstrap=10)
    corrected = OF_HALVES  # test_opis_corrected.py
    assert (
        e.metrics.keys()
        == expected_metrics(x, y, len(e.thresholds)).keys() | COUNTS.keys() | INTERVALS | corrected
    )


def test_counts_of_what_is_left_out() -> None:
    x, y = make_input()
    metrics = evaluate(x, y).metrics
    assert {name: metrics[name] for name in COUNTS} == COUNTS


def same(a: Evaluation, b: Evaluation, tolerance: float = 0.0) -> None:
    assert a.metrics == pytest.approx(b.metrics, rel=tolerance, abs=tolerance)
    for name in ("thresholds", "utility", "class_labels", "frr", "far"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("classes", [3, 150])
def test_memory_and_threads_move_no_bit(classes: int) -> None:
    """3 classes: the positives of all queries do not fit, and come in slices."""
    x, y = big_input(classes=classes)
    threads = torch.get_num_threads()
    whole = evaluate(x, y)
    try:
        torch.set_num_threads(3)
        same(whole, evaluate(x, y, memory_bytes=2**24))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("is_query", [None, np.arange(1500) % 3 == 0], ids=["all", "query and gallery"])
@pytest.mark.parametrize("everything", [True, False])
def test_torch_sweep_equals_the_compiled_one(
    is_query: np.ndarray | None, everything: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not everything:  # keep no more than the largest rate needs, as at full size
        monkeypatch.setattr("dmlcore.metrics.pairwise.similarity_cutoff.FEW_PAIRS", 0)
        monkeypatch.setattr("dmlcore.metrics.pairwise.similarity_cutoff.FEW_PAIRS_IF_DEEP", 0)
    x, y = big_input()
    with torch.inference_mode():
        pairs = build_pairs(x, y, is_query, torch.device("cpu"))
        plain = evaluate_pairs(pairs, TorchSweep(pairs, 2**24), Settings())
    same(plain, evaluate(x, y, is_query=is_query), 1e-12)  # counts to the bit, means in another order


@pytest.mark.parametrize("classes", [6, 60, 500])
@pytest.mark.parametrize(
    "options", [{}, {"is_query": np.arange(1024) % 3 == 0}, {"groups": np.arange(1024) % 5}]
)
def test_few_images_have_the_same_bits_without_compiled_loops(
    classes: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = big_input(1024, classes)
    x[1], x[-1] = x[0], x[5]
    compiled = evaluate(x, y, bootstrap=5, **options)
    monkeypatch.setattr("dmlcore.metrics.evaluation.FEW_IMAGES", 1024)
    monkeypatch.setitem(sys.modules, "dmlcore.metrics.pairwise.numba_sweep", None)  # an import of it fails
    same(compiled, evaluate(x, y, bootstrap=5, **options))


def test_a_cutoff_too_high_is_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that puts the cutoff too high costs a second pass, never a number."""
    x, y = big_input()
    whole, calls = evaluate(x, y), []
    monkeypatch.setattr("dmlcore.metrics.pairwise.similarity_cutoff.FEW_PAIRS", 0)
    monkeypatch.setattr("dmlcore.metrics.pairwise.similarity_cutoff.FEW_PAIRS_IF_DEEP", 0)

    def too_high(*args: Any) -> SimilarityCutoff:
        calls.append(args)
        found = find_similarity_cutoff(*args)
        place = found.lowest_bin + (1000 if len(calls) == 1 else 0)
        return SimilarityCutoff(np.float32(key_to_float(place << LOW_BITS)), place, found.count_all)

    monkeypatch.setattr("dmlcore.metrics.pairwise.numba_sweep.find_similarity_cutoff", too_high)
    same(whole, evaluate(x, y))
    assert len(calls) == 2


def test_deep_equal_error_rate_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where FAR and FRR cross under everything kept, negatives are spread over one bin."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3000, 32)).astype(np.float32), rng.integers(0, 300, 3000)
    exact = evaluate(x, y).metrics
    monkeypatch.setattr("dmlcore.metrics.pairwise.similarity_cutoff.FEW_PAIRS", 0)
    monkeypatch.setattr("dmlcore.metrics.pairwise.similarity_cutoff.FEW_PAIRS_IF_DEEP", 0)
    near = evaluate(x, y).metrics
    assert near["equal_error_rate"] == pytest.approx(exact["equal_error_rate"], abs=2e-5)
    assert exact["equal_error_rate"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_number_types(kind: torch.dtype) -> None:
    x, y = big_input(600, 60)
    near = {torch.float64: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[kind]
    before = evaluate(x, y).metrics
    after = evaluate(torch.from_numpy(x).to(kind), torch.from_numpy(y)).metrics
    for name in before.keys() - OF_HALVES:
        assert after[name] == pytest.approx(before[name], abs=near), name


def test_carried_over_range_is_used() -> None:
    x, y = make_input()
    own = evaluate(x, y)
    ends = own.metrics["distance_min"], own.metrics["distance_max"]
    carried = evaluate(x, y, distance_range=(ends[0] + 1e-6, ends[1] + 1e-6))
    np.testing.assert_allclose(carried.utility, own.utility, atol=1e-9)
    other = evaluate(x, y, distance_range=(0.5, 1.9))
    assert (other.metrics["distance_min"], other.metrics["distance_max"]) == (0.5, 1.9)
    assert other.metrics["tar_at_far_0.01"] == own.metrics["tar_at_far_0.01"]
