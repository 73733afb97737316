"""Losses and regularisers by name, one a file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from dmlcore.losses.arcface import ArcFace
from dmlcore.losses.circle import Circle
from dmlcore.losses.contrastive import Contrastive
from dmlcore.losses.cosface import CosFace
from dmlcore.losses.gather import gather_across_ranks
from dmlcore.losses.language_guidance import LanguageGuidance
from dmlcore.losses.lifted_structure import LiftedStructure
from dmlcore.losses.multi_similarity import MultiSimilarity
from dmlcore.losses.norm_softmax import NormSoftmax
from dmlcore.losses.pml import PREFIX, PMLLoss
from dmlcore.losses.proxy_anchor import ProxyAnchor
from dmlcore.losses.proxy_gml import ProxyGML
from dmlcore.losses.proxy_nca_pp import ProxyNCAPlusPlus
from dmlcore.losses.recall_at_k import RecallAtK
from dmlcore.losses.smooth_ap import SmoothAP
from dmlcore.losses.soft_triple import SoftTriple
from dmlcore.losses.supcon import SupCon
from dmlcore.losses.threshold_consistent_margin import ThresholdConsistentMargin
from dmlcore.losses.triplet import Triplet
from dmlcore.losses.unified_threshold import UnifiedThreshold

__all__ = [
    "LOSSES",
    "REGULARIZERS",
    "ThresholdConsistentMargin",
    "build_loss",
    "build_regularizer",
    "gather_across_ranks",
]

LOSSES: dict[str, type[nn.Module]] = {
    "arcface": ArcFace,
    "circle": Circle,
    "contrastive": Contrastive,
    "cosface": CosFace,
    "lifted_structure": LiftedStructure,
    "multi_similarity": MultiSimilarity,
    "norm_softmax": NormSoftmax,
    "proxy_anchor": ProxyAnchor,
    "proxy_gml": ProxyGML,
    "proxy_nca_pp": ProxyNCAPlusPlus,
    "recall_at_k": RecallAtK,
    "smooth_ap": SmoothAP,
    "soft_triple": SoftTriple,
    "supcon": SupCon,
    "triplet": Triplet,
    "unified_threshold": UnifiedThreshold,
}

REGULARIZERS: dict[str, type[nn.Module]] = {
    "language_guidance": LanguageGuidance,
    "tcm": ThresholdConsistentMargin,
    "unified_threshold": UnifiedThreshold,
}

SIZES = ("num_classes", "embedding_dim")


def build_loss(name: str, *, num_classes: int, embedding_dim: int, **params: Any) -> nn.Module:
    """Build the loss of that name, called as `loss(embeddings [B, D], labels [B]) -> scalar`.

    Args:
        name: a key of LOSSES, or `pml:Name` for a loss of pytorch-metric-learning.
        num_classes: C, training classes, labelled 0..C - 1; for losses with proxies.
        embedding_dim: D; for losses with proxies.
        params: the loss's other arguments; the defaults are the authors' values.

    Raises:
        ValueError: unknown name, or an unknown, missing or out-of-range parameter.

    Learned parameters (proxies, centres) are drawn from torch's generator: seed that first.
    """
    if name.startswith(PREFIX):
        return PMLLoss(name.removeprefix(PREFIX), num_classes, embedding_dim, params)
    return _build("loss", LOSSES, name, {"num_classes": num_classes, "embedding_dim": embedding_dim}, params)


def build_regularizer(name: str, *, num_classes: int, embedding_dim: int, **params: Any) -> nn.Module:
    """Build the regulariser of that name, added to any loss; arguments as for `build_loss`."""
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
        also = f", {PREFIX}NAME for any of pytorch-metric-learning" if kind == "loss" else ""
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(sorted(registry))}{also}")
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
            raise ValueError(f"{kind} `{name}`: missing required parameter `{parameter}`")
    return registry[name](**{key: sizes[key] for key in SIZES if key in signature}, **params)
