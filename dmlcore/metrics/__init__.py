"""Metrics of embeddings: retrieval, verification, and how evenly one threshold serves all classes.

`evaluate` is imported on first use: it needs torch and numba, and the report, which imports the figure style of this
package, needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmlcore.metrics.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from dmlcore.metrics import evaluation

        return getattr(evaluation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
