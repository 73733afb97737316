"""Embeddings to the metrics of a trial. Its code is part of the eval_key, not of the train_key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dmlcore.config.trial import EvaluationConfig
from dmlcore.metrics.evaluation import Evaluation, evaluate


def utility_curve(evaluation: Evaluation) -> dict[str, list[float]]:
    """Summarise `evaluation.utility [C, T]` over the classes.

    Returns:
        `thresholds`, and the utility of each for the classes: `mean`, `low` (10 % class quantile), `high` (90 %).
    """
    utility = torch.as_tensor(evaluation.utility, dtype=torch.float64)
    low, high = torch.quantile(utility, torch.tensor([0.1, 0.9], dtype=torch.float64), dim=0)
    thresholds = torch.as_tensor(evaluation.thresholds, dtype=torch.float64)
    curves = {"thresholds": thresholds, "mean": utility.mean(dim=0), "low": low, "high": high}
    return {name: curve.tolist() for name, curve in curves.items()}


def evaluate_stored(
    load: Callable[[str], Mapping[str, Tensor]],
    config: EvaluationConfig,
    device: torch.device | None = None,
    evaluate: Callable[..., Evaluation] = evaluate,
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Compute the metrics of stored embeddings: `validation/...`, `test/...`, and OPIS of test at validation's range.

    Args:
        load: `validation` or `test` -> the stored tensors `embeddings` [N, D], `labels` [N], `is_query` [N] where
            queries search a gallery, and `groups` [N] where two images of one class and one group are no pair.
        config: the section `evaluation` of the trial.
        device: where the products run; None: the CPU. Float32 products of two kinds of device differ in the last bits.
        evaluate: evaluates, here or on several processes.

    Returns:
        The metrics, and the `utility_curve` of the test classes.
    """

    def scores(stored: Mapping[str, Tensor], **options: Any) -> Evaluation:
        settings = config.model_dump() | {"device": device} | options
        settings |= {name: stored.get(name) for name in ("is_query", "groups")}
        return evaluate(stored["embeddings"], stored["labels"], **settings)

    test = load("test")
    held_out, final = scores(load("validation")), scores(test)
    span = (held_out.metrics["distance_min"], held_out.metrics["distance_max"])
    # A threshold is chosen on validation and used on unseen classes: this is the OPIS that a deployment would meet.
    carried = scores(test, distance_range=span, bootstrap=0)
    metrics = {f"validation/{key}": float(value) for key, value in held_out.metrics.items()}
    metrics |= {f"test/{key}": float(value) for key, value in final.metrics.items()}
    for key in ("opis", "opis_corrected", "mean_utility"):
        metrics[f"test/{key}_validation_range"] = float(carried.metrics[key])
    return metrics, utility_curve(final)
