"""evaluate() takes what NumPy, torch, pandas and polars hold as numbers, to the same result, and refuses the rest."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from dmlcore.calibration import Target, calibrate, calibration_card
from dmlcore.metrics.evaluation import evaluate
from tests.metrics.test_against_reference import make_input
from tests.metrics.test_properties import OF_HALVES


def numbered():
    """Labels from 0, so that names sort as they do."""
    x, y = make_input()
    return x, np.unique(y, return_inverse=True)[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.frombuffer(x.tobytes(), dtype=x.dtype).reshape(x.shape),
        lambda x: x.astype(x.dtype.newbyteorder(">")),
        lambda x: x[::-1].copy()[::-1],
        lambda x: x[:, ::-1].copy()[:, ::-1],
        lambda x: x.astype(np.longdouble),
        lambda x: x.astype(np.dtype(">f8")),
        lambda x: np.asfortranarray(x),
        lambda x: np.ma.masked_array(x),
        lambda x: x.tolist(),
        lambda x: list(x),
        pd.DataFrame,
        lambda x: pl.DataFrame(x),
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: torch.nn.Parameter(torch.from_numpy(x)),
    ],
)
def test_embeddings_of_any_kind_give_the_same_result(change):
    x, y = make_input()
    x = x.astype(np.float32)
    found, expected = evaluate(change(x), y).metrics, evaluate(x, y).metrics
    for name in expected.keys() - OF_HALVES:
        assert found[name] == pytest.approx(expected[name], nan_ok=True, rel=1e-6), name


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.astype(">i8"),
        lambda y: y.astype(np.uint64),
        lambda y: y[::-1].copy()[::-1],
        lambda y: y.tolist(),
        lambda y: y.astype(object),
        pd.Series,
        lambda y: pd.Series(y, dtype="Int64"),
        pl.Series,
        torch.from_numpy,
        lambda y: [f"class {label:04}" for label in y],
        lambda y: np.array([f"{label:04}" for label in y], dtype="S4"),
        lambda y: pd.Series([f"class {label:04}" for label in y]),
        lambda y: pd.Categorical([f"class {label:04}" for label in y]),
        lambda y: pl.Series([f"class {label:04}" for label in y]),
    ],
)
def test_labels_of_any_kind_give_the_same_result(change):
    x, y = numbered()
    assert evaluate(x, change(y)).metrics == pytest.approx(evaluate(x, y).metrics, nan_ok=True)


def test_classes_are_known_by_their_names():
    x, y = numbered()
    names = [f"class {label:04}" for label in y]
    assert evaluate(x, names).class_labels.tolist() == [f"class {c:04}" for c in evaluate(x, y).class_labels]
    card = calibration_card(calibrate((x, names), (x, names), Target("far", 0.2)))
    assert card["test"]["class_far"]["worst"][0]["label"] in names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x.astype(object), y), "floating point, got object"),
        (lambda x, y: (x.astype(complex), y), "floating point, got complex128"),
        (lambda x, y: (x.astype("datetime64[s]"), y), "floating point, got datetime64"),
        (lambda x, y: (np.ma.masked_less(x, 0.0), y), "no masked values"),
        (lambda x, y: ([[0.5], [0.5, 1.0]], y), "must be an array of numbers"),
        (lambda x, y: (pd.DataFrame(x).assign(name="a"), y), "floating point, got object"),
        (lambda x, y: (torch.from_numpy(x).to_sparse(), y), "must be a dense tensor"),
        (lambda x, y: (np.full(x.shape, np.finfo(np.longdouble).max), y), "must be finite"),
        (lambda x, y: ({"x": x}, y), "floating point, got object"),
        (lambda x, y: (x, torch.from_numpy(y).bfloat16()), r"got torch\.bfloat16; convert"),
        (lambda x, y: (x, y > 1), "integers or texts, got bool"),
        (lambda x, y: (x, [None, *y[1:]]), "label 0 is None"),
        (lambda x, y: (x, pd.Series([*map(str, y[:-1]), None], dtype=object)), "label 57 is None"),
        (lambda x, y: (x, pd.DataFrame({"y": y})), "one label each"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        evaluate(*change(*make_input()))
    assert "\n" not in str(caught.value)
