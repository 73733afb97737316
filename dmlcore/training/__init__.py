"""From a trial's config and prepared data to its metrics: knows neither Ray nor MLflow.

The names are imported on first use: they need torch, and the plan of a sweep, which hashes this code, does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dmlcore.extras import require

if TYPE_CHECKING:
    from dmlcore.training.checkpoint import EpochReport
    from dmlcore.training.run import TrialResult, run_trial

__all__ = ["EpochReport", "TrialResult", "run_trial"]

require("train", __name__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dmlcore.training import checkpoint, run

    return getattr(checkpoint if name == "EpochReport" else run, name)
