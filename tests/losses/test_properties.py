"""Properties that hold for every loss and regulariser."""

from __future__ import annotations

import pytest
import torch

from dmlcore.losses import LOSSES, REGULARIZERS
from tests.losses.cases import (
    CASES,
    COMPONENTS,
    LABELS,
    NUM_CLASSES,
    WIDTH,
    batch,
    build,
    each_component,
    value_and_gradient,
)

NAMES = {name for _, name in COMPONENTS}


def test_no_component_is_left_out() -> None:
    assert set(LOSSES) | set(REGULARIZERS) == NAMES


@each_component
def test_order_of_the_batch_does_not_matter(kind: str, name: str) -> None:
    loss = build(kind, name)
    embeddings, labels = batch()
    value, gradient = value_and_gradient(loss, embeddings, labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    permuted, permuted_gradient = value_and_gradient(
        loss, embeddings.detach()[order].requires_grad_(), labels[order]
    )
    torch.testing.assert_close(permuted, value, rtol=1e-10, atol=0)
    torch.testing.assert_close(permuted_gradient, gradient[order], rtol=1e-9, atol=1e-10)


@each_component
def test_names_of_the_classes_do_not_matter(kind: str, name: str) -> None:
    loss = build(kind, name)
    embeddings, labels = batch()
    value, gradient = value_and_gradient(loss, embeddings, labels)
    renaming = torch.tensor([3, 5, 0, 1, 2, 4])
    if CASES[name].label_bound:
        tensors = [*loss.parameters(), *loss.buffers()]
        for tensor in tensors:
            tensor.data = tensor.data[renaming.argsort()]
        renamed = renaming[labels]
    else:
        renamed = renaming[labels] * 10**12 - 5  # any int64, negative ones too
    torch.testing.assert_close(
        value_and_gradient(loss, embeddings, renamed), (value, gradient), rtol=1e-9, atol=1e-10
    )


@each_component
def test_rotation_and_length_do_not_matter(kind: str, name: str) -> None:
    loss = build(kind, name)
    embeddings, labels = batch()
    value, gradient = value_and_gradient(loss, embeddings, labels)
    rotation = torch.linalg.qr(
        torch.randn(WIDTH, WIDTH, dtype=torch.float64, generator=torch.manual_seed(5))
    ).Q
    for parameter in loss.parameters():
        if parameter.dim() > 0:
            parameter.data = parameter.data @ rotation
    length = 1.0 if CASES[name].length_bound else 3.0
    rotated = (embeddings.detach() @ rotation * length).requires_grad_()
    rotated_value, rotated_gradient = value_and_gradient(loss, rotated, labels)
    torch.testing.assert_close(rotated_value, value, rtol=1e-9, atol=0)
    torch.testing.assert_close(rotated_gradient * length, gradient @ rotation, rtol=1e-8, atol=1e-9)


@each_component
def test_batch_without_a_positive_pair(kind: str, name: str) -> None:
    loss = build(kind, name)
    embeddings, labels = batch(labels=tuple(range(NUM_CLASSES)))
    value, gradient = value_and_gradient(loss, embeddings, labels)
    assert value.isfinite()
    assert gradient.isfinite().all()
    if CASES[name].needs_positive:
        assert value == 0
        assert not gradient.any()


@each_component
@pytest.mark.parametrize("size", [1, 2, 7])
def test_batch_of_one_class(kind: str, name: str, size: int) -> None:
    value, gradient = value_and_gradient(build(kind, name), *batch(labels=(2,) * size))
    assert value.isfinite()
    assert gradient.isfinite().all()


@each_component
def test_equal_embeddings_have_a_finite_gradient(kind: str, name: str) -> None:
    embeddings = torch.ones(len(LABELS), WIDTH, requires_grad=True)
    value, gradient = value_and_gradient(build(kind, name, torch.float32), embeddings, torch.tensor(LABELS))
    assert value.isfinite()
    assert gradient.isfinite().all()


@each_component
def test_a_zero_embedding_has_a_finite_gradient(kind: str, name: str) -> None:
    embeddings, labels = batch(torch.float32)
    embeddings = (embeddings.detach() * (torch.arange(len(labels)) != 2).unsqueeze(1)).requires_grad_()
    value, gradient = value_and_gradient(build(kind, name, torch.float32), embeddings, labels)
    assert value.isfinite()
    assert gradient.isfinite().all()
    if not CASES[name].length_bound:
        assert not gradient[2].any()


@each_component
def test_nan_is_not_hidden(kind: str, name: str) -> None:
    embeddings, labels = batch()
    embeddings.data[3, 1] = torch.nan
    assert build(kind, name)(embeddings, labels).isnan()


@each_component
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_stays_near(kind: str, name: str, dtype: torch.dtype) -> None:
    """Under autocast a half-precision batch gives what float32 gives on the same rounded numbers."""
    loss = build(kind, name, torch.float32)
    embeddings, labels = batch()
    rounded = embeddings.detach().to(dtype).requires_grad_()
    want, want_gradient = value_and_gradient(loss, rounded.detach().float().requires_grad_(), labels)
    with torch.autocast("cpu", dtype=dtype):
        value, gradient = value_and_gradient(loss, rounded, labels)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(value, want, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        gradient.float(), want_gradient, rtol=1e-2, atol=1e-2 * want_gradient.abs().max().item()
    )


@each_component
def test_same_seed_same_bits(kind: str, name: str) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (value_and_gradient(build(kind, name), *batch()) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@each_component
def test_inputs_are_left_alone(kind: str, name: str) -> None:
    embeddings, labels = batch()
    before = embeddings.detach().clone(), labels.clone()
    build(kind, name)(embeddings, labels).backward()
    torch.testing.assert_close((embeddings.detach(), labels), before, rtol=0, atol=0)


@each_component
def test_one_step_downhill(kind: str, name: str) -> None:
    loss = build(kind, name)
    embeddings, labels = batch()
    value, gradient = value_and_gradient(loss, embeddings, labels)
    step = 1e-7 / gradient.norm().clamp(min=1e-12)
    assert loss(embeddings.detach() - step * gradient, labels) < value


@each_component
@pytest.mark.parametrize("elements", [1, 70])
def test_chunks_do_not_matter(kind: str, name: str, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row (or class) a chunk, and uneven chunks, give what the whole batch at once gives."""
    value, gradient = value_and_gradient(build(kind, name), *batch())
    monkeypatch.setattr("dmlcore.losses.pairs.CHUNK_ELEMENTS_CPU", elements)
    chunked = value_and_gradient(build(kind, name), *batch())
    torch.testing.assert_close(chunked, (value, gradient), rtol=1e-10, atol=1e-12)
