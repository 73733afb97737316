"""evaluate() as a metric of torchmetrics, for Lightning and any loop that gathers states over ranks.

Shapes: B batch, D width, N images of all batches and ranks.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmlcore.extras import require
from dmlcore.metrics.evaluation import evaluate

require("torchmetrics", "dmlcore.metrics.torchmetrics", "torchmetrics")

from torchmetrics import Metric  # noqa: E402
from torchmetrics.utilities import dim_zero_cat  # noqa: E402

SETTINGS = tuple(
    name for name, value in inspect.signature(evaluate).parameters.items() if value.kind is value.KEYWORD_ONLY
)
PER_IMAGE = ("is_query", "groups")


class ThresholdConsistency(Metric):
    """All metrics of `evaluate` over what all batches and ranks have seen: OPIS, retrieval and verification.

    The embeddings are kept until `compute`, which puts them into an order of their own: the numbers are the same to the
    bit whatever the order of the batches and the number of ranks.

    Args:
        prefix: put before each name, as "validation/".
        settings: arguments of `evaluate`: `far_range`, `ks`, `num_thresholds`, ...
        keywords: arguments of torchmetrics.Metric.

    Raises:
        ValueError: an unknown setting, or one that belongs to single images.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    embeddings: list[Tensor]
    labels: list[Tensor]

    def __init__(self, prefix: str = "", settings: dict[str, Any] | None = None, **keywords: Any) -> None:
        super().__init__(**keywords)
        allowed = [name for name in SETTINGS if name not in PER_IMAGE]
        for name, value in (settings or {}).items():
            if name not in allowed:
                raise ValueError(
                    f"ThresholdConsistency has no setting `{name}`, got {value!r}; known: {', '.join(allowed)}"
                )
        self.prefix = prefix
        self.settings = dict(settings or {})
        self.add_state("embeddings", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Keep a batch: embeddings [B, D], float, need not be normalised; labels [B], integer.

        Raises:
            ValueError: shapes or types are not as above.
        """
        if embeddings.dim() != 2 or not embeddings.is_floating_point():
            raise ValueError(
                f"embeddings must be a float tensor [B, D], got {embeddings.dtype} {list(embeddings.shape)}"
            )
        if labels.shape != embeddings.shape[:1] or labels.is_floating_point():
            raise ValueError(
                f"labels must be an integer tensor [B] = [{len(embeddings)}], "
                f"got {labels.dtype} {list(labels.shape)}"
            )
        self.embeddings.append(embeddings.detach().float())
        self.labels.append(labels.detach().long())

    def compute(self) -> dict[str, Tensor]:
        """Evaluate all batches: name -> scalar, as `log_dict` takes it.

        Raises:
            ValueError: no batch, or one that `evaluate` refuses, as one without a positive pair.
        """
        if isinstance(self.embeddings, list) and not self.embeddings:
            raise ValueError("ThresholdConsistency has seen no batch; call update before compute")
        embeddings = dim_zero_cat(self.embeddings).cpu().numpy()
        labels = dim_zero_cat(self.labels).cpu().numpy()
        order = canonical_order(embeddings, labels)
        metrics = evaluate(embeddings[order], labels[order], **self.settings).metrics
        dtype = torch.float32 if self.device.type == "mps" else torch.float64  # which has no float64
        return {
            f"{self.prefix}{name}": torch.tensor(value, dtype=dtype, device=self.device)
            for name, value in metrics.items()
        }


def canonical_order(embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return an order [N] that depends on the rows alone: by label, then by the bytes of the embedding."""
    values = np.ascontiguousarray(embeddings)
    rows = values.view(np.dtype((np.void, values.dtype.itemsize * values.shape[1]))).ravel()
    by_bytes = np.argsort(rows, kind="stable")
    return by_bytes[np.argsort(labels[by_bytes], kind="stable")]
