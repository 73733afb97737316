"""Losses and regularisers by name, one a file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from dmlcore.losses.contrastive import Contrastive
from dmlcore.losses.multi_similarity import MultiSimilarity
from dmlcore.losses.proxy_anchor import ProxyAnchor
from dmlcore.losses.recall_at_k import RecallAtK
from dmlcore.losses.smooth_ap import SmoothAP
from dmlcore.losses.threshold_consistent_margin import ThresholdConsistentMargin

__all__ = ["LOSSES", "REGULARIZERS", "ThresholdConsistentMargin", "build_loss", "build_regularizer"]

LOSSES: dict[str, type[nn.Module]] = {
    "contrastive": Contrastive,
    "multi_similarity": MultiSimilarity,
    "proxy_anchor": ProxyAnchor,
    "recall_at_k": RecallAtK,
    "smooth_ap": SmoothAP,
}

REGULARIZERS: dict[str, type[nn.Module]] = {
    "tcm": ThresholdConsistentMargin,
}

SIZES = ("num_classes", "embedding_dim")


def build_loss(name: str, *, num_classes: int, embedding_dim: int, **params: Any) -> nn.Module:
    """The loss of that name, called as `loss(embeddings [B, D], labels [B]) -> scalar`.

    Args:
        name: a key of LOSSES.
        num_classes: C, training classes, labelled 0..C - 1; for losses with proxies.
        embedding_dim: D; for losses with proxies.
        params: the loss's own arguments; what is left out takes the author's value.

    Raises:
        ValueError: unknown name, or an unknown, missing or out-of-range parameter.

    A loss with parameters of its own draws them from torch's generator: seed that first.
    """
    return _build("loss", LOSSES, name, {"num_classes": num_classes, "embedding_dim": embedding_dim}, params)


def build_regularizer(name: str, *, num_classes: int, embedding_dim: int, **params: Any) -> nn.Module:
    """The regulariser of that name, added to any loss; arguments as for `build_loss`."""
    sizes = {"num_classes": num_classes, "embedding_dim": embedding_dim}
    return _build("regularizer", REGULARIZERS, name, sizes, params)


def _build(
    kind: str,
    registry: dict[str, type[nn.Module]],
    name: str,
    sizes: Mapping[str, int],
    params: Mapping[str, Any],
) -> nn.Module:
    if name not in registry:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(sorted(registry))}")
    signature = inspect.signature(registry[name]).parameters
    own = [parameter for parameter in signature if parameter not in SIZES]
    for parameter in params:
        if parameter not in own:
            raise ValueError(
                f"{kind} `{name}` has no parameter `{parameter}`, got {params[parameter]!r}; "
                f"its parameters: {', '.join(own) or 'none'}"
            )
    for parameter in own:
        if signature[parameter].default is inspect.Parameter.empty and parameter not in params:
            raise ValueError(f"{kind} `{name}` needs the parameter `{parameter}`, got nothing; pass it")
    return registry[name](**{key: sizes[key] for key in SIZES if key in signature}, **params)
