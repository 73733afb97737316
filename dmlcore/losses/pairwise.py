"""A scalar loss of all pairs of a batch: its gradient is computed along with its value, and can be derived once more.

Shapes: B batch, D embedding width.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dmlcore.losses.base import any_extreme, normalize_extremes, row_lengths
from dmlcore.losses.pairs import KERNELS, ClassGroup, Kernel, sort_by_class

NO_SECOND = (
    "this loss has no second derivative: it does not differentiate the weights of its pairs, so its gradient is not "
    "that of its value. Differentiate it once, or use another loss for a gradient penalty"
)


def pairwise_loss(
    vectors: Tensor,
    labels: Tensor,
    kernel: Kernel,
    *numbers: float,
    cosine: bool = True,
    symmetric: bool = False,
    twice: bool = True,
) -> Tensor:
    """Compute a scalar loss of all similarities within a batch, its gradient along with its value.

    Args:
        vectors: [B, D], not normalised.
        labels: [B], integer.
        kernel: the loss of the [B, B] similarities, a `pair_kernel`.
        numbers: its parameters.
        cosine: the similarities are cosines, otherwise dot products.
        symmetric: the kernel's gradient is a symmetric matrix, which saves one product.
        twice: what the kernel leaves is the gradient of the value, so that it has second derivatives.

    Returns:
        Scalar tensor; NaN where a vector is NaN, whatever the kernel's comparisons make of it. It can be differentiated
        twice, by `create_graph` or by `torch.func.grad`; `torch.func.vmap` and `torch.func.jvp` refuse it, since a
        kernel takes one batch. `torch.compile` takes it as one operator, to be differentiated once.
    """
    if torch.compiler.is_compiling():
        compiled: Tensor = _loss_operator(vectors, labels, kernel.__name__, numbers, cosine, symmetric)[0]
        return compiled
    bound = partial(_call, kernel, numbers)
    result: Tensor = _PairwiseLoss.apply(vectors, labels, bound, cosine, symmetric, twice)[0]
    return result


def _call(kernel: Kernel, numbers: Sequence[float], matrix: Tensor, groups: list[ClassGroup]) -> Tensor:
    return kernel(matrix, groups, *numbers)


class _Slopes(NamedTuple):
    """What a gradient is made of."""

    ordered: Tensor
    """[B, D], sorted by class; normalised for cosines."""
    lengths: Tensor | None
    """[B, 1] of the sorted vectors, for cosines; infinite where there is no gradient."""
    slopes: Tensor
    """[B, B], of the loss by each similarity."""
    inverse: Tensor
    """[B], where each vector went."""


def _value_and_slopes(
    vectors: Tensor, labels: Tensor, kernel: Kernel, cosine: bool
) -> tuple[Tensor, _Slopes]:
    order, groups = sort_by_class(labels)
    order = order.to(vectors.device, non_blocking=True)
    ordered = vectors[order]
    lengths = row_lengths(ordered) if cosine else None
    if lengths is not None and any_extreme(lengths):
        ordered, lengths = normalize_extremes(ordered)
    elif lengths is not None:
        ordered.div_(lengths)
    matrix = ordered @ ordered.T
    value = kernel(matrix, groups)
    # A kernel's comparisons are False for NaN and would hide it.
    return value + 0 * ordered.sum(), _Slopes(ordered, lengths, matrix, order.argsort())


def _gradient(parts: _Slopes, upstream: Tensor, symmetric: bool) -> Tensor:
    """Return [B, D], `upstream` times the gradient of the loss by the vectors."""
    ordered, lengths, slopes, inverse = parts
    with torch.autocast(ordered.device.type, enabled=False):
        product = slopes @ ordered
        # A second product costs half of what adding the transpose of a B x B matrix does (0.10, 0.18 s at B 4000).
        product = product.mul_(2) if symmetric else product.addmm_(slopes.T, ordered)
    factor = upstream
    if lengths is not None:
        # Through the normalisation: only what is at right angles to the vector counts.
        product.addcmul_(ordered, torch.linalg.vecdot(ordered, product).unsqueeze(1), value=-1)
        factor = upstream / lengths
    return product.mul_(factor)[inverse]


class _PairwiseLoss(torch.autograd.Function):
    """Vectors -> the loss and what its gradient is made of."""

    @staticmethod
    def forward(
        vectors: Tensor, labels: Tensor, kernel: Kernel, cosine: bool, symmetric: bool, twice: bool
    ) -> tuple[Tensor | None, ...]:
        value, parts = _value_and_slopes(vectors, labels, kernel, cosine)
        return value, *parts

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        vectors, labels, *ctx.settings = inputs
        ctx.mark_non_differentiable(*(part for part in output[1:] if part is not None))
        ctx.set_materialize_grads(False)  # otherwise a B x B matrix of zeros for the slopes
        ctx.save_for_backward(vectors, labels, *output[1:])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if upstream is None:
            return (None,) * 6
        vectors, labels, *parts = ctx.saved_tensors
        settings = ctx.settings
        if torch.is_grad_enabled():  # `create_graph`: a second derivative may follow
            gradient = _PairwiseGradient.apply(vectors, upstream, labels, *settings, *parts)
        else:
            gradient = _gradient(_Slopes(*parts), upstream, symmetric=settings[2])
        return gradient, None, None, None, None, None


class _PairwiseGradient(torch.autograd.Function):
    """Vectors and the upstream gradient of the loss -> the gradient by the vectors, to be differentiated once more."""

    @staticmethod
    def forward(vectors: Tensor, upstream: Tensor, labels: Tensor, *rest: Any) -> Tensor:
        _, _, symmetric, _, *parts = rest
        return _gradient(_Slopes(*parts), upstream, symmetric)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.settings, ctx.num_inputs = inputs[3:7], len(inputs)

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
        vectors, upstream, labels = ctx.saved_tensors
        kernel, cosine, symmetric, twice = ctx.settings
        if not twice:
            raise NotImplementedError(NO_SECOND)
        _load_forward_differentiation()
        # The matrix of second derivatives is symmetric, so its product with `direction` is the change of the gradient
        # in that direction: forward differentiation, through the kernel too.
        with torch.no_grad(), forward_ad.dual_level():
            moving = forward_ad.make_dual(vectors, direction)  # type: ignore[no-untyped-call]
            _, parts = _value_and_slopes(moving, labels, kernel, cosine)
            dual = _gradient(parts, torch.ones_like(upstream), symmetric)
            gradient, change = forward_ad.unpack_dual(dual)  # type: ignore[no-untyped-call]
            second, by_upstream = change * upstream, (gradient * direction).sum()
        linked = (vectors, upstream, direction)
        results = (_NoThird.apply(result, *linked) for result in (second, by_upstream))
        return *results, *(None for _ in range(ctx.num_inputs - 2))


@cache
def _load_forward_differentiation() -> None:
    """Use it once in silence: at its first use torch compiles formulas in a way of which it then warns the user."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore")
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))  # type: ignore[no-untyped-call]


class _NoThird(torch.autograd.Function):
    """A second derivative, tied to what it depends on, so that a third one is refused and not taken for 0."""

    @staticmethod
    def forward(result: Tensor, *linked: Tensor) -> Tensor:
        return result.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError("a loss of all pairs of a batch has no third derivative here")


# The operators of compiled graphs. Eager mode keeps the functions above: less overhead, and second derivatives.
@torch.library.custom_op(
    "dmlcore::pairwise_loss",
    mutates_args=(),
    schema="(Tensor vectors, Tensor labels, str kernel, float[] numbers, bool cosine, bool symmetric) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _loss_operator(
    vectors: Tensor, labels: Tensor, kernel: str, numbers: Sequence[float], cosine: bool, symmetric: bool
) -> tuple[Tensor, ...]:
    bound = partial(_call, KERNELS[kernel], numbers)
    value, (ordered, lengths, slopes, inverse) = _value_and_slopes(vectors, labels, bound, cosine)
    return value, ordered, vectors.new_empty(0) if lengths is None else lengths, slopes, inverse


@_loss_operator.register_fake
def _(
    vectors: Tensor, labels: Tensor, kernel: str, numbers: Sequence[float], cosine: bool, symmetric: bool
) -> tuple[Tensor, ...]:
    size = vectors.shape[0]
    lengths = vectors.new_empty((size, 1) if cosine else (0,))
    inverse = vectors.new_empty(size, dtype=torch.long)
    return vectors.new_empty(()), torch.empty_like(vectors), lengths, vectors.new_empty(size, size), inverse


@torch.library.custom_op(
    "dmlcore::pairwise_gradient",
    mutates_args=(),
    schema="(Tensor ordered, Tensor lengths, Tensor slopes, Tensor inverse, Tensor upstream, bool symmetric) -> Tensor",
)
def _gradient_operator(
    ordered: Tensor, lengths: Tensor, slopes: Tensor, inverse: Tensor, upstream: Tensor, symmetric: bool
) -> Tensor:
    parts = _Slopes(ordered, lengths if lengths.numel() else None, slopes, inverse)
    return _gradient(parts, upstream, symmetric)


@_gradient_operator.register_fake
def _(ordered: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(ordered)


def _setup_operator(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.symmetric = inputs[-1]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])


def _operator_backward(ctx: Any, upstream: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    gradient = _gradient_operator(*ctx.saved_tensors, upstream, ctx.symmetric)
    return gradient, None, None, None, None, None


_loss_operator.register_autograd(_operator_backward, setup_context=_setup_operator)
