"""Embeddings to the metrics of a trial. Its code is part of the eval_key, not of the train_key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dmlcore.config.trial import EvaluationConfig
from dmlcore.metrics.evaluation import Evaluation, evaluate


def evaluate_embeddings(
    embeddings: Tensor,
    labels: Tensor,
    config: EvaluationConfig,
    *,
    distance_range: tuple[float, float] | None = None,
    is_query: Tensor | None = None,
    bootstrap: bool = False,
) -> Evaluation:
    """`evaluate()` with the settings of a trial; without `bootstrap`, no interval."""
    return evaluate(
        embeddings,
        labels,
        ks=config.ks,
        far_range=config.far_range,
        num_thresholds=config.num_thresholds,
        epsilon=config.epsilon,
        distance_range=distance_range,
        is_query=is_query,
        bootstrap=config.bootstrap if bootstrap else 0,
    )


@dataclass(frozen=True)
class UtilityCurve:
    """Utility of one threshold for the classes: mean and 10 % / 90 % class quantiles, one value a threshold."""

    thresholds: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def utility_curve(evaluation: Evaluation) -> UtilityCurve:
    """Summarise `evaluation.utility [C, T]` over the classes."""
    utility = torch.as_tensor(evaluation.utility, dtype=torch.float64)
    low, high = torch.quantile(utility, torch.tensor([0.1, 0.9], dtype=torch.float64), dim=0)
    thresholds = torch.as_tensor(evaluation.thresholds, dtype=torch.float64)
    return UtilityCurve(thresholds.tolist(), utility.mean(dim=0).tolist(), low.tolist(), high.tolist())


def evaluate_splits(
    validation: Mapping[str, Tensor], test: Mapping[str, Tensor], config: EvaluationConfig
) -> tuple[dict[str, float], UtilityCurve]:
    """Metrics of stored embeddings: `validation/...`, `test/...`, and OPIS of test at validation's own range.

    Args:
        validation, test: the stored tensors `embeddings` [N, D], `labels` [N], and `is_query` [N] where queries search
            a gallery.
    """
    held_out = _evaluate(validation, config, bootstrap=True)
    final = _evaluate(test, config, bootstrap=True)
    span = (held_out.metrics["distance_min"], held_out.metrics["distance_max"])
    carried = _evaluate(test, config, distance_range=span)
    metrics = {f"validation/{key}": float(value) for key, value in held_out.metrics.items()}
    metrics |= {f"test/{key}": float(value) for key, value in final.metrics.items()}
    for key in ("opis", "opis_corrected", "mean_utility"):
        metrics[f"test/{key}_validation_range"] = float(carried.metrics[key])
    return metrics, utility_curve(final)


def _evaluate(stored: Mapping[str, Tensor], config: EvaluationConfig, **options: Any) -> Evaluation:
    return evaluate_embeddings(
        stored["embeddings"], stored["labels"], config, is_query=stored.get("is_query"), **options
    )
