"""Identical rows are at distance exactly 0 and tie, whatever rounding makes of their product."""

import numpy as np
import pytest
import torch

from dmlcore.metrics import arrays
from dmlcore.metrics.arrays import content_keys
from dmlcore.metrics.evaluation import evaluate, evaluate_pairs
from dmlcore.metrics.inputs import Settings, build_pairs
from dmlcore.metrics.pairwise.tiles import Tile, diagonal_bands, multiply_tile
from dmlcore.metrics.pairwise.torch_sweep import TorchSweep
from tests.reference.metrics import expected_metrics


def with_copies(classes: int = 80, images: int = 6, width: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """One exact copy in each class, and 30 images under two classes."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(classes), images)
    x = rng.normal(size=(classes, width))[y] + 0.8 * rng.normal(size=(len(y), width))
    x[images - 1 :: images] = x[images - 2 :: images]
    for k in range(30 * classes // 80):
        x[images * k] = x[images * (k + classes // 2)]
    return x.astype(np.float32), y


@pytest.mark.parametrize("protocol", ["all", "query and gallery"])
def test_metrics_equal_the_oracle_that_ties_them(protocol: str) -> None:
    x, y = with_copies(40, 4)
    is_query = None if protocol == "all" else np.arange(len(y)) % 4 % 3 == 0
    e = evaluate(x, y, is_query=is_query, num_thresholds=21)
    want = expected_metrics(x, y, 21, is_query)
    assert {name: e.metrics[name] for name in want} == pytest.approx(want, abs=1e-5)


def test_the_rate_at_a_distance_of_zero() -> None:
    """Of 480 images 30 negative pairs are identical, more than 1 in 10,000: TAR is the share of identical positives."""
    x, y = with_copies()
    assert evaluate(x, y).metrics["tar_at_far_0.0001"] == pytest.approx(80 / (80 * 15), abs=1e-12)


def test_no_product_of_identical_rows_is_rounded() -> None:
    x, y = with_copies(width=512)
    pairs = build_pairs(x, y, None, torch.device("cpu"))
    block, _ = multiply_tile(pairs, Tile(0, len(y), 0, len(y)))
    rows = pairs.rows[: len(y)]
    same = (rows[:, None] == rows).all(dim=2)
    assert int(same.sum()) == len(y) + 2 * (80 + 30)
    off_diagonal = same & ~torch.eye(len(y), dtype=torch.bool)
    assert (block[: len(y), : len(y)][off_diagonal] == 1).all()
    for band, bounds in diagonal_bands(pairs, 0, len(y)):
        inner = band[bounds.row - bounds.block_row :, bounds.col - bounds.block_col :]
        part = off_diagonal[bounds.row : bounds.stop, bounds.col : bounds.end]
        assert (inner[: bounds.stop - bounds.row, : bounds.end - bounds.col][part] == 1).all()


@pytest.mark.parametrize("is_query", [None, np.arange(480) % 6 < 2], ids=["all", "query and gallery"])
def test_both_engines_tie_them(is_query: np.ndarray | None) -> None:
    x, y = with_copies()
    compiled = evaluate(x, y, is_query=is_query).metrics
    with torch.inference_mode():
        pairs = build_pairs(x, y, is_query, torch.device("cpu"))
        plain = evaluate_pairs(pairs, TorchSweep(pairs, 2**24), Settings()).metrics
    assert plain == pytest.approx(compiled, rel=1e-12, abs=1e-12)


def test_similarity_is_never_above_one() -> None:
    """Rows that differ in the last bits have products of up to 1.0000002."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(50), 4)
    x = rng.normal(size=(50, 128))[y] * (1 + 1e-7 * rng.normal(size=(200, 128)))
    unit = torch.nn.functional.normalize(torch.from_numpy(x).float())
    products = (unit @ unit.T)[torch.from_numpy(y[:, None] == y)]
    assert float(products.max()) > 1  # what this is about
    found = evaluate(x, y, far_range=(0.5, 0.9))
    assert found.metrics["recall_at_1"] == 1.0
    assert found.metrics["distance_min"] > 0.5


def test_keys_tell_rows_apart() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.integers(-2, 3, size=(20_000, 6)).astype(np.float32))
    distinct = len(torch.unique(x, dim=0))
    assert len(np.unique(content_keys(x))) == distinct < 20_000
    assert len(np.unique(content_keys(torch.eye(512)))) == 512


@pytest.mark.parametrize("is_query", [None, np.arange(480) % 6 < 2], ids=["all", "query and gallery"])
def test_images_under_two_labels_are_counted(is_query: np.ndarray | None) -> None:
    x, y = with_copies()
    assert evaluate(x, y, is_query=is_query).metrics["num_images_under_two_labels"] == 60


@pytest.mark.parametrize("weak", [lambda x: 0, lambda x: int(x[0] > 0), lambda x: hash(x[0].item()) % 5])
def test_rows_whose_hashes_collide_do_not_tie(monkeypatch: pytest.MonkeyPatch, weak: object) -> None:
    """A file can be made so that different rows share a hash; here all do, or many."""
    x, y = with_copies(40, 4)
    want = evaluate(x, y).metrics

    def hash_rows(unit: torch.Tensor) -> np.ndarray:
        return np.array([weak(row) for row in unit], dtype=np.int64)  # type: ignore[operator]

    monkeypatch.setattr(arrays, "hash_rows", hash_rows)
    keys = content_keys(torch.from_numpy(x))
    assert len(np.unique(keys)) == len(np.unique(x, axis=0)) < len(x)
    found = evaluate(x, y).metrics
    moved = {"opis_corrected", "opis_corrected_error", "opis_floor"}  # other keys draw other halves
    assert {k: v for k, v in found.items() if k not in moved} == {
        k: v for k, v in want.items() if k not in moved
    }
