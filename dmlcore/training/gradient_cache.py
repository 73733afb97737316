"""Gradient replay: the gradient of a batch that does not fit into memory, as if it did.

Shapes: B batch, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dmlcore.training.loader import Batch

Forward = Callable[[Tensor], Tensor]
Terms = dict[str, Tensor]
BATCH_NORM = nn.modules.batchnorm._BatchNorm


def backward(
    forward: Forward, batch: Batch, loss_of: Callable[[Tensor], Terms], chunk_size: int | None
) -> Terms:
    """Add the gradient of the summed terms to the parameters, with the graph of one chunk in memory at a time.

    The chunks are embedded without a graph, the loss and its gradient are taken on all embeddings at once, and each
    chunk is embedded again, under the same random state, to carry its part of that gradient on.

    Args:
        forward: network input -> embeddings [b, D]; an image's embedding must not depend on its neighbours.
        batch: the B images.
        loss_of: embeddings [B, D] -> the terms of the loss.
        chunk_size: images at a time; None, or B and more: one ordinary backward pass.

    Returns:
        The terms, detached.

    Reference: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021, section 3;
    Patel, Tolias, Matas, "Recall@k Surrogate Loss with Large Batches and Similarity Mixup", CVPR 2022, section 3.3.
    """
    if chunk_size is None or chunk_size >= batch.size:
        return _summed_backward(loss_of(forward(batch.chunk(slice(None)))))
    chunks = [slice(start, start + chunk_size) for start in range(0, batch.size, chunk_size)]
    states, parts = [], []
    with torch.no_grad():
        for rows in chunks:
            states.append(_random_state())
            parts.append(forward(batch.chunk(rows)))
    embeddings = torch.cat(parts).requires_grad_()
    terms = _summed_backward(loss_of(embeddings))
    if embeddings.grad is not None:
        for rows, state in zip(chunks, states, strict=True):
            _restore(state)
            forward(batch.chunk(rows)).backward(embeddings.grad[rows])
    return terms


def _summed_backward(terms: Terms) -> Terms:
    torch.stack(list(terms.values())).sum().backward()
    return {name: term.detach() for name, term in terms.items()}


def _random_state() -> list[Tensor]:
    # Of the device in use alone: another process of the trial may have the others.
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *cuda]


def _restore(state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state(state[1])


def mixing_layers(model: nn.Module) -> list[str]:
    """Name the layers of a network in training mode in which an image's output depends on its neighbours."""
    return [name for name, part in model.named_modules() if isinstance(part, BATCH_NORM) and part.training]


def check_chunks(model: nn.Module, chunk_size: int | None) -> None:
    """Refuse chunks where a layer mixes the images of a batch.

    Raises:
        ValueError: BatchNorm that learns its statistics from the batch.
    """
    if chunk_size is None:
        return
    model.train()
    mixing = mixing_layers(model)
    if mixing:
        raise ValueError(
            f"train.chunk_size needs a network without BatchNorm over the batch, got {len(mixing)} such layers, first "
            f"{mixing[0]!r}: set model.backbone.freeze_batch_norm, and model.normalization to layer_norm or none"
        )
