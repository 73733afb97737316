"""The base class of the losses: the check of their batch, full precision under autocast, checks of parameters.

Shapes: B batch, D embedding width.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from dmlcore.losses.chosen_pairs import ChosenPairs, IndicesTuple, all_pairs, listed_pairs

HALF_TYPES = (torch.float16, torch.bfloat16)
SMALLEST_LENGTH = 1.0e-12
SCALES = {torch.float32: (2.0**-80, 2.0**100, 1.0e-32), torch.float64: (2.0**-640, 2.0**540, 1.0e-302)}
"""Factors for rows whose squares overflow, and for rows below SMALLEST_LENGTH, and the least length with a gradient."""
Number = TypeVar("Number", int, float)
Choice = TypeVar("Choice")


class MetricLoss(nn.Module):
    """A loss called as `loss(embeddings, labels)`; subclasses write `compute`.

    Called as pytorch-metric-learning calls its losses, with pairs of a miner or with references, it uses those pairs:
    subclasses that can write `compute_pairs`.

    The sums of a loss span 30 orders of magnitude (exponentials, counts of pairs), so half precision is raised to
    float32 and autocast is off inside, whatever the caller runs under.
    """

    cosine = True
    """`compute_pairs` gets normalised vectors."""
    takes_host_labels = False
    """`compute` takes labels that are on the CPU while the embeddings are not, so that no step waits for a GPU."""

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: IndicesTuple | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of a batch.

        Args:
            embeddings: [B, D], float, not normalised.
            labels: [B], integer; on the CPU a step on a GPU need not wait for them. None with an `indices_tuple`.
            indices_tuple: triplets or pairs of a miner: (anchors, positives, negatives) or (anchors, positives,
                anchors, negatives). The loss uses these pairs, each as often as it is there, and mines none itself.
            ref_emb: [R, D], what the anchors are compared with (positives and negatives count from 0 to R - 1);
                without an `indices_tuple` each anchor with all of them, so that an anchor that is among them is its
                own positive. None, or `embeddings` itself: the rest of the batch.
            ref_labels: [R], of `ref_emb`.

        Returns:
            Scalar tensor of float32 (float64 for float64 embeddings).

        Raises:
            ValueError: shapes, types or indices are not as above, B is 0, or the loss cannot take chosen pairs.
        """
        if ref_emb is embeddings and ref_labels is labels:
            ref_emb = ref_labels = None
        check_batch(embeddings, labels, without_labels=indices_tuple is not None)
        with torch.autocast(embeddings.device.type, enabled=False):
            if indices_tuple is None and ref_emb is None:
                assert labels is not None
                if not self.takes_host_labels:
                    labels = labels.to(embeddings.device, non_blocking=True)
                return self.compute(full_precision(embeddings), labels)
            return self._compute_chosen(embeddings, labels, indices_tuple, ref_emb, ref_labels)

    def _compute_chosen(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices: IndicesTuple | None,
        ref_emb: Tensor | None,
        ref_labels: Tensor | None,
    ) -> Tensor:
        vectors = references = full_precision(embeddings)
        if ref_emb is not None:
            check_references(ref_emb, ref_labels, embeddings, without_labels=indices is not None)
            references = full_precision(ref_emb).to(vectors)
        if indices is not None:
            pairs = listed_pairs(vectors, indices, len(references), within=ref_emb is None)
        else:
            assert labels is not None
            assert ref_labels is not None
            pairs = all_pairs(vectors, labels, ref_labels)
        if self.cosine:
            vectors, references = normalize(vectors), normalize(references)
        value = self.compute_pairs(vectors, references, pairs)
        # Comparisons are False for NaN and would hide it.
        return value + 0 * (vectors / vectors.detach().abs().clamp(min=1)).sum()

    def check_batch_size(self, batch_size: int) -> None:
        """Refuse batches that the loss cannot take, before there is one; most take any.

        Raises:
            ValueError: it cannot take `batch_size` embeddings.
        """

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss in full precision: [B, D] and [B] -> scalar."""
        raise NotImplementedError

    def compute_pairs(self, vectors: Tensor, references: Tensor, pairs: ChosenPairs) -> Tensor:
        """Compute the loss of chosen pairs in full precision: [B, D] and [R, D] -> scalar."""
        raise ValueError(
            f"{type(self).__name__} takes neither indices_tuple nor ref_emb: it is no sum over pairs that "
            "can be chosen; call it with embeddings and labels only"
        )


def check_batch(embeddings: Tensor, labels: Tensor | None, without_labels: bool = False) -> None:
    """Refuse a batch that no loss can take; it may lack labels with `without_labels`."""
    if embeddings.dim() != 2 or len(embeddings) == 0 or not embeddings.is_floating_point():
        raise ValueError(
            "embeddings must be a non-empty float tensor [B, D], "
            f"got {embeddings.dtype} {list(embeddings.shape)}; flatten all but the batch"
        )
    if labels is None:
        if without_labels:
            return
        raise ValueError("labels must be given where no indices_tuple is; pass one class index an embedding")
    if labels.shape != embeddings.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels must be an integer tensor [B] = [{len(embeddings)}], "
            f"got {labels.dtype} {list(labels.shape)}; pass one class index an embedding"
        )


def check_references(
    ref_emb: Tensor, ref_labels: Tensor | None, embeddings: Tensor, without_labels: bool
) -> None:
    """Refuse references that do not fit the embeddings."""
    try:
        check_batch(ref_emb, ref_labels, without_labels)
    except ValueError as error:
        raise ValueError(f"ref_emb and ref_labels: {error}") from error
    if ref_emb.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"ref_emb must have the width of the embeddings ({embeddings.shape[1]}), got {ref_emb.shape[1]}; "
            "pass references of the same embedder"
        )


def full_precision(values: Tensor) -> Tensor:
    """Return float32 for half precision, the values unchanged otherwise."""
    return values.float() if values.dtype in HALF_TYPES else values


def normalize(vectors: Tensor) -> Tensor:
    """L2-normalise rows; a zero row stays zero and gets no gradient, since it has no direction.

    Args:
        vectors: [B, D].

    Returns:
        [B, D], rows of length 1.
    """
    lengths = row_lengths(vectors)
    if vectors.dtype not in SCALES or not any_extreme(lengths):
        return vectors / lengths
    units, lengths = normalize_extremes(vectors)
    return torch.where(lengths.isinf(), units.detach(), units)


def row_lengths(vectors: Tensor) -> Tensor:
    """Return the lengths [B, 1] of [B, D]; infinite for a row that is zero, or that needs `normalize_extremes`."""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return lengths.masked_fill(lengths < SMALLEST_LENGTH, torch.inf)


def any_extreme(lengths: Tensor) -> bool:
    """Tell whether a row of these `row_lengths` needs `normalize_extremes`; true where a value cannot be asked for."""
    if torch.compiler.is_compiling() or lengths.device.type != "cpu":  # to ask a GPU is to wait for it
        return True
    try:
        return bool(lengths.isinf().any())
    except RuntimeError:  # within torch.func.vmap
        return True


def normalize_extremes(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Normalise rows of any finite length; ordinary rows come out as `vectors / row_lengths(vectors)`, to the bit.

    Squares overflow from a length of 1.8e19 on and lose digits below 1e-19: such rows are scaled by a power of 2 first.

    Returns:
        [B, D], rows of length 1 (a zero row: 0), and the lengths [B, 1] by which to divide a gradient: infinite where
        the quotient would overflow.
    """
    down, up, smallest = SCALES[vectors.dtype]
    lengths = torch.linalg.vector_norm(vectors.detach(), dim=1, keepdim=True)
    scale = torch.ones_like(lengths).masked_fill(lengths < SMALLEST_LENGTH, up)
    scale = scale.masked_fill(lengths.isinf(), down)
    scaled = vectors * scale
    lengths = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    lengths = lengths.masked_fill(lengths == 0, torch.inf)
    true_lengths = (lengths.detach() / scale).clamp(max=torch.finfo(scale.dtype).max)
    without = lengths.isinf() | (true_lengths < smallest)
    return scaled / lengths, true_lengths.masked_fill(without, torch.inf)


def check_number(
    name: str,
    value: Number,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    whole: bool = False,
) -> Number:
    """Return a parameter, or refuse it where it is not a finite number in its range.

    Args:
        name: dotted name for the message, `tcm.positive_margin`.
        value: what the caller passed.
        low: smallest allowed value (excluded with `open_low`).
        high: largest allowed value.
        open_low: the value must be above `low`, not equal to it.
        whole: the value must be an int.

    Raises:
        ValueError: naming the parameter, the rule and the value.
    """
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        raise ValueError(f"`{name}` must be {'an integer' if whole else 'a finite number'}, got {value!r}")
    if value < low or value > high or (open_low and value == low):
        rule = f"{'above' if open_low else 'at least'} {low:g}"
        rule += f" and at most {high:g}" if high < math.inf else ""
        raise ValueError(f"`{name}` must be {rule}, got {value!r}")
    return value


def check_choice(name: str, value: Choice, allowed: tuple[Choice, ...]) -> Choice:
    """Return a parameter, or refuse it where it is not one of the allowed values."""
    # 1 == True, but only the one of them that is listed will do.
    if type(value) not in {type(item) for item in allowed} or value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value
